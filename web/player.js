/**
 * The loudspeaker: plays replies in order, says how much was rendered, and stops at once.
 *
 * For tests, `window.__colloquyTap`, if it is a function when the first sound comes, gets every piece
 * of reply as it is rendered: `(samples: Float32Array at 24 kHz, turnId: string)`.
 */

import { Ledger } from "./playback.js";
import { Resampler } from "./resampler.js";

const RATE = 24_000;

/** @typedef {{ played: [string, number][], level: number }} Report samples rendered by turn, and loudness now */

export class Player {
  /** @type {Promise<AudioWorkletNode> | null} */
  #node = null;
  /** @type {AudioContext | null} */
  #context = null;
  #ledger = new Ledger(RATE);
  /** Turns that were stopped: what still comes of them is not wanted. @type {Set<string>} */
  #stopped = new Set();
  /** @type {{ turnId: string, resampler: Resampler } | null} */
  #resampling = null;

  /**
   * @param {object} handlers
   * @param {(turnId: string, playedMs: number, drained: boolean) => void} handlers.onPlayed every 200 ms
   *   while it sounds, and when all that was given of a turn is played
   * @param {(level: number) => void} handlers.onLevel
   * @param {(error: unknown) => void} handlers.onBroken there will be no sound
   */
  constructor(handlers) {
    this.handlers = handlers;
  }

  /** Browsers allow sound after a gesture: call this in one. */
  unlock() {
    this.#start().catch(() => {}); // told through onBroken
    void this.#context?.resume();
  }

  /** False while the browser holds the sound back, or there is nothing to play it on. */
  get running() {
    return this.#context?.state === "running";
  }

  /**
   * @param {string} turnId
   * @param {Float32Array} samples
   * @param {number} sampleRate
   * @returns {boolean} whether it will be played
   */
  push(turnId, samples, sampleRate) {
    if (this.#stopped.has(turnId) || !samples.length) return false;
    const sound = this.#resampled(turnId, samples, sampleRate);
    this.#ledger.give(turnId, sound.length);
    void this.#post({ push: turnId, samples: sound });
    return true;
  }

  /**
   * Silence within one render quantum; nothing more of the turn is played.
   * @param {string} turnId
   * @returns {number} how many ms of it have been played, as far as is known
   */
  stop(turnId) {
    this.#stopped.add(turnId);
    void this.#post({ flush: turnId });
    return this.#ledger.playedMs(turnId);
  }

  /**
   * Silence within one render quantum; what is left of the turn is kept until `release`.
   * @param {string} turnId
   */
  hold(turnId) {
    void this.#post({ hold: turnId });
  }

  /** Plays on from where it was held. */
  release() {
    void this.#post({ release: true });
  }

  /** Silence at once, whatever is being played. */
  stopAll() {
    void this.#post({ flush: null });
  }

  /** @param {{ push: string, samples: Float32Array } | { hold: string } | { release: true } | { flush: string | null }} message */
  async #post(message) {
    const node = await this.#start().catch(() => null);
    node?.port.postMessage(message);
  }

  #start() {
    this.#node ??= this.#open().catch((error) => {
      this.handlers.onBroken(error);
      throw error;
    });
    return this.#node;
  }

  async #open() {
    const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    this.#context = context;
    await context.audioWorklet.addModule(new URL("./player-worklet.js", import.meta.url));
    const tap = typeof window.__colloquyTap === "function" ? window.__colloquyTap : null;
    const node = new AudioWorkletNode(context, "colloquy-player", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { tap: tap !== null },
    });
    node.port.onmessage = ({ data }) => {
      if ("tap" in data) tap?.(data.samples, data.tap);
      else this.#reported(data);
    };
    node.connect(context.destination);
    void context.resume();
    return node;
  }

  /** @param {Report} report */
  #reported({ played, level }) {
    this.handlers.onLevel(level);
    for (const [turnId, samples] of played) {
      const news = this.#ledger.played(turnId, samples, performance.now());
      if (news?.due) this.handlers.onPlayed(turnId, news.playedMs, news.drained);
    }
  }

  /**
   * @param {string} turnId
   * @param {Float32Array} samples
   * @param {number} sampleRate
   */
  #resampled(turnId, samples, sampleRate) {
    if (sampleRate === RATE) return samples; // as we asked for
    if (this.#resampling?.turnId !== turnId) {
      this.#resampling = { turnId, resampler: new Resampler(sampleRate, RATE) };
    }
    return this.#resampling.resampler.push(samples);
  }
}
