/** What a dropped connection needs: when to try again, which events are new, and what to send afterwards. */

/** @import { ClientMessage, ServerMessage } from "./types.d.ts" */

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 8000;

/**
 * Exponential back-off with jitter: half of the delay is fixed, half is chance, so that many pages
 * do not come back at the same moment.
 * @param {number} attempt 0 for the first
 * @param {() => number} random in [0, 1)
 * @returns {number} ms
 */
export function retryDelay(attempt, random = Math.random) {
  const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(attempt, 10));
  return delay / 2 + (delay / 2) * random();
}

/** Messages outside the numbering: they are not replayed, and carry the number of another event. */
const UNNUMBERED = new Set(["loading", "ping", "pong"]);

/** Lets each numbered event of a session pass once, even when a resume sends it again. */
export class SeqFilter {
  last = 0;

  /** @param {ServerMessage} message */
  accept(message) {
    // `session_ready` comes with every connect and may overtake the replayed events: it is welcome
    // at any time, and must not make those look old.
    if (UNNUMBERED.has(message.type) || message.type === "session_ready") return true;
    if (message.seq <= this.last) return false;
    this.last = message.seq;
    return true;
  }
}

/** @typedef {{ audio: ArrayBuffer, ms: number } | { message: ClientMessage }} Parcel */

/** Keeps, in order, what could not be sent. Of sound only the newest `limitMs` are kept. */
export class Outbox {
  /** @param {number} limitMs */
  constructor(limitMs = 60_000) {
    this.limitMs = limitMs;
    this.audioMs = 0;
    /** @type {Parcel[]} */
    this.parcels = [];
  }

  /**
   * @param {ArrayBuffer} audio
   * @param {number} ms
   */
  addAudio(audio, ms) {
    this.parcels.push({ audio, ms });
    this.audioMs += ms;
    while (this.audioMs > this.limitMs) {
      const oldest = this.parcels.findIndex((parcel) => "audio" in parcel);
      const [parcel] = this.parcels.splice(oldest, 1);
      if ("audio" in parcel) this.audioMs -= parcel.ms;
    }
  }

  /** @param {ClientMessage} message */
  addMessage(message) {
    this.parcels.push({ message });
  }

  /** Empties the box. */
  take() {
    const parcels = this.parcels;
    this.parcels = [];
    this.audioMs = 0;
    return parcels;
  }
}
