import assert from "node:assert/strict";
import test from "node:test";
import { canStop, initialState, phaseOf, reduce } from "../state.js";

const server = (type, turn_id, more = {}) => ({ type: "server", message: { type, turn_id, ...more } });
const open = [{ type: "line", status: "open" }];
const run = (...events) => events.flat().reduce(reduce, initialState);
const phases = (...events) => {
  let state = initialState;
  return events.flat().map((event) => phaseOf((state = reduce(state, event))));
};

test("connecting, loading, connected", () => {
  assert.equal(phaseOf(initialState), "connecting");
  assert.deepEqual(
    phases({ type: "loading", busy: true }, { type: "line", status: "open" }, { type: "mic", on: true }, { type: "mic", on: false }),
    ["loading", "muted", "listening", "muted"],
  );
  assert.equal(phaseOf(run({ type: "line", status: "refused" })), "offline");
});

test("a spoken turn", () => {
  const got = phases(
    open,
    { type: "mic", on: true },
    server("speech_started", "t1"),
    server("transcription_partial", "t1"),
    server("speech_stopped", "t1"),
    server("transcription_final", "t1"),
    server("llm_token", "t1"),
    server("audio_chunk", "t1"),
    { type: "playing", turnId: "t1" },
    server("llm_token", "t1"),
    server("turn_complete", "t1"),
    { type: "drained", turnId: "t1" },
  );
  assert.deepEqual(got, [
    "muted", "listening", "listening", "listening", "thinking", "thinking", "thinking", "thinking",
    "speaking", "speaking", "speaking", "listening",
  ]);
});

test("a pause in the sound is not the end of the reply", () => {
  const got = phases(open, { type: "playing", turnId: "t1" }, { type: "drained", turnId: "t1" }, { type: "playing", turnId: "t1" },
    { type: "drained", turnId: "t1" }, server("turn_complete", "t1"));
  assert.deepEqual(got, ["muted", "speaking", "speaking", "speaking", "speaking", "muted"]);
});

test("a held reply listens, and speaks again when it was nothing", () => {
  const held = [...open, { type: "playing", turnId: "t1" }, server("reply_paused", "t1")];
  assert.deepEqual(
    phases(held, { type: "playing", turnId: "t1" }, server("reply_resumed", "t1")).slice(1),
    ["speaking", "listening", "listening", "speaking"],
  );
  assert.deepEqual(phases(held, server("interrupted", "t1"), { type: "playing", turnId: "t2" }).slice(2), ["listening", "muted", "speaking"]);
  assert.equal(canStop(run(held)), true);
});

test("waiting for a place", () => {
  assert.deepEqual(
    phases(server("queued", undefined, { position: 3 }), server("loading"), server("queued", undefined, { position: 1 }), open),
    ["queued", "connecting", "queued", "muted"],
  );
  assert.equal(phaseOf(run(server("queued", undefined, { position: 1 }), { type: "line", status: "reconnecting" })), "reconnecting");
});

test("speech over a reply: the old turn's end does not end the new one", () => {
  const got = phases(
    open,
    { type: "mic", on: true },
    { type: "playing", turnId: "t1" },
    server("interrupted", "t1"),
    server("turn_complete", "t1"),
    server("speech_started", "t2"),
    server("speech_stopped", "t2"),
    { type: "drained", turnId: "t1" },
  );
  assert.deepEqual(got.slice(2), ["speaking", "listening", "listening", "listening", "thinking", "thinking"]);
});

test("a typed turn over a reply thinks until its own answer", () => {
  const state = run(open, server("audio_chunk", "t1"), { type: "playing", turnId: "t1" }, { type: "asked" });
  assert.equal(phaseOf(state), "thinking");
  const after = [server("interrupted", "t1"), server("turn_complete", "t1")].reduce(reduce, state);
  assert.equal(phaseOf(after), "thinking", "that was the turn before");
  assert.equal(phaseOf(reduce(reduce(after, server("llm_token", "t2")), server("turn_complete", "t2"))), "muted");
  assert.equal(phaseOf(reduce(after, server("turn_complete", "t2"))), "muted", "an answer without a word");
  assert.equal(phaseOf(reduce(after, server("error", null))), "muted", "a refusal of the text");
});

test("push-to-talk: the end of holding is thinking, and a drop ends that", () => {
  const got = phases(open, { type: "mic", on: true }, server("speech_started", "t1"), { type: "mic", on: false }, { type: "asked" },
    server("speech_stopped", "t1"), server("turn_dropped", "t1"));
  assert.deepEqual(got, ["muted", "listening", "listening", "listening", "thinking", "thinking", "muted"]);
});

test("stopping, and what can be stopped", () => {
  assert.equal(canStop(run(open, { type: "mic", on: true }, server("speech_started", "t1"))), false);
  assert.equal(canStop(run(open, { type: "asked" })), true);
  const speaking = run(open, { type: "playing", turnId: "t1" });
  assert.equal(canStop(speaking), true);
  const stopped = reduce(speaking, { type: "stopped" });
  assert.equal(canStop(stopped), false);
  assert.equal(phaseOf(stopped), "muted");
});

test("a failed turn is over", () => {
  assert.equal(phaseOf(run(open, server("speech_stopped", "t1"), server("error", "t1"))), "muted");
});

test("a lost line shows over everything else, and a new session forgets the turn", () => {
  const state = run(open, { type: "playing", turnId: "t1" }, { type: "line", status: "reconnecting" });
  assert.equal(phaseOf(state), "reconnecting");
  assert.equal(phaseOf(reduce(reduce(state, { type: "replaced" }), open[0])), "muted");
});
