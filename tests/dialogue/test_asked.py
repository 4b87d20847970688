"""Replies that a client asks for, sessions that only write down, functions, and what is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from scripted import ScriptedLlm, silence, speech
from session_rig import Rig

from app.dialogue import events
from app.dialogue.config import Ask, SessionConfig, TurnConfig
from app.dialogue.history import History, from_json, to_json
from app.roles import ChatMessage, Job, LlmEnd, LlmOptions, LlmPiece, Tool, ToolCall, ToolCallPiece

TURN = TurnConfig(end_ms=300, echo=False)
ALL = "First sentence here. Second sentence here. Third one."


async def test_nothing_is_answered_before_it_is_asked_for() -> None:
    rig = Rig(SessionConfig(turn=TURN, respond="manual"))
    await rig.hear(silence(0.3), speech(1.0), silence(1.0))
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and not done.reply and not rig.llm.asked
    rig.session.respond(Ask())
    await rig.until(events.TurnComplete, 2)
    assert [(m.role, m.content) for m in rig.session.history.messages] == [
        ("user", "one two three four"),
        ("assistant", ALL),
    ]
    await rig.session.close()


async def test_a_reply_that_is_asked_for_waits_for_the_words_before_it() -> None:
    rig = Rig(SessionConfig(turn=TurnConfig(mode="manual", interrupt=False, echo=False), respond="manual"))
    rig.stt.gate = asyncio.Event()
    await rig.hear(speech(1.0))
    rig.session.commit()
    rig.session.respond(Ask())
    await asyncio.sleep(0.05)
    assert not rig.llm.asked
    rig.stt.gate.set()
    await rig.until(events.TurnComplete, 2)
    assert rig.llm.asked[0][-1].content.startswith("one two three")
    await rig.session.close()


async def test_what_is_only_written_down_reaches_no_language_model() -> None:
    rig = Rig(SessionConfig(turn=TURN, respond="never"))
    for _ in range(2):
        await rig.hear(silence(0.3), speech(1.0), silence(1.0))
    await rig.until(events.TurnComplete, 2)
    assert len(rig.all(events.Final)) == 2
    assert not rig.llm.asked and not rig.llm.prepared and not rig.session.history.messages
    assert [turn.number for turn in rig.kept] == [1, 2]
    await rig.session.close()


async def test_a_reply_to_something_else_is_not_remembered() -> None:
    rig = Rig(SessionConfig(turn=TURN))
    rig.session.say("hello")
    await rig.until(events.TurnComplete)
    other = (ChatMessage("user", "sum up"),)
    config = SessionConfig(turn=TURN, instructions="Sum up.", speak=False)
    rig.session.respond(Ask(config, other, keep=False))
    [_, done] = await rig.until(events.TurnComplete, 2)
    assert isinstance(done, events.TurnComplete) and done.reply == ALL and done.audio_ms == 0
    assert [m.content for m in rig.llm.asked[-1]] == ["Sum up.", "sum up"]
    assert [m.content for m in rig.session.history.messages] == ["hello", ALL]
    await rig.session.close()


async def test_a_reply_can_be_withdrawn_before_it_begins() -> None:
    rig = Rig(SessionConfig(turn=TURN))
    rig.tts.seconds_a_word = 0.3
    rig.session.say("hello")
    await rig.until(events.ReplyAudio)
    turn_id = rig.session.respond(Ask())
    assert rig.session.withdraw(turn_id)
    rig.session.interrupt("client")
    await rig.until(events.TurnComplete, 2)
    assert len(rig.llm.asked) == 1 and rig.all(events.TurnComplete)[-1].interrupted  # type: ignore[attr-defined]
    assert not rig.session.withdraw(turn_id)
    await rig.session.close()


async def test_what_is_taken_back_was_never_said() -> None:
    rig = Rig(SessionConfig(turn=TURN))
    await rig.hear(silence(0.3), speech(1.0))
    await rig.until(events.SpeechStarted)
    rig.session.clear()
    await rig.hear(silence(1.0), speech(0.5), silence(1.0))
    [final] = await rig.until(events.Final)
    assert isinstance(final, events.Final) and final.text in ("one two", "one two three")
    [dropped] = rig.all(events.TurnDropped)
    assert isinstance(dropped, events.TurnDropped) and dropped.reason == events.TAKEN_BACK
    await rig.session.close()


@pytest.mark.parametrize(("ms", "left"), [(0, ""), (320, "First sentence here."), (10_000, ALL)])
async def test_history_is_cut_to_what_was_heard(ms: float, left: str) -> None:
    rig = Rig(SessionConfig(turn=TURN))
    rig.session.say("hello")
    [done] = await rig.until(events.TurnComplete)
    rig.session.truncate(done.turn_id, ms)  # type: ignore[attr-defined]
    said = [m.content for m in rig.session.history.messages if m.role == "assistant"]
    assert said == ([left] if left else [])
    await rig.session.close()


async def test_a_reply_is_not_stopped_where_nothing_may_stop_it() -> None:
    rig = Rig(SessionConfig(turn=TurnConfig(end_ms=300, echo=False, interrupt=False)))
    rig.tts.seconds_a_word = 0.2
    rig.session.say("hello")
    await rig.until(events.ReplyAudio)
    await rig.hear(silence(0.3), speech(1.0), silence(1.0))
    await rig.until(events.TurnComplete, 2)
    assert not rig.all(events.Interrupted)
    assert [m.role for m in rig.session.history.messages] == ["user", "assistant", "user", "assistant"]
    await rig.session.close()


class Caller(ScriptedLlm):
    """Says something and asks for a function, until it has a result."""

    async def reply(  # type: ignore[override]
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece, None]:
        if messages[-1].role == "tool":
            yield "It is sunny."
            return
        self.asked.append(list(messages))
        yield "Let me see."
        yield ToolCallPiece(0, "c1", options.tools[0].name)
        for piece in ("{", "}"):
            await asyncio.sleep(self.pause)
            yield ToolCallPiece(0, arguments=piece)
        yield LlmEnd("tool_calls", 5, 7)


async def test_a_function_is_called_and_its_result_is_part_of_the_conversation() -> None:
    rig = Rig(SessionConfig(turn=TURN, tools=(Tool("weather"),)))
    object.__setattr__(rig.roles, "llm", Caller())
    rig.session.say("How is it outside?")
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and (done.prompt_tokens, done.completion_tokens) == (5, 7)
    calls = [e for e in rig.all(events.ReplyCall) if isinstance(e, events.ReplyCall)]
    assert "".join(c.arguments for c in calls) == "{}" and {c.call_id for c in calls} == {"c1"}
    rig.session.history.insert("r1", ChatMessage("tool", "sunny", tool_call_id="c1"))
    rig.session.respond(Ask())
    await rig.until(events.TurnComplete, 2)
    messages = rig.session.history.messages
    assert [(m.role, m.content) for m in messages] == [
        ("user", "How is it outside?"),
        ("assistant", "Let me see."),
        ("tool", "sunny"),
        ("assistant", "It is sunny."),
    ]
    assert messages[1].tool_calls == (ToolCall("c1", "weather", "{}"),)
    assert from_json(to_json(rig.session.history.entries)) == rig.session.history.entries
    await rig.session.close()


async def test_a_call_that_was_stopped_is_none() -> None:
    rig = Rig(SessionConfig(turn=TURN, tools=(Tool("weather"),)))
    caller = Caller()
    caller.pause = 0.2
    object.__setattr__(rig.roles, "llm", caller)
    rig.session.say("How is it outside?")
    await rig.until(events.ReplyCall, 2)
    rig.session.interrupt("client")
    await rig.until(events.TurnComplete)
    assert not any(m.tool_calls for m in rig.session.history.messages)
    await rig.session.close()


def test_messages_are_put_changed_and_taken_away_by_id() -> None:
    history = History()
    history.user("b", "b")
    history.insert("a", ChatMessage("user", "a"), "")
    history.insert("c", ChatMessage("assistant", "c"), "b")
    history.rewrite("c", "see")
    assert [m.content for m in history.messages] == ["a b", "see"]
    history.remove("a")
    history.remove("nobody")
    history.rewrite("c", "")
    assert [m.content for m in history.messages] == ["b"]
