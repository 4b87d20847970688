/** The person's choices: read from storage with suspicion, and turned into what the server understands. */

/** @import { Preferences, SessionSettings } from "./types.d.ts" */

const KEY = "colloquy.preferences";

/** @type {Preferences} */
export const defaults = {
  uiLanguage: "auto",
  language: "",
  voice: "",
  speed: 1,
  pushToTalk: false,
  endMs: 500,
  instructions: "",
  vocabulary: [],
  apiKey: "",
};

/** Spoken languages on offer, beside the server's default and "auto". */
export const spokenLanguages = ["en", "zh", "de", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "uk"];

/**
 * Whatever was stored or typed, within the limits of the protocol.
 * @param {unknown} raw
 * @returns {Preferences}
 */
export function normalise(raw) {
  const given = /** @type {Record<string, unknown>} */ (typeof raw === "object" && raw !== null ? raw : {});
  /** @param {string} key @param {number} longest @param {string} other */
  const text = (key, longest, other) => {
    const value = given[key];
    return typeof value === "string" ? value.trim().slice(0, longest) : other;
  };
  /** @param {string} key @param {number} low @param {number} high @param {number} other */
  const number = (key, low, high, other) => {
    const value = given[key];
    return typeof value === "number" && Number.isFinite(value) ? Math.max(low, Math.min(high, value)) : other;
  };
  const words = Array.isArray(given.vocabulary) ? given.vocabulary.filter((word) => typeof word === "string") : [];
  const language = text("language", 4, defaults.language);
  const ui = text("uiLanguage", 4, "auto");
  return {
    uiLanguage: ui === "en" || ui === "zh" ? ui : "auto",
    language: /^([a-z]{2,3}|auto)$/.test(language) ? language : "",
    voice: text("voice", 64, defaults.voice),
    speed: number("speed", 0.5, 2, defaults.speed),
    pushToTalk: given.pushToTalk === true,
    endMs: Math.round(number("endMs", 100, 3000, defaults.endMs)),
    instructions: text("instructions", 8000, defaults.instructions),
    vocabulary: parseVocabulary(words.join("\n")),
    apiKey: text("apiKey", 4096, defaults.apiKey),
  };
}

/**
 * One word or name a line, or between commas.
 * @param {string} text
 */
export function parseVocabulary(text) {
  const words = text.split(/[\n,，、]/).map((word) => word.trim().slice(0, 64));
  return [...new Set(words.filter(Boolean))].slice(0, 100);
}

/**
 * @param {Preferences} preferences
 * @returns {SessionSettings}
 */
export function toSessionSettings(preferences) {
  return {
    language: preferences.language || null,
    vocabulary: preferences.vocabulary,
    instructions: preferences.instructions || null,
    voice: preferences.voice || null,
    speed: preferences.speed,
    audio_in: { codec: "pcm16", sample_rate: 16000 },
    audio_out: { codec: "pcm16", sample_rate: 24000, binary: true },
    // The browser takes our voice out of what the microphone hears (see capture.js).
    turn_detection: { mode: preferences.pushToTalk ? "manual" : "auto", end_ms: preferences.endMs, echo: false },
  };
}

/** @returns {Preferences} */
export function load() {
  try {
    return normalise(JSON.parse(localStorage.getItem(KEY) ?? "null"));
  } catch {
    return { ...defaults }; // no storage (private window), or spoilt contents
  }
}

/** @param {Preferences} preferences */
export function save(preferences) {
  try {
    localStorage.setItem(KEY, JSON.stringify(preferences));
  } catch {
    // Without storage they hold until the page is closed.
  }
}
