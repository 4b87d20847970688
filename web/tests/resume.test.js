import assert from "node:assert/strict";
import test from "node:test";
import { Outbox, SeqFilter, retryDelay } from "../resume.js";

test("the back-off doubles from half a second to eight, with jitter in its upper half", () => {
  const longest = [0, 1, 2, 3, 4, 5, 50].map((attempt) => retryDelay(attempt, () => 1));
  assert.deepEqual(longest, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
  const shortest = [0, 1, 4, 50].map((attempt) => retryDelay(attempt, () => 0));
  assert.deepEqual(shortest, [250, 500, 4000, 4000]);
  const some = new Set(Array.from({ length: 20 }, () => retryDelay(3)));
  assert.ok(some.size > 1);
});

test("each numbered event passes once, gaps and all", () => {
  const filter = new SeqFilter();
  const token = (seq) => filter.accept({ type: "llm_token", seq });
  assert.deepEqual([1, 2, 2, 1, 3, 7, 6, 8].map(token), [true, true, false, false, true, true, false, true]);
  assert.equal(filter.last, 8);
});

test("pings, loading, queued and session_ready always pass and do not move the count", () => {
  const filter = new SeqFilter();
  filter.accept({ type: "llm_token", seq: 5 });
  for (const type of ["ping", "pong", "loading", "queued", "session_ready"]) {
    assert.equal(filter.accept({ type, seq: 5 }), true);
    assert.equal(filter.accept({ type, seq: 9 }), true);
  }
  assert.equal(filter.last, 5);
  assert.equal(filter.accept({ type: "llm_token", seq: 6 }), true, "a replayed event after session_ready");
});

const frame = (name) => new TextEncoder().encode(name).buffer;
const name = (parcel) => ("audio" in parcel ? new TextDecoder().decode(parcel.audio) : parcel.message.type);
const sound = (text, ms = 32) => ({ audio: frame(text), ms });
const message = (type) => ({ message: { type } });

test("the outbox keeps order and the newest sound only", () => {
  const box = new Outbox(100);
  for (const parcel of [sound("1", 40), message("commit"), sound("2", 40), sound("3", 40), message("text"), sound("4", 20)]) {
    box.keep(parcel);
  }
  assert.deepEqual(box.again(0, 0).map(name), ["commit", "2", "3", "text", "4"]);
  assert.deepEqual(box.again(0, 0), []);
  box.keep(sound("5", 100));
  assert.deepEqual(box.again(0, 0).map(name), ["5"], "taking made room again");
});

test("a minute of sound fits by default", () => {
  const box = new Outbox();
  for (let i = 0; i < 2500; i++) box.keep({ audio: new ArrayBuffer(1024), ms: 32 });
  const kept = box.again(0, 0).length * 32;
  assert.ok(kept <= 60_000 && kept > 59_900);
});

test("what was sent but has not arrived is sent again, before what waits", () => {
  const box = new Outbox();
  for (const parcel of [sound("1"), message("text"), sound("2"), message("playback"), message("commit"), sound("3")]) box.note(parcel);
  box.keep(sound("4"));
  assert.deepEqual(box.again(32, 1).map(name), ["2", "commit", "3", "4"]);
  assert.deepEqual(box.again(32, 1), [], "the caller notes what it sends");
});

test("what is known to have arrived is forgotten", () => {
  const box = new Outbox();
  for (const parcel of [sound("1"), sound("2"), message("commit"), message("text"), sound("3")]) box.note(parcel);
  box.received(64.004, 1);
  box.received(32, 0); // an older figure
  assert.deepEqual(box.sent.all.map(name), ["text", "3"]);
  box.received(64, 2);
  assert.deepEqual(box.again(64, 2).map(name), ["3"]);
});

test("of what is on its way the newest minute is kept, and counting goes on", () => {
  const box = new Outbox(100);
  for (const text of "abcdef") box.note(sound(text, 40));
  assert.deepEqual(box.sent.all.map(name), ["e", "f"]);
  box.received(200, 0);
  assert.deepEqual(box.again(200, 0).map(name), ["f"]);
  box.note(sound("f", 40));
  box.note(sound("g", 40));
  box.note(sound("h", 40));
  assert.deepEqual(box.again(120, 0).map(name), ["g", "h"], "f is lost: the server's count goes on without it");
  box.note(sound("g", 40));
  assert.deepEqual(box.again(160, 0), []);
});
