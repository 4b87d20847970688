import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import test from "node:test";
import { catalogue, has, pickLanguage, setLanguage, t } from "../i18n.js";

const web = new URL("../", import.meta.url);
const read = (name) => readFileSync(new URL(name, web), "utf8");
const placeholders = (words) => [...words.matchAll(/\{\w+\}/g)].map(String).sort();

test("English and Chinese have the same keys, none empty, with the same places to fill in", () => {
  assert.deepEqual(Object.keys(catalogue.zh).sort(), Object.keys(catalogue.en).sort());
  for (const [key, words] of Object.entries(catalogue.en)) {
    assert.ok(words.trim() && catalogue.zh[key].trim(), key);
    assert.deepEqual(placeholders(catalogue.zh[key]), placeholders(words), key);
  }
});

test("no Chinese text is left in English", () => {
  const same = Object.keys(catalogue.en).filter((key) => catalogue.en[key] === catalogue.zh[key]);
  assert.deepEqual(same.sort(), ["assistant", "title"]);
});

test("every key that the page or its modules name exists, and every key is named", () => {
  const named = new Set([...read("index.html").matchAll(/data-i18n(?:-label|-placeholder)?="([^"]+)"/g)].map((m) => m[1]));
  assert.ok(named.size > 30);
  const families = new Set();
  for (const file of readdirSync(web).filter((name) => name.endsWith(".js") && name !== "i18n.js")) {
    for (const [, key] of read(file).matchAll(/"([a-z]+(?:\.\w+)?)"/g)) if (has(key)) named.add(key);
    for (const [, key] of read(file).matchAll(/\bt\("([^"]+)"/g)) named.add(key);
    for (const [, family] of read(file).matchAll(/\bt\(`(\w+)\.\$\{/g)) families.add(family);
  }
  for (const key of named) assert.ok(has(key), `no words for ${key}`);
  for (const key of Object.keys(catalogue.en)) {
    assert.ok(named.has(key) || families.has(key.split(".")[0]), `${key} is not used`);
  }
});

test("states, model states and microphone troubles all have words", () => {
  const phases = read("state.js").match(/@typedef \{(.+)\} Phase/)[1];
  const troubles = read("capture.js").match(/@typedef \{(.+)\} MicTrouble/)[1];
  const models = read("types.d.ts").match(/type RoleState = (.+);/)[1];
  for (const [family, list] of [["state", phases], ["toast", troubles], ["model", models]]) {
    for (const [, name] of list.matchAll(/"(\w+)"/g)) assert.ok(has(`${family}.${name}`), `${family}.${name}`);
  }
});

test("the browser's first known language is taken, a wish goes before it", () => {
  assert.equal(pickLanguage("auto", ["de-DE", "zh-Hans-CN", "en"]), "zh");
  assert.equal(pickLanguage("auto", ["fr"]), "en");
  assert.equal(pickLanguage("auto", []), "en");
  assert.equal(pickLanguage("en", ["zh-CN"]), "en");
});

test("words are filled in, and a wrong key is an error", (t_) => {
  t_.after(() => setLanguage("en"));
  assert.equal(t("speaker", { n: 2 }), "Speaker 2");
  setLanguage("zh");
  assert.equal(t("speaker", { n: 2 }), "说话人 2");
  assert.throws(() => t("no.such"), /no\.such/);
});
