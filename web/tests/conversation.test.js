import assert from "node:assert/strict";
import test from "node:test";
import { Conversation, prefixLength } from "../conversation.js";

function converse(...messages) {
  const conversation = new Conversation();
  for (const message of messages) conversation.apply(message);
  return conversation;
}
const partial = (turn_id, text, committed) => ({ type: "transcription_partial", turn_id, text, committed });
const final = (turn_id, text, more = {}) => ({ type: "transcription_final", turn_id, text, speaker: "SPEAKER_00", low_confidence: false, ...more });
const token = (turn_id, text) => ({ type: "llm_token", turn_id, token: text });
const complete = (turn_id, transcript, reply, interrupted = false) => ({ type: "turn_complete", turn_id, transcript, reply, interrupted, latency: {} });

test("words are firm and soft while they are said, then final", () => {
  const conversation = converse(partial("t1", "turn on the light", "turn on"));
  const [turn] = conversation.turns;
  assert.deepEqual([turn.committed, turn.soft, turn.final], ["turn on", " the light", null]);
  conversation.apply(final("t1", "Turn on the lights.", { low_confidence: true, speaker: "SPEAKER_01" }));
  assert.deepEqual([turn.committed, turn.soft, turn.final], ["", "", "Turn on the lights."]);
  assert.deepEqual([turn.unsure, turn.speaker], [true, "SPEAKER_01"]);
  assert.equal(conversation.apply(partial("t1", "late", "late")), null);
  assert.equal(conversation.turns.length, 1);
});

test("a reply grows by tokens and is closed by the whole", () => {
  const conversation = converse(final("t1", "Hi."), token("t1", "Hel"), token("t1", "lo"));
  assert.equal(conversation.turns[0].reply, "Hello");
  assert.equal(conversation.turns[0].done, false);
  conversation.apply(complete("t1", "Hi.", "Hello."));
  assert.deepEqual([conversation.turns[0].reply, conversation.turns[0].done], ["Hello.", true]);
});

test("typed turns get their ids in order from the answers", () => {
  const conversation = new Conversation();
  const [one, two] = [conversation.say("one"), conversation.say("two")];
  conversation.apply(token("a", "First"));
  conversation.apply(complete("a", "one", "First"));
  conversation.apply(token("b", "Second"));
  assert.deepEqual([one.id, one.reply, two.id, two.reply], ["a", "First", "b", "Second"]);
  assert.equal(conversation.turns.length, 2);
});

test("a turn that ends without a word is matched by its text", () => {
  const conversation = new Conversation();
  const [one, two] = [conversation.say("one"), conversation.say("two")];
  conversation.apply(complete("b", "two", ""));
  assert.deepEqual([one.id, two.id, two.done], [null, "b", true]);
});

test("a spoken turn does not take a typed one's place", () => {
  const conversation = new Conversation();
  const typed = conversation.say("typed");
  conversation.apply(final("s", "spoken"));
  conversation.apply(token("s", "to the voice"));
  assert.equal(typed.id, null);
  assert.deepEqual(conversation.turns.map((turn) => turn.reply), ["", "to the voice"]);
});

test("an interrupted reply is parted where hearing ended", () => {
  const conversation = converse(final("t1", "Go on."), token("t1", "One two. "), token("t1", "Three four."));
  conversation.apply({ type: "interrupted", turn_id: "t1", reason: "client", heard_text: "One two. Three" });
  const [turn] = conversation.turns;
  assert.deepEqual([turn.reply, turn.unheard, turn.interrupted], ["One two. Three", " four.", true]);
  conversation.apply(token("t1", " five"));
  conversation.apply(complete("t1", "Go on.", "One two. Three", true));
  assert.deepEqual([turn.reply, turn.unheard, turn.done], ["One two. Three", " four.", true]);
});

test("spaces that the pieces were joined with do not hide where hearing ended", () => {
  assert.equal(prefixLength("你好。今天好吗？", "你好。 今天"), 5);
  assert.equal(prefixLength(" One\n two three", "One two"), 9);
  assert.equal(prefixLength("One", ""), 0);
  assert.equal(prefixLength("One", "Two"), null);
  assert.equal(prefixLength("One", "One two"), null);
  const conversation = converse(token("t1", "**Bold** words"));
  conversation.apply({ type: "interrupted", turn_id: "t1", reason: "speech", heard_text: "Bold" });
  assert.deepEqual([conversation.turns[0].reply, conversation.turns[0].unheard], ["Bold", ""]);
});

test("noise leaves nothing to show; a typed turn stays", () => {
  const conversation = converse(partial("t1", "uh", ""), { type: "turn_dropped", turn_id: "t1", reason: "" });
  assert.equal(conversation.turns[0].dropped, true);
  assert.equal(conversation.apply({ type: "turn_dropped", turn_id: "unknown", reason: "" }), null);
});

test("a lost session closes what was open, but not what it never saw", () => {
  const conversation = converse(partial("t1", "half a", ""));
  const [sent, unsent] = [conversation.say("sent"), conversation.say("unsent")];
  assert.equal(conversation.closeAll(1).length, 2);
  conversation.apply(token("new", "Answer"));
  assert.deepEqual([sent.id, unsent.id, unsent.reply], [null, "new", "Answer"]);
});

const called = (turn_id, call_id, name = "weather") => ({ type: "tool_call", turn_id, call_id, name, arguments: "{}" });
const gave = (turn_id, call_id, ok, text) => ({ type: "tool_result", turn_id, call_id, ok, text, ms: 12.4 });

test("functions that are called belong to the turn, with what they gave", () => {
  const conversation = new Conversation();
  const typed = conversation.say("How is it outside?");
  conversation.apply(called("t1", "a"));
  assert.equal(typed.id, "t1");
  assert.equal(conversation.apply(called("t1", "a")), null, "told again after a resume");
  conversation.apply(called("t1", "b", "now"));
  conversation.apply(gave("t1", "b", true, "noon"));
  conversation.apply(gave("t1", "a", false, "no such city"));
  assert.deepEqual(typed.calls.map((call) => [call.name, call.state, call.result]), [
    ["weather", "failed", "no such city"],
    ["now", "done", "noon"],
  ]);
  assert.equal(conversation.apply(gave("t1", "unknown", true, "")), null);
});

test("a function that runs when the reply is stopped gives nothing any more", () => {
  const stopped = { type: "interrupted", turn_id: "t1", reason: "speech", heard_text: "" };
  for (const end of [stopped, complete("t1", "Hi.", ""), null]) {
    const conversation = converse(final("t1", "Hi."), called("t1", "a"));
    if (end) conversation.apply(end);
    else conversation.closeAll(0);
    assert.equal(conversation.turns[0].calls[0].state, "stopped");
  }
});
