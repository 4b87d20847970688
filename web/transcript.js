/** The conversation on the page: two list items a turn, one for each side. */

import { t } from "./i18n.js";

/** @import { Call, Turn } from "./conversation.js" */

/** @typedef {{ item: HTMLLIElement, who: HTMLElement, words: HTMLElement, tag: HTMLElement }} Side */

export class Transcript {
  /** @type {Map<number, { user: Side, assistant: Side }>} */
  #sides = new Map();
  /** @type {Set<string>} */
  #speakers = new Set();

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} scroller follows the newest words while the person has not scrolled away from them
   */
  constructor(list, scroller) {
    this.list = list;
    this.scroller = scroller;
  }

  /** @param {Turn[]} turns */
  showAll(turns) {
    for (const turn of turns) this.show(turn, turns);
  }

  /**
   * @param {Turn} turn
   * @param {Turn[]} turns all of them: with a second speaker, the first gets a name too
   */
  show(turn, turns) {
    if (turn.speaker && !this.#speakers.has(turn.speaker)) {
      this.#speakers.add(turn.speaker);
      if (this.#speakers.size === 2) this.showAll(turns);
    }
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const following = scrollHeight - scrollTop - clientHeight < 80;
    const sides = this.#sides.get(turn.key) ?? this.#create(turn);
    if (turn.id) sides.user.item.dataset.turnId = sides.assistant.item.dataset.turnId = turn.id;
    this.#showUser(sides.user, turn);
    this.#showAssistant(sides.assistant, turn);
    if (following) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** @param {Turn} turn */
  #create(turn) {
    const sides = { user: side("user"), assistant: side("assistant") };
    this.#sides.set(turn.key, sides);
    this.list.append(sides.user.item, sides.assistant.item);
    return sides;
  }

  /**
   * @param {Side} side
   * @param {Turn} turn
   */
  #showUser({ item, who, words, tag }, turn) {
    item.hidden = turn.dropped || (turn.final ?? turn.committed + turn.soft) === "";
    item.classList.toggle("unsure", turn.unsure);
    who.textContent = this.#speakerName(turn);
    tag.textContent = turn.unsure ? t("unsure") : "";
    const live = turn.final === null;
    item.setAttribute("aria-busy", String(live)); // read out once it no longer changes
    words.classList.toggle("live", live && !turn.done);
    if (live) {
      part(words, "transcript-committed", "committed", turn.committed);
      part(words, "transcript-soft", "soft", turn.soft);
    } else {
      part(words, "transcript-committed", "", null);
      part(words, "transcript-soft", "", null);
      part(words, "transcript-final", "final", turn.final);
    }
  }

  /**
   * @param {Side} side
   * @param {Turn} turn
   */
  #showAssistant({ item, who, words, tag }, turn) {
    item.hidden = turn.reply === "" && turn.unheard === "" && turn.calls.length === 0;
    showCalls(item, words, turn.calls);
    item.setAttribute("aria-busy", String(!turn.done));
    who.textContent = t("assistant");
    tag.textContent = turn.interrupted ? t("stopped") : "";
    part(words, "reply", "reply", turn.reply);
    part(words, "unheard", "unheard", turn.unheard || null);
  }

  /** @param {Turn} turn */
  #speakerName(turn) {
    const number = /^SPEAKER_(\d+)$/.exec(turn.speaker);
    if (turn.typed || !turn.speaker || (number && this.#speakers.size < 2)) return t("you");
    return number ? t("speaker", { n: Number(number[1]) + 1 }) : turn.speaker;
  }
}

/**
 * @param {"user" | "assistant"} role
 * @returns {Side}
 */
function side(role) {
  const item = document.createElement("li");
  item.className = "turn";
  item.dataset.role = role;
  const [who, words, tag] = ["span", "p", "span"].map((name) => document.createElement(name));
  who.className = "who";
  words.className = "words";
  tag.className = "tag";
  item.append(who, words, tag);
  return { item, who, words, tag };
}

/**
 * The functions that were called, folded, above the reply's words.
 * @param {HTMLElement} item
 * @param {HTMLElement} words
 * @param {Call[]} calls
 */
function showCalls(item, words, calls) {
  const shown = [...item.querySelectorAll("details")];
  calls.forEach((call, at) => {
    let details = shown[at];
    if (!details) {
      details = document.createElement("details");
      details.className = "call";
      details.setAttribute("data-testid", "tool-call");
      details.append(document.createElement("summary"), document.createElement("pre"), document.createElement("pre"));
      item.insertBefore(details, words);
    }
    const [summary, given, result] = /** @type {HTMLElement[]} */ ([...details.children]);
    details.dataset.state = call.state;
    const state = call.state === "done" ? t("call.done", { ms: Math.round(call.ms) }) : t(`call.${call.state}`);
    say(summary, `${call.name} · ${state}`);
    say(given, call.arguments);
    say(result, call.result);
    result.hidden = call.result === "";
  });
}

/**
 * @param {HTMLElement} node
 * @param {string} text
 */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Sets one named stretch of words, touching the page only where something changed; null removes it.
 * @param {HTMLElement} words
 * @param {string} name
 * @param {string} className
 * @param {string | null} text
 */
function part(words, name, className, text) {
  let node = words.querySelector(`[data-testid="${name}"]`);
  if (text === null) {
    node?.remove();
    return;
  }
  if (!node) {
    node = document.createElement("span");
    node.setAttribute("data-testid", name);
    node.className = className;
    words.append(node);
  }
  const shown = node.textContent ?? "";
  if (shown === text) return;
  if (text.startsWith(shown)) node.append(text.slice(shown.length)); // streams without repainting the rest
  else node.textContent = text;
}
