import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import test from "node:test";
import { howFar, notReady } from "../loading.js";
import { ownsSpace } from "../talk-button.js";
import { layout } from "../waterfall.js";

const web = new URL("../", import.meta.url);
const html = readFileSync(new URL("index.html", web), "utf8");

const latency = {
  stt_final: 310, endpoint: 420, llm_first_token: 560, first_segment: 640, tts_first_audio: 800, first_audio_sent: 804,
  llm_done: 1900, reply_done: 5200,
};

test("the waterfall: each stage begins where the one before ended, up to the first sound", () => {
  const { rows, zero, firstSound } = layout(latency);
  assert.equal(firstSound, 804);
  assert.equal(zero, 0);
  assert.deepEqual(rows.map((row) => row.stage), Object.keys(latency));
  const early = rows.slice(0, 6);
  assert.equal(early[0].from, 0);
  for (let i = 1; i < early.length; i++) assert.equal(early[i].from, early[i - 1].to);
  assert.equal(early.at(-1).to, 1);
  assert.ok(Math.abs(early[1].to - early[1].from - 110 / 804) < 1e-9);
  assert.deepEqual(rows.slice(6).map((row) => [row.beyond, row.to]), [[true, 1], [true, 1]]);
  assert.ok(Math.abs(rows[6].from - 560 / 804) < 1e-9, "the text is written from its first word on");
});

test("the waterfall: what was ready before the end of speech lies left of zero and costs nothing", () => {
  const { rows, zero } = layout({ stt_final: -100, endpoint: 300 });
  assert.equal(zero, 0.25);
  assert.deepEqual(rows.map(({ from, to }) => [from, to]), [[0, 0.25], [0.25, 1]]);
});

test("the waterfall: little, nothing and nonsense", () => {
  assert.deepEqual(layout({}).rows, []);
  assert.equal(layout({}).firstSound, null);
  assert.deepEqual(layout({ llm_done: 10, odd: Number.NaN }).rows.map((row) => [row.stage, row.from, row.to]), [["llm_done", 0, 1]]);
  assert.equal(layout({ endpoint: 0, mystery: 50 }).rows[1].stage, "mystery");
});

test("loading: how far a model is", () => {
  const role = (state, progress = 0) => ({ role: "stt", model: "m", state, progress, message: "" });
  assert.equal(howFar(role("fetching", 0.426)), "downloading 43 %");
  assert.equal(howFar(role("loading")), "loading");
  assert.equal(notReady([role("ready"), role("failed")]), true);
  assert.equal(notReady([role("ready")]), false);
  assert.equal(notReady([]), false);
});

test("the space bar belongs to what is typed into or pressed", () => {
  for (const tagName of ["INPUT", "textarea", "SELECT", "BUTTON", "SUMMARY"]) assert.equal(ownsSpace({ tagName }), true);
  assert.equal(ownsSpace({ tagName: "BODY" }), false);
  assert.equal(ownsSpace({ tagName: "DIV", isContentEditable: true }), true);
});

test("the page works under a strict content security policy and asks nobody else for anything", () => {
  assert.doesNotMatch(html, /\son\w+=|style=|<style|javascript:/i);
  for (const [, attributes, body] of html.matchAll(/<script([^>]*)>([^<]*)/g)) {
    assert.match(attributes, /src="web\//);
    assert.equal(body.trim(), "");
  }
  for (const file of readdirSync(web).filter((name) => /\.(js|css|html)$/.test(name))) {
    const text = readFileSync(new URL(file, web), "utf8").replaceAll("http://www.w3.org/2000/svg", "");
    assert.doesNotMatch(text, /(https?:)?\/\/[a-z0-9-]+\.[a-z]/i, file);
    assert.doesNotMatch(text, /innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\("style"/, file);
  }
});

test("what the page names is there, once", () => {
  for (const [, path] of html.matchAll(/(?:src|href)="web\/([^"]+)"/g)) assert.ok(existsSync(new URL(path, web)), path);
  const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map((m) => m[1]);
  assert.equal(new Set(ids).size, ids.length);
  for (const [, name] of html.matchAll(/(?:aria-labelledby|aria-describedby|for)="([^"]+)"/g)) assert.ok(ids.includes(name), name);
  const app = readFileSync(new URL("app.js", web), "utf8");
  for (const [, id] of app.matchAll(/byId\("([^"]+)"/g)) assert.ok(ids.includes(id), id);
  for (const id of ["mic", "state", "text-input", "send", "stop", "waterfall", "level", "banner", "settings-open", "loading"]) {
    assert.ok(html.includes(`data-testid="${id}"`), id);
  }
});
