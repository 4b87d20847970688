/** The microphone as 32 ms frames of PCM16 at 16 kHz. */

export const FRAME_MS = 32;

/** @typedef {"micDenied" | "micMissing" | "micBusy" | "micInsecure" | "micEnded"} MicTrouble the words are `toast.…` */

export class MicrophoneError extends Error {
  /** @param {MicTrouble} trouble */
  constructor(trouble) {
    super(trouble);
    this.trouble = trouble;
  }
}

export class Microphone {
  /**
   * @param {(pcm: ArrayBuffer, level: number) => void} onFrame
   * @param {() => void} onEnded the device went away
   */
  constructor(onFrame, onEnded) {
    this.onFrame = onFrame;
    this.onEnded = onEnded;
    /** @type {(() => void) | null} */
    this.close = null;
  }

  get open() {
    return this.close !== null;
  }

  /** Asks for the microphone and starts. Throws `MicrophoneError`. */
  async start() {
    if (this.open) return;
    const stream = await listen();
    try {
      const { context, source } = await sourceOf(stream);
      await context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
      const worklet = new AudioWorkletNode(context, "colloquy-capture", {
        numberOfOutputs: 0,
        channelCount: 1,
        channelCountMode: "explicit",
      });
      worklet.port.onmessage = ({ data }) => this.onFrame(data.pcm, data.level);
      source.connect(worklet);
      const track = stream.getAudioTracks()[0];
      track.onended = () => {
        this.stop();
        this.onEnded();
      };
      this.close = () => {
        worklet.port.onmessage = null;
        track.onended = null;
        track.stop();
        void context.close();
      };
      void context.resume(); // not awaited: without any sound device Firefox never answers
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      throw error;
    }
  }

  stop() {
    this.close?.();
    this.close = null;
  }
}

async function listen() {
  if (!navigator.mediaDevices?.getUserMedia) throw new MicrophoneError("micInsecure");
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    if (name === "NotAllowedError" || name === "SecurityError") throw new MicrophoneError("micDenied");
    if (name === "NotFoundError" || name === "OverconstrainedError") throw new MicrophoneError("micMissing");
    throw new MicrophoneError("micBusy");
  }
}

/**
 * A context at 16 kHz leaves the resampling to the browser; Firefox refuses to join that to a
 * microphone of another rate, so there the worklet does it.
 * @param {MediaStream} stream
 */
async function sourceOf(stream) {
  const context = new AudioContext({ sampleRate: 16_000, latencyHint: "interactive" });
  try {
    return { context, source: context.createMediaStreamSource(stream) };
  } catch {
    await context.close();
    const native = new AudioContext({ latencyHint: "interactive" });
    return { context: native, source: native.createMediaStreamSource(stream) };
  }
}
