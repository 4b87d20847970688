/** One session over however many sockets it takes: creates it, keeps it, resumes it, replaces it. */

import { ApiError, socketUrl } from "./api.js";
import { base64ToBytes } from "./resampler.js";
import { Outbox, SeqFilter, retryDelay } from "./resume.js";

/** @import { Api } from "./api.js" */
/** @import { Parcel } from "./resume.js" */
/** @import { AudioChunk, ClientMessage, ServerMessage, SessionCreated, SessionSettings } from "./types.d.ts" */

/** @typedef {"connecting" | "open" | "reconnecting" | "refused"} Status */

/**
 * @typedef {object} Handlers
 * @property {(message: ServerMessage) => void} onMessage every event once, in order; not pings
 * @property {(chunk: AudioChunk, sound: ArrayBuffer) => void} onAudio
 * @property {(status: Status, retryInMs: number | null) => void} onStatus
 * @property {(error: ApiError) => void} onRefused the session could not be created
 * @property {() => void} onReplaced the server had forgotten the session; this is a new one
 */

const SILENT_BEATS = 2.5; // heartbeats without a word from the server before the line counts as dead
const CONNECT_TIMEOUT_MS = 10_000;
/** The session is unknown (4404), or too much of it was missed (4408): only a new one helps. */
const SESSION_IS_GONE = [4404, 4408];

export class Connection {
  /** @type {Status} */
  status = "connecting";
  outbox = new Outbox();

  /** @type {SessionCreated | null} */
  #session = null;
  /** @type {WebSocket | null} */
  #socket = null;
  #seq = new SeqFilter();
  #wasReady = false;
  #attempt = 0;
  /** Sockets in a row that closed before they opened. */
  #stillborn = 0;
  /** Rises with every start and hang-up, so that late answers to an earlier one are recognised. */
  #generation = 0;
  #beatMs = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watchdog;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer;

  /**
   * @param {Api} api
   * @param {string} base the page's address
   * @param {() => SessionSettings} settings asked for whenever a session is created
   * @param {Handlers} handlers
   * @param {typeof WebSocket} [Socket]
   */
  constructor(api, base, settings, handlers, Socket = WebSocket) {
    this.api = api;
    this.base = base;
    this.settings = settings;
    this.handlers = handlers;
    this.Socket = Socket;
  }

