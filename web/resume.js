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
const UNNUMBERED = new Set(["loading", "queued", "ping", "pong"]);

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

/** Messages that the server does not count, and that are not worth sending again. */
const UNCOUNTED = new Set(["ping", "pong", "playback", "resume"]);
const HALF_SAMPLE_MS = 0.01;

/** Parcels in order; of sound only the newest `limitMs` are kept. */
class Parcels {
  /** @type {Parcel[]} */
  all = [];
  ms = 0;

  /** @param {number} limitMs */
  constructor(limitMs) {
    this.limitMs = limitMs;
  }

  /**
   * @param {Parcel[]} parcels
   * @returns {number} ms of sound that had to go
   */
  add(...parcels) {
    this.all.push(...parcels);
    for (const parcel of parcels) this.ms += msOf(parcel);
    let gone = 0;
    while (this.ms > this.limitMs) {
      const [oldest] = this.all.splice(this.all.findIndex((parcel) => "audio" in parcel), 1);
      gone += msOf(oldest);
      this.ms -= msOf(oldest);
    }
    return gone;
  }

  shift() {
    const parcel = this.all.shift();
    if (parcel) this.ms -= msOf(parcel);
  }

  take() {
    const all = this.all;
    this.all = [];
    this.ms = 0;
    return all;
  }
}

/** @param {Parcel} parcel */
const msOf = (parcel) => ("audio" in parcel ? parcel.ms : 0);

/** Keeps, in order, what could not be sent, and what was sent but may not have arrived. */
export class Outbox {
  /** What the server has, or is taken to have, of all before `sent`. */
  done = { ms: 0, messages: 0 };

  /** @param {number} limitMs of sound, in each half */
  constructor(limitMs = 60_000) {
    this.waiting = new Parcels(limitMs);
    this.sent = new Parcels(limitMs);
  }

  /** What was not sent yet. */
  get parcels() {
    return this.waiting.all;
  }

  /** @param {Parcel} parcel to be sent later */
  keep(parcel) {
    this.waiting.add(parcel);
  }

  /** @param {Parcel} parcel sent just now */
  note(parcel) {
    if ("message" in parcel && UNCOUNTED.has(parcel.message.type)) return;
    this.done.ms += this.sent.add(parcel);
  }

  /**
   * So much has arrived in all.
   * @param {number} ms
   * @param {number} messages
   */
  received(ms, messages) {
    for (let head = this.sent.all[0]; head; head = this.sent.all[0]) {
      if ("audio" in head) {
        if (this.done.ms + head.ms > ms + HALF_SAMPLE_MS) return;
        this.done.ms += head.ms;
      } else {
        if (this.done.messages >= messages) return;
        this.done.messages++;
      }
      this.sent.shift();
    }
  }

  /**
   * The line is back, and so much had arrived. Empties the box.
   * @param {number} ms
   * @param {number} messages
   * @returns {Parcel[]} what is to be sent now: first what was lost on the way
   */
  again(ms, messages) {
    this.received(ms, messages);
    this.done = { ms, messages };
    return [...this.sent.take(), ...this.waiting.take()];
  }

  /** The session is gone, and with it what was sent to it. */
  forget() {
    this.sent.take();
    this.done = { ms: 0, messages: 0 };
  }
}
