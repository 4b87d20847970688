import assert from "node:assert/strict";
import test from "node:test";
import { defaults, load, normalise, parseVocabulary, save, toSessionSettings } from "../settings.js";

test("anything at all is made into preferences within the protocol's limits", () => {
  for (const junk of [null, undefined, 7, "x", [], { speed: "fast", vocabulary: "a", language: "ENGLISH", pushToTalk: 1 }]) {
    assert.deepEqual(normalise(junk), defaults);
  }
  const got = normalise({ speed: 9, endMs: 1, language: "zh", vocabulary: [" Ada ", "", 3, "Ada"], uiLanguage: "zh", extra: 1, instructions: "x".repeat(9000) });
  assert.deepEqual([got.speed, got.endMs, got.language, got.vocabulary, got.uiLanguage], [2, 100, "zh", ["Ada"], "zh"]);
  assert.equal(got.instructions.length, 8000);
  assert.equal("extra" in got, false);
  assert.deepEqual(normalise(got), got);
});

test("vocabulary: one a line or between commas, at most 100 of 64 characters, once each", () => {
  assert.deepEqual(parseVocabulary("Ada Lovelace\n  Qwen, 知乎，Ada Lovelace、\n"), ["Ada Lovelace", "Qwen", "知乎"]);
  const many = parseVocabulary(Array.from({ length: 150 }, (_, i) => `${i}`.padStart(80, "w")).join("\n"));
  assert.ok(many.every((word) => word.length <= 64));
  assert.ok(parseVocabulary(Array.from({ length: 150 }, (_, i) => `w${i}`).join("\n")).length === 100);
});

test("what the server is told", () => {
  assert.deepEqual(toSessionSettings(defaults), {
    language: null,
    vocabulary: [],
    instructions: null,
    voice: null,
    speed: 1,
    audio_in: { codec: "pcm16", sample_rate: 16000 },
    audio_out: { codec: "pcm16", sample_rate: 24000, binary: true },
    turn_detection: { mode: "auto", end_ms: 500, echo: false },
  });
  const told = toSessionSettings({ ...defaults, pushToTalk: true, endMs: 900, voice: "joe", language: "auto" });
  assert.deepEqual([told.turn_detection, told.voice, told.language], [{ mode: "manual", end_ms: 900, echo: false }, "joe", "auto"]);
});

test("storage that is missing, spoilt or full is no obstacle", (t) => {
  t.after(() => delete globalThis.localStorage);
  assert.deepEqual(load(), defaults, "no storage");
  save(defaults);
  const kept = new Map();
  globalThis.localStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
  assert.deepEqual(load(), defaults);
  save({ ...defaults, speed: 1.5 });
  assert.equal(load().speed, 1.5);
  for (const key of kept.keys()) kept.set(key, "{");
  assert.deepEqual(load(), defaults);
});
