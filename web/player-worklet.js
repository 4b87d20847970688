import { PlaybackQueue } from "./playback.js";
import { loudness } from "./resampler.js";

/** In: `{push: turnId, samples}`, `{hold: turnId}`, `{release: true}`, `{flush: turnId | null}`. Out: `Report` of player.js, or `{tap: turnId, samples}`. */
class Player extends AudioWorkletProcessor {
  /** @param {AudioWorkletNodeOptions} options */
  constructor(options) {
    super();
    this.tap = Boolean(options.processorOptions?.tap);
    this.queue = new PlaybackQueue(Math.round(sampleRate * 0.005));
    this.sinceReport = 0;
    /** @type {Map<string, number>} */
    this.reported = new Map();
    this.port.onmessage = ({ data }) => {
      if ("push" in data) {
        this.queue.push(data.push, data.samples);
      } else if ("hold" in data) {
        this.queue.hold(data.hold);
        this.#report(0);
      } else if ("release" in data) {
        this.queue.release();
      } else {
        this.queue.flush(data.flush);
        this.#report(0);
      }
    };
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, outputs) {
    const out = outputs[0][0];
    const wasSilent = this.queue.current === null;
    const parts = this.queue.render(out);
    if (!parts.length) return true;
    if (this.tap) {
      for (const { turnId, at, samples } of parts) {
        this.port.postMessage({ tap: turnId, samples: out.slice(at, at + samples) });
      }
    }
    this.sinceReport += out.length;
    if (wasSilent || this.queue.empty || this.sinceReport >= sampleRate * 0.05) this.#report(loudness(out));
    return true;
  }

  /** @param {number} level */
  #report(level) {
    this.sinceReport = 0;
    const played = [...this.queue.played].filter(([turnId, count]) => this.reported.get(turnId) !== count);
    for (const [turnId, count] of played) this.reported.set(turnId, count);
    this.port.postMessage({ played, level });
  }
}

registerProcessor("colloquy-player", Player);
