/** What the state chip says: a small machine over what the line, the microphone, the server and the player report. */

/** @import { Status } from "./connection.js" */
/** @import { ServerMessage } from "./types.d.ts" */

/** @typedef {"connecting" | "loading" | "queued" | "reconnecting" | "offline" | "muted" | "listening" | "thinking" | "speaking"} Phase */

/**
 * @typedef {object} State
 * @property {Status} line
 * @property {boolean} loading models are still being loaded
 * @property {number} queued the session's place among those that wait for one; 0: it has one
 * @property {boolean} mic
 * @property {string | null} hearing the turn that is being spoken by the person
 * @property {Waiting | null} waiting for the reply to be heard
 * @property {string | null} speaking the turn whose reply is being played
 * @property {string | null} paused the turn whose reply is held, because somebody may be speaking
 * @property {boolean} drained nothing of it is left to play at the moment
 * @property {string | null} turn the newest turn seen
 * @property {string | null} complete the last turn that the server has closed
 */

/** A typed turn has no id until the server gives it one; until then, anything but `after` may be it.
 *  @typedef {{ turnId: string | null, after: string | null }} Waiting */

/**
 * @typedef {{ type: "line", status: Status }
 *   | { type: "loading", busy: boolean }
 *   | { type: "mic", on: boolean }
 *   | { type: "asked" }
 *   | { type: "stopped" }
 *   | { type: "playing", turnId: string }
 *   | { type: "drained", turnId: string }
 *   | { type: "replaced" }
 *   | { type: "server", message: ServerMessage }} Event
 */

/** @type {State} */
export const initialState = {
  line: "connecting",
  loading: false,
  queued: 0,
  mic: false,
  hearing: null,
  waiting: null,
  speaking: null,
  paused: null,
  drained: false,
  turn: null,
  complete: null,
};

/**
 * @param {State} state
 * @param {Event} event
 * @returns {State}
 */
export function reduce(state, event) {
  switch (event.type) {
    case "line":
      if (event.status === "open") return { ...state, line: "open", loading: false, queued: 0 };
      return { ...state, line: event.status, queued: 0 };
    case "loading":
      return { ...state, loading: event.busy };
    case "mic":
      return { ...state, mic: event.on };
    case "asked": // a typed turn or the end of a push-to-talk one
      return { ...state, speaking: null, waiting: { turnId: state.hearing, after: state.turn }, hearing: null };
    case "stopped":
      return { ...state, speaking: null, waiting: null };
    case "playing": // its sound is with the player
      return { ...state, speaking: event.turnId, drained: false, waiting: null };
    case "drained":
      // A pause between two pieces is not the end: that needs the server's word too.
      if (state.speaking !== event.turnId) return state;
      return state.complete === event.turnId ? { ...state, speaking: null } : { ...state, drained: true };
    case "replaced":
      return { ...state, hearing: null, waiting: null, speaking: null, paused: null, turn: null, complete: null };
    case "server":
      return hear(state, event.message);
  }
}

/**
 * @param {State} state
 * @param {ServerMessage} message
 * @returns {State}
 */
function hear(state, message) {
  const id = "turn_id" in message ? (message.turn_id ?? null) : null;
  const now = id === null ? state : { ...state, turn: id };
  switch (message.type) {
    case "queued":
      return { ...state, queued: message.position };
    case "loading":
      return { ...state, queued: 0 };
    case "reply_paused":
      return { ...now, paused: id };
    case "reply_resumed":
      return { ...now, paused: null };
    case "speech_started":
      return { ...now, hearing: id };
    case "speech_stopped":
      return { ...now, hearing: null, waiting: { turnId: id, after: null } };
    case "transcription_final":
      return { ...now, hearing: null, waiting: { turnId: id, after: null } };
    case "llm_token":
    case "tool_call":
    case "tool_result":
    case "audio_chunk":
      return now.waiting && concerns(now.waiting, id) ? { ...now, waiting: { turnId: id, after: null } } : now;
    case "turn_dropped":
      return { ...close(now, id), hearing: now.hearing === id ? null : now.hearing };
    case "interrupted":
      return { ...close(now, id), paused: null };
    case "turn_complete":
      return { ...close(now, id, state.speaking === id && !state.drained), complete: id };
    case "error":
      return close(now, id, true);
    default:
      return state;
  }
}

/**
 * @param {State} state
 * @param {string | null} id
 * @param {boolean} stillSounding
 */
function close(state, id, stillSounding = false) {
  const waiting = state.waiting && !concerns(state.waiting, id) ? state.waiting : null;
  return { ...state, waiting, speaking: state.speaking === id && !stillSounding ? null : state.speaking };
}

/**
 * @param {Waiting} waiting
 * @param {string | null} id null: of no turn in particular
 */
function concerns(waiting, id) {
  return waiting.turnId === id || (waiting.turnId === null && waiting.after !== id);
}

/**
 * @param {State} state
 * @returns {Phase}
 */
export function phaseOf(state) {
  if (state.line === "refused") return "offline";
  if (state.line === "reconnecting") return "reconnecting";
  if (state.queued) return "queued";
  if (state.loading) return "loading";
  if (state.line === "connecting") return "connecting";
  if (state.speaking !== null) return state.paused === state.speaking ? "listening" : "speaking";
  if (state.hearing !== null) return "listening";
  if (state.waiting) return "thinking";
  return state.mic ? "listening" : "muted";
}

/** Whether there is a reply to stop. @param {State} state */
export function canStop(state) {
  return state.speaking !== null || state.waiting !== null;
}
