/** The turns as the person sees them, built from the server's events. */

/** @import { ServerMessage } from "./types.d.ts" */

/**
 * A function that the assistant called.
 * @typedef {object} Call
 * @property {string} id
 * @property {string} name
 * @property {string} arguments JSON text
 * @property {"running" | "done" | "failed" | "stopped"} state
 * @property {string} result
 * @property {number} ms
 */

/**
 * @typedef {object} Turn
 * @property {number} key stable for the page, from 1
 * @property {string | null} id the server's; a typed turn gets it with the first answer
 * @property {boolean} typed
 * @property {string} committed the firm beginning of what is being said
 * @property {string} soft the rest, which may still change
 * @property {string | null} final
 * @property {string} speaker "" if not known
 * @property {boolean} unsure
 * @property {string} reply as far as it was heard, if it was stopped
 * @property {string} unheard what was written but not heard
 * @property {Call[]} calls
 * @property {boolean} interrupted
 * @property {boolean} done
 * @property {boolean} dropped held no words: not shown
 */

export class Conversation {
  /** @type {Turn[]} */
  turns = [];

  /**
   * A typed turn, shown before the server has seen it.
   * @param {string} text
   */
  say(text) {
    const turn = this.#add(null);
    turn.typed = true;
    turn.final = text;
    return turn;
  }

  /**
   * The session is gone: what was open in it will not be answered.
   * @param {number} unsent how many of the newest typed turns it has never seen
   * @returns {Turn[]} those that changed
   */
  closeAll(unsent) {
    const open = this.turns.filter((turn) => !turn.done);
    const waiting = open.filter((turn) => turn.typed && turn.id === null);
    const kept = new Set(waiting.slice(Math.max(0, waiting.length - unsent)));
    const closed = open.filter((turn) => !kept.has(turn));
    for (const turn of closed) {
      turn.done = true;
      stopCalls(turn);
    }
    return closed;
  }

  /**
   * @param {ServerMessage} message
   * @returns {Turn | null} the turn that changed
   */
  apply(message) {
    switch (message.type) {
      case "transcription_partial": {
        const turn = this.#find(message.turn_id) ?? this.#add(message.turn_id);
        if (turn.final !== null) return null;
        turn.committed = message.committed;
        turn.soft = message.text.slice(message.committed.length);
        return turn;
      }
      case "transcription_final": {
        const known = this.#find(message.turn_id) ?? this.#claim(message.turn_id, message.text);
        const turn = known ?? this.#add(message.turn_id);
        turn.final = message.text;
        turn.committed = turn.soft = "";
        turn.speaker = message.speaker;
        turn.unsure = message.low_confidence;
        turn.dropped = false;
        return turn;
      }
      case "llm_token": {
        const turn = this.#answered(message.turn_id);
        if (turn.interrupted) return null;
        turn.reply += message.token;
        return turn;
      }
      case "tool_call": {
        const turn = this.#answered(message.turn_id);
        if (turn.calls.some((call) => call.id === message.call_id)) return null;
        const { name, arguments: given } = message;
        turn.calls.push({ id: message.call_id, name, arguments: given, state: "running", result: "", ms: 0 });
        return turn;
      }
      case "tool_result": {
        const turn = this.#find(message.turn_id);
        const call = turn?.calls.find((one) => one.id === message.call_id);
        if (!turn || !call) return null;
        call.state = message.ok ? "done" : "failed";
        call.result = message.text;
        call.ms = message.ms;
        return turn;
      }
      case "interrupted": {
        const turn = this.#find(message.turn_id);
        if (!turn) return null;
        stopCalls(turn);
        turn.interrupted = true;
        keepHeard(turn, message.heard_text);
        return turn;
      }
      case "turn_dropped": {
        const turn = this.#find(message.turn_id);
        if (!turn) return null;
        turn.done = true;
        turn.dropped = !turn.typed && turn.reply === "";
        return turn;
      }
      case "turn_complete": {
        const turn = this.#answered(message.turn_id, message.transcript);
        turn.done = true;
        stopCalls(turn);
        turn.final ??= message.transcript;
        turn.committed = turn.soft = "";
        if (message.interrupted) {
          if (!turn.interrupted) keepHeard(turn, message.reply);
          turn.interrupted = true;
        } else if (message.reply) {
          turn.reply = message.reply;
        }
        return turn;
      }
      case "error": {
        const turn = message.turn_id ? this.#find(message.turn_id) : null;
        if (turn) turn.done = true;
        return turn ?? null;
      }
      default:
        return null;
    }
  }

  /** @param {string} id */
  #find(id) {
    return this.turns.findLast((turn) => turn.id === id);
  }

  /**
   * The turn that is being answered: a known one, or the oldest typed one that has no id yet.
   * @param {string} id
   * @param {string} [text]
   */
  #answered(id, text) {
    return this.#find(id) ?? this.#claim(id, text) ?? this.#claim(id) ?? this.#add(id);
  }

  /**
   * @param {string} id
   * @param {string} [text]
   */
  #claim(id, text) {
    const turn = this.turns.find(
      (one) => one.typed && one.id === null && !one.done && (text === undefined || one.final === text.trim()),
    );
    if (turn) turn.id = id;
    return turn;
  }

  /** @param {string | null} id */
  #add(id) {
    /** @type {Turn} */
    const turn = {
      key: (this.turns.at(-1)?.key ?? 0) + 1,
      id,
      typed: false,
      committed: "",
      soft: "",
      final: null,
      speaker: "",
      unsure: false,
      reply: "",
      unheard: "",
      calls: [],
      interrupted: false,
      done: false,
      dropped: false,
    };
    this.turns.push(turn);
    return turn;
  }
}

/**
 * What still runs will give nothing any more.
 * @param {Turn} turn
 */
function stopCalls(turn) {
  for (const call of turn.calls) if (call.state === "running") call.state = "stopped";
}

/**
 * Parts what was written where hearing ended. The server joins the spoken pieces anew, so spaces do
 * not count; where the words differ, what it says was heard is all that is kept.
 * @param {Turn} turn
 * @param {string} heard
 */
function keepHeard(turn, heard) {
  const end = prefixLength(turn.reply, heard);
  turn.unheard = end === null ? "" : turn.reply.slice(end);
  turn.reply = end === null ? heard : turn.reply.slice(0, end);
}

/**
 * How many characters of `text` say what `beginning` says, not counting space; null if it begins otherwise.
 * @param {string} text
 * @param {string} beginning
 */
export function prefixLength(text, beginning) {
  let at = 0;
  for (const character of beginning.replace(/\s/g, "")) {
    while (at < text.length && /\s/.test(text[at])) at++;
    if (!text.startsWith(character, at)) return null;
    at += character.length;
  }
  return at;
}
