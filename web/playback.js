/** What is still to be played, and how much of each reply has been. */

/** @typedef {{ turnId: string, samples: Float32Array, at: number }} Piece */

/** The sound in front of the loudspeaker; lives inside the player's worklet. */
export class PlaybackQueue {
  /** @param {number} fadeSamples length of the fade when sound is thrown away mid-wave */
  constructor(fadeSamples = 120) {
    this.fadeSamples = fadeSamples;
    /** @type {Piece[]} */
    this.pieces = [];
    /** Samples rendered, by turn. @type {Map<string, number>} */
    this.played = new Map();
    /** The turn whose sound the last `render` ended with; null when it was silent. @type {string | null} */
    this.current = null;
    /** @type {Float32Array | null} */
    this.fading = null;
    /** The turn at which the queue is held. @type {string | null} */
    this.held = null;
    /** How many samples are still to be faded in. */
    this.rising = 0;
  }

  get empty() {
    return this.pieces.length === 0;
  }

  /**
   * @param {string} turnId
   * @param {Float32Array} samples
   */
  push(turnId, samples) {
    if (turnId !== this.held) this.release();
    if (samples.length) this.pieces.push({ turnId, samples, at: 0 });
  }

  /**
   * Silence from the next `render` on; what is still to be played is kept until `release`, a flush or
   * another turn's sound.
   * @param {string} turnId
   */
  hold(turnId) {
    if (this.held === null) this.#fadeNext();
    this.held = turnId;
  }

  /** Plays on from where it was held. */
  release() {
    if (this.held !== null) this.rising = this.fadeSamples;
    this.held = null;
  }

  /**
   * Throws away what is still to be played of one turn, or of all. If that turn is sounding now,
   * the next `render` fades it out instead of cutting it.
   * @param {string | null} turnId
   */
  flush(turnId) {
    if (turnId === null || turnId === this.current) this.#fadeNext();
    if (turnId === null || turnId === this.held) this.held = null;
    this.rising = 0;
    this.pieces = turnId === null ? [] : this.pieces.filter((piece) => piece.turnId !== turnId);
  }

  /**
   * Fills `out` from the queue; what the queue cannot fill is silence.
   * @param {Float32Array} out
   * @returns {{ turnId: string, at: number, samples: number }[]} where in `out` which turn is, in order
   */
  render(out) {
    /** @type {{ turnId: string, at: number, samples: number }[]} */
    const parts = [];
    let filled = this.#fade(out);
    while (this.held === null && filled < out.length && this.pieces.length) {
      const piece = this.pieces[0];
      const count = Math.min(out.length - filled, piece.samples.length - piece.at);
      out.set(piece.samples.subarray(piece.at, piece.at + count), filled);
      this.#rise(out, filled, count);
      const tail = parts[parts.length - 1];
      if (tail?.turnId === piece.turnId) tail.samples += count;
      else parts.push({ turnId: piece.turnId, at: filled, samples: count });
      filled += count;
      piece.at += count;
      if (piece.at === piece.samples.length) this.pieces.shift();
      this.played.set(piece.turnId, (this.played.get(piece.turnId) ?? 0) + count);
      this.current = piece.turnId;
    }
    out.fill(0, filled);
    if (filled < out.length) this.current = null;
    return parts;
  }

  /** If the queue's first piece is sounding now, the next `render` fades it out instead of cutting it. */
  #fadeNext() {
    if (this.current === null || this.pieces[0]?.turnId !== this.current) return;
    const { samples, at } = this.pieces[0];
    this.fading = samples.slice(at, at + this.fadeSamples);
  }

  /**
   * @param {Float32Array} out
   * @param {number} at
   * @param {number} count
   */
  #rise(out, at, count) {
    for (let i = at; i < at + count && this.rising > 0; i++, this.rising--) {
      out[i] *= 1 - this.rising / this.fadeSamples;
    }
  }

  /**
   * The fade is not counted as played: nobody understands a word from 5 ms.
   * @param {Float32Array} out
   */
  #fade(out) {
    if (!this.fading) return 0;
    const count = Math.min(this.fading.length, out.length);
    for (let i = 0; i < count; i++) out[i] = this.fading[i] * (1 - (i + 1) / this.fading.length);
    this.fading = null;
    this.current = null;
    return count;
  }
}

/**
 * How much of each turn was rendered, against how much was given; lives in the page. It says when a
 * report is due: every `everyMs` while sound is rendered, and at each end.
 */
export class Ledger {
  /**
   * @param {number} sampleRate Hz
   * @param {number} everyMs
   */
  constructor(sampleRate, everyMs = 200) {
    this.sampleRate = sampleRate;
    this.everyMs = everyMs;
    this.lastReport = -Infinity;
    /** Samples by turn. @type {Map<string, { given: number, played: number }>} */
    this.turns = new Map();
  }

  /**
   * @param {string} turnId
   * @param {number} samples
   */
  give(turnId, samples) {
    const turn = this.turns.get(turnId) ?? { given: 0, played: 0 };
    turn.given += samples;
    this.turns.set(turnId, turn);
  }

  /**
   * @param {string} turnId
   * @param {number} samples rendered of that turn so far
   * @param {number} now ms
   * @returns {{ playedMs: number, drained: boolean, due: boolean } | null} null: nothing new
   */
  played(turnId, samples, now) {
    const turn = this.turns.get(turnId);
    if (!turn || samples <= turn.played) return null;
    turn.played = samples;
    const drained = samples >= turn.given;
    const due = drained || now - this.lastReport >= this.everyMs;
    if (due) this.lastReport = now;
    return { playedMs: this.playedMs(turnId), drained, due };
  }

  /** @param {string} turnId */
  playedMs(turnId) {
    return ((this.turns.get(turnId)?.played ?? 0) * 1000) / this.sampleRate;
  }
}
