import { Resampler, floatToPcm16, loudness } from "./resampler.js";

const RATE = 16_000;
const FRAME = 512; // 32 ms, the frame of the server's speech detector

/** Sends `{pcm: ArrayBuffer, level}` for every 32 ms of what the microphone hears, as PCM16 at 16 kHz. */
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.frame = new Float32Array(FRAME);
    this.filled = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    const channels = inputs[0];
    if (!channels?.length) return true; // the microphone is not connected yet
    const samples = this.resampler.push(channels[0]);
    for (let at = 0; at < samples.length; ) {
      const count = Math.min(FRAME - this.filled, samples.length - at);
      this.frame.set(samples.subarray(at, at + count), this.filled);
      this.filled += count;
      at += count;
      if (this.filled === FRAME) this.#send();
    }
    return true;
  }

  #send() {
    const pcm = floatToPcm16(this.frame).buffer;
    this.port.postMessage({ pcm, level: loudness(this.frame) }, [pcm]);
    this.filled = 0;
  }
}

registerProcessor("colloquy-capture", Capture);
