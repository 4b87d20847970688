/** Where the last turn's time went: one bar a stage, from the end of the person's speech. */

import { has, t } from "./i18n.js";

/** Stages on the way to the first sound; the others go on while it plays. */
const TO_FIRST_SOUND = ["endpoint", "stt_final", "llm_first_token", "first_segment", "tts_first_audio", "first_audio_sent"];

/** Where the stages that go on beside others begin. @type {Record<string, string>} */
const BEGINS_AT = { llm_done: "llm_first_token", reply_done: "first_audio_sent" };

/** @typedef {{ stage: string, ms: number, from: number, to: number, beyond: boolean }} Row
 *  `from` and `to` are 0–1 of the axis; `beyond`: it ends past the axis' end */

/**
 * Each bar begins where the one before it ended, so that its length is that stage's own share.
 * The axis ends with the first sound: what comes later would squeeze what one waits for.
 * @param {Record<string, number>} latency stage → ms since the end of speech; may be negative
 * @returns {{ rows: Row[], zero: number, firstSound: number | null }} `zero`: the end of speech on the axis
 */
export function layout(latency) {
  const stages = Object.entries(latency).filter(([, ms]) => Number.isFinite(ms));
  const isEarly = (/** @type {string} */ stage) => TO_FIRST_SOUND.includes(stage);
  const early = stages.filter(([stage]) => isEarly(stage));
  const scale = (early.length ? early : stages).map(([, ms]) => ms);
  const min = Math.min(0, ...scale);
  const max = Math.max(1, ...scale);
  const share = (/** @type {number} */ ms) => Math.max(0, Math.min(1, (ms - min) / (max - min)));
  const row = (/** @type {string} */ stage, /** @type {number} */ ms, /** @type {number} */ begin) => {
    const [from, to] = [Math.min(begin, ms), Math.max(begin, ms)];
    return { stage, ms, from: share(from), to: share(to), beyond: to > max };
  };
  let begin = 0;
  const rows = early
    .sort((a, b) => a[1] - b[1])
    .map(([stage, ms]) => {
      const made = row(stage, ms, begin);
      begin = Math.max(begin, ms); // what was ready before the end of speech cost no waiting
      return made;
    });
  for (const [stage, ms] of stages) {
    if (!isEarly(stage)) rows.push(row(stage, ms, latency[BEGINS_AT[stage] ?? ""] ?? 0));
  }
  const firstSound = latency.first_audio_sent ?? latency.tts_first_audio ?? null;
  return { rows, zero: share(0), firstSound };
}

/**
 * @param {HTMLElement} headline
 * @param {HTMLElement} list
 * @param {Record<string, number>} latency
 */
export function drawWaterfall(headline, list, latency) {
  const { rows, zero, firstSound } = layout(latency);
  headline.textContent = firstSound === null ? t("waterfall.noSound") : t("waterfall.firstSound", { ms: round(firstSound) });
  list.replaceChildren(
    ...rows.map((row) => {
      const item = document.createElement("li");
      item.dataset.stage = row.stage;
      const label = element("span", "stage", has(`stage.${row.stage}`) ? t(`stage.${row.stage}`) : row.stage);
      const track = element("span", "track");
      const bar = element("span", row.beyond ? "bar beyond" : "bar");
      const nought = element("span", "nought");
      bar.style.left = `min(${row.from * 100}%, 100% - ${row.beyond ? 12 : 3}px)`; // the shortest is still seen
      bar.style.width = `${(row.to - row.from) * 100}%`;
      nought.style.left = `${zero * 100}%`;
      track.append(bar);
      if (zero > 0) track.append(nought);
      item.append(label, track, element("span", "ms", `${round(row.ms)} ms`));
      return item;
    }),
  );
}

/** @param {number} ms */
function round(ms) {
  return String(Math.round(ms)).replace("-", "−");
}

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} [text]
 */
function element(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}
