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

test("pings, loading and session_ready always pass and do not move the count", () => {
  const filter = new SeqFilter();
  filter.accept({ type: "llm_token", seq: 5 });
  for (const type of ["ping", "pong", "loading", "session_ready"]) {
    assert.equal(filter.accept({ type, seq: 5 }), true);
    assert.equal(filter.accept({ type, seq: 9 }), true);
  }
  assert.equal(filter.last, 5);
  assert.equal(filter.accept({ type: "llm_token", seq: 6 }), true, "a replayed event after session_ready");
});

test("the outbox keeps order and the newest sound only", () => {
  const box = new Outbox(100);
  const frame = (name) => new TextEncoder().encode(name).buffer;
  const name = (parcel) => ("audio" in parcel ? new TextDecoder().decode(parcel.audio) : parcel.message.type);
  box.addAudio(frame("1"), 40);
  box.addMessage({ type: "commit" });
  box.addAudio(frame("2"), 40);
  box.addAudio(frame("3"), 40);
  box.addMessage({ type: "text", text: "x" });
  box.addAudio(frame("4"), 20);
  assert.deepEqual(box.take().map(name), ["commit", "2", "3", "text", "4"]);
  assert.deepEqual(box.take(), []);
  box.addAudio(frame("5"), 100);
  assert.deepEqual(box.take().map(name), ["5"], "taking made room again");
});

test("a minute of sound fits by default", () => {
  const box = new Outbox();
  for (let i = 0; i < 2500; i++) box.addAudio(new ArrayBuffer(1024), 32);
  const kept = box.take().length * 32;
  assert.ok(kept <= 60_000 && kept > 59_900);
});