  #forget() {
    this.#session = null;
    this.outbox.forget();
    this.#seq = new SeqFilter();
    this.#wasReady = false;
    this.#stillborn = 0;
  }

  /** Starts with a new session, dropping the old one if there was one. */
  restart() {
    this.#hangUp();
    this.#forget();
    this.#attempt = 0;
    this.#tell("connecting");
    this.#dial();
  }

  /** Tries at once instead of waiting out the back-off. */
  retryNow() {
    if (this.status === "open" || !this.#retryTimer) return;
    this.#clearTimers();
    this.#dial();
  }

  /** The network went away, or the socket has been silent for too long: do not wait for its close. */
  lost() {
    if (this.status === "refused" || this.#retryTimer) return;
    this.#hangUp();
    this.#retry();
  }

  /**
   * @param {ClientMessage} message
   * @param {{ keep: boolean }} [options] keep: send it after a reconnect if it cannot be sent now
   */
  send(message, { keep } = { keep: false }) {
    if (this.status === "open") this.#post({ message });
    else if (keep) this.outbox.keep({ message });
  }

  /**
   * @param {ArrayBuffer} audio one frame in the negotiated format
   * @param {number} ms its length
   */
  sendAudio(audio, ms) {
    if (this.status === "open") this.#post({ audio, ms });
    else this.outbox.keep({ audio, ms });
  }

  /** @param {Parcel} parcel */
  #post(parcel) {
    this.outbox.note(parcel);
    this.#socket?.send("audio" in parcel ? parcel.audio : JSON.stringify(parcel.message));
  }

  async #dial() {
    const generation = ++this.#generation;
    if (!this.#session) {
      try {
        const session = await this.api.createSession(this.settings());
        if (generation !== this.#generation) return;
        this.#session = session;
      } catch (error) {
        if (generation === this.#generation) this.#notCreated(error);
        return;
      }
    } else if (this.#stillborn >= 2) {
      const known = await this.api.knowsSession(this.#session.session_id);
      if (generation !== this.#generation) return;
      // Known, and yet refused time after time: then it is the token that has run out.
      if (known === false || (known && this.#stillborn >= 5)) return this.#replace();
    }
    this.#open(this.#session);
  }

  /** @param {unknown} error */
  #notCreated(error) {
    if (!(error instanceof ApiError)) return this.#retry();
    this.handlers.onRefused(error);
    if (error.retryAfterMs !== null) this.#retry(error.retryAfterMs);
    else this.#tell("refused");
  }

  #replace() {
    this.#hangUp();
    this.#forget();
    this.handlers.onReplaced();
    this.#retry();
  }

  /** @param {SessionCreated} session */
  #open(session) {
    const socket = new this.Socket(socketUrl(session, this.base));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let opened = false;
    this.#watchdog = setTimeout(() => this.lost(), CONNECT_TIMEOUT_MS);
    /** Whose sound the next `left` binary frames hold; null when that is a repetition.
     *  @type {{ chunk: AudioChunk | null, left: number }} */
    let awaited = { chunk: null, left: 0 };
    socket.onopen = () => {
      opened = true;
      this.#stillborn = 0;
      this.#watch();
      if (this.#wasReady) socket.send(JSON.stringify({ type: "resume", last_seq: this.#seq.last }));
    };
    socket.onmessage = ({ data }) => {
      this.#watch();
      if (typeof data !== "string") {
        if (awaited.left-- > 0 && awaited.chunk) this.handlers.onAudio(awaited.chunk, data);
        return;
      }
      /** @type {ServerMessage} */
      const message = JSON.parse(data);
      const fresh = this.#seq.accept(message);
      if (message.type === "audio_chunk" && message.data === null) {
        awaited = { chunk: fresh ? message : null, left: message.frames };
      }
      if (fresh) this.#receive(message);
    };
    socket.onclose = ({ code }) => {
      if (!opened) this.#stillborn++;
      if (SESSION_IS_GONE.includes(code)) this.#replace();
      else this.lost();
    };
  }

  /** @param {ServerMessage} message */
  #receive(message) {
    if (message.type === "ping") {
      this.outbox.received(message.received_ms, message.received_messages);
      this.#socket?.send(JSON.stringify({ type: "pong" }));
      return;
    }
    if (message.type === "session_ready") {
      this.#wasReady = true;
      this.#attempt = 0;
      this.#beatMs = message.heartbeat_s * 1000;
      this.#watch();
      this.#tell("open");
      for (const parcel of this.outbox.again(message.received_ms, message.received_messages)) this.#post(parcel);
    }
    this.handlers.onMessage(message);
    if (message.type === "audio_chunk" && message.data !== null) {
      this.handlers.onAudio(message, base64ToBytes(message.data));
    }
  }

  #watch() {
    clearTimeout(this.#watchdog);
    if (this.#beatMs) this.#watchdog = setTimeout(() => this.lost(), this.#beatMs * SILENT_BEATS);
  }

  /** @param {number} [atLeastMs] */
  #retry(atLeastMs = 0) {
    const delay = Math.max(atLeastMs, retryDelay(this.#attempt++));
    this.#tell(this.#wasReady ? "reconnecting" : "connecting", delay);
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined;
      this.#dial();
    }, delay);
  }

  #hangUp() {
    this.#generation++;
    this.#clearTimers();
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #clearTimers() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
  }

  /**
   * @param {Status} status
   * @param {number | null} [retryInMs]
   */
  #tell(status, retryInMs = null) {
    this.status = status;
    this.handlers.onStatus(status, retryInMs);
  }
}
