"""Functions of the server in a turn: called while the reply is spoken, which goes on with what they give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from dialogue.asker import Asker, Script, call, once
from scripted import ScriptedLlm, silence, speech
from session_rig import Rig

from app.dialogue import events
from app.dialogue.config import Ask, SessionConfig, TurnConfig
from app.dialogue.functions import MOST_CALLS, ROUNDS, UNFINISHED, Result
from app.dialogue.handover import pack, restored
from app.dialogue.history import fitted
from app.roles import (
    ChatMessage,
    EngineFailed,
    LlmOptions,
    LlmPiece,
    Tool,
    ToolCall,
    ToolCallPiece,
)

TURN = TurnConfig(end_ms=300, echo=False)
WEATHER = Tool("weather", "How it is outside.")


class Shelf:
    """Functions that give `results` in turn, each once `gate` is open."""

    def __init__(self, *results: Result, tools: tuple[Tool, ...] = (WEATHER,)) -> None:
        self.tools = tools
        self.results = list(results)
        self.called: list[tuple[str, str]] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.closes_after: int | None = None

    async def call(self, name: str, arguments: str) -> Result:
        self.called.append((name, arguments))
        if self.closes_after is not None and len(self.called) > self.closes_after:
            self.gate.clear()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.results.pop(0) if self.results else Result(True, f"result {len(self.called)}")


def rig_of(script: Script, shelf: Shelf, **config: Any) -> Rig:
    rig = Rig(SessionConfig(turn=TURN, **config), functions=shelf)
    rig.llm = Asker(script)
    object.__setattr__(rig.roles, "llm", rig.llm)
    return rig


def history(rig: Rig) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in rig.session.history.messages]


async def test_a_function_is_called_and_the_reply_goes_on_with_its_result() -> None:
    shelf = Shelf(Result(True, "sunny"))
    rig = rig_of(once, shelf)
    rig.session.say("How is it outside?")
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and not done.interrupted
    assert done.reply == "Let me see. It is sunny outside."
    assert (done.prompt_tokens, done.completion_tokens) == (30, 8)
    assert shelf.called == [("weather", '{"in": "Rome"}')]
    [started], [ended] = rig.all(events.ToolStarted), rig.all(events.ToolEnded)
    assert started == events.ToolStarted(done.turn_id, "c1", "weather", '{"in": "Rome"}')
    assert isinstance(ended, events.ToolEnded) and ended.ms >= 0
    assert (ended.call_id, ended.name, ended.ok, ended.text) == ("c1", "weather", True, "sunny")
    assert not rig.all(events.ReplyCall), "no client is asked to call it"
    written = "".join(e.text for e in rig.all(events.ReplyText) if isinstance(e, events.ReplyText))
    assert written == done.reply
    assert rig.tts.said == ["Let me see.", "It is sunny outside."]
    assert history(rig) == [
        ("user", "How is it outside?"),
        ("assistant", "Let me see."),
        ("tool", "sunny"),
        ("assistant", "It is sunny outside."),
    ]
    assert rig.session.history.messages[1].tool_calls == (ToolCall("c1", "weather", '{"in": "Rome"}'),)
    # The model saw just that, and the same functions both times.
    second = rig.llm.asked[1]
    assert [(m.role, m.content) for m in second[1:]] == history(rig)[:3]
    assert [o.tools for o in rig.llm.options] == [(WEATHER,)] * 2  # type: ignore[attr-defined]
    await rig.session.close()


async def test_what_was_written_before_is_spoken_while_a_function_runs() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    rig = rig_of(once, shelf)
    rig.session.say("How is it outside?")
    await rig.until(events.ToolStarted)
    await rig.until(events.ReplyAudio, 3)
    assert rig.tts.said == ["Let me see."] and not rig.all(events.ToolEnded)
    shelf.gate.set()
    [done] = await rig.until(events.TurnComplete)
    sound = [e for e in rig.all(events.ReplyAudio) if isinstance(e, events.ReplyAudio)]
    assert [e.offset_ms for e in sound] == sorted(e.offset_ms for e in sound)
    assert sum(e.last for e in sound) == 1
    assert isinstance(done, events.TurnComplete) and done.reply.endswith("outside.")
    await rig.session.close()


async def test_speech_stops_the_function_and_history_knows_what_was_heard() -> None:
    shelf = Shelf()
    shelf.gate.clear()
    rig = rig_of(once, shelf)
    rig.tts.seconds_a_word = 0.3
    rig.session.say("How is it outside?")
    await rig.until(events.ToolStarted)
    [first, *_] = await rig.until(events.ReplyAudio, 5)
    rig.session.played(first.turn_id, 620)  # type: ignore[union-attr]
    await rig.hear(speech(0.8))
    [stopped] = await rig.until(events.Interrupted)
    assert isinstance(stopped, events.Interrupted) and stopped.heard == "Let me"
    await asyncio.sleep(0.01)
    assert shelf.cancelled == 1
    assert history(rig) == [("user", "How is it outside?"), ("assistant", "Let me"), ("tool", UNFINISHED)]
    shelf.gate.set()
    await rig.hear(silence(1.0))
    [_, done] = await rig.until(events.TurnComplete, 2)
    assert not rig.all(events.ToolEnded) or rig.all(events.ToolEnded)[0].turn_id == done.turn_id  # type: ignore[union-attr]
    await rig.session.close()


async def test_what_was_heard_behind_a_function_is_parted_from_what_was_heard_before() -> None:
    shelf = Shelf(Result(True, "sunny"))
    rig = rig_of(once, shelf)
    rig.session.say("How is it outside?")
    await rig.until(events.ToolEnded)
    [done] = await rig.until(events.TurnComplete)
    turn_id = done.turn_id  # type: ignore[union-attr]
    # 0.1 s a word: "Let me see. It is" were heard.
    rig.session.truncate(turn_id, 500)
    assert [c for r, c in history(rig) if r == "assistant"] == ["Let me see.", "It is"]
    rig.session.truncate(turn_id, 200)
    assert [c for r, c in history(rig) if r == "assistant"] == ["Let me"]
    await rig.session.close()


async def test_rounds_are_bounded() -> None:
    shelf = Shelf()

    def always(messages: Sequence[ChatMessage], options: LlmOptions) -> Sequence[LlmPiece]:
        return ["Enough."] if options.tool_choice == "none" else [call()]

    rig = rig_of(always, shelf)
    rig.session.say("go")
    [done] = await rig.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and done.reply == "Enough."
    assert len(shelf.called) == ROUNDS
    # Ids that an API gives twice are not told twice.
    ids = [e.call_id for e in rig.all(events.ToolStarted) if isinstance(e, events.ToolStarted)]
    assert len(set(ids)) == ROUNDS and ids[0] == "c1"
    assert [r for r, _ in history(rig)] == ["user", *["assistant", "tool"] * ROUNDS, "assistant"]
    await rig.session.close()


async def test_several_are_called_at_once_but_not_any_number() -> None:
    shelf = Shelf()
    shelf.gate.clear()

    def many(messages: Sequence[ChatMessage], options: LlmOptions) -> Sequence[LlmPiece]:
        if messages[-1].role == "tool":
            return ["Done."]
        return [call(index=i, id_=f"c{i}") for i in range(MOST_CALLS + 3)]

    rig = rig_of(many, shelf)
    rig.session.say("go")
    await rig.until(events.ToolStarted, MOST_CALLS)
    shelf.gate.set()
    await rig.until(events.TurnComplete)
    assert len(shelf.called) == MOST_CALLS == len(rig.all(events.ToolEnded))
    assert [r for r, _ in history(rig)] == ["user", "assistant", *["tool"] * MOST_CALLS, "assistant"]
    await rig.session.close()


async def test_long_results_leave_room_for_the_conversation() -> None:
    shelf = Shelf(Result(True, "word " * 5000))
    rig = rig_of(once, shelf, speak=False)
    rig.session.say("How is it outside?")
    await rig.until(events.TurnComplete)
    [result] = [m for m in rig.llm.asked[1] if m.role == "tool"]
    assert rig.llm.context_tokens // 4 < rig.llm.count_tokens(result.content) < rig.llm.context_tokens // 2
    assert "more characters)" in result.content
    [ended] = rig.all(events.ToolEnded)
    assert len(ended.text) == 1001  # type: ignore[union-attr]
    await rig.session.close()


def test_what_is_old_makes_room_for_results() -> None:
    llm = ScriptedLlm()
    said = [ChatMessage("system", "a b"), ChatMessage("user", "c d e"), ChatMessage("assistant", "f g")]
    said += [ChatMessage("user", "h"), ChatMessage("assistant", "", (ToolCall("1", "x", "{}"),))]
    said += [ChatMessage("tool", "i j k", tool_call_id="1")]
    assert fitted(said, llm, 100) == said
    assert fitted(said, llm, 10) == [said[0], *said[3:]]
    assert fitted(said, llm, 1) == [said[0], *said[3:]]
    alone = [said[0], *said[4:]]
    assert fitted(alone, llm, 1) == alone


async def test_a_client_has_its_own_functions_beside_ours() -> None:
    shelf = Shelf(Result(True, "sunny"), tools=(WEATHER, Tool("light", "ours")))
    light = Tool("light", "the client's")

    def both(messages: Sequence[ChatMessage], options: LlmOptions) -> Sequence[LlmPiece]:
        if messages[-1].role == "tool":
            return ["Well."]
        return [call("light", "{", 0, "l"), ToolCallPiece(0, arguments="}"), call(index=1, id_="w")]

    rig = rig_of(both, shelf, tools=(light,))
    rig.session.say("go")
    [done] = await rig.until(events.TurnComplete)
    assert rig.llm.options[0].tools == (light, WEATHER)  # type: ignore[attr-defined]
    assert shelf.called == [("weather", "{}")]
    asked = [
        (e.index, e.call_id, e.arguments)
        for e in rig.all(events.ReplyCall)
        if isinstance(e, events.ReplyCall)
    ]
    assert asked == [(0, "l", "{"), (0, "l", "}")]
    # The client has its part to do: the reply is over, and another is asked for with both results.
    assert len(rig.llm.asked) == 1 and isinstance(done, events.TurnComplete)
    rig.session.history.insert("r", ChatMessage("tool", "on", tool_call_id="l"))
    rig.session.respond(Ask())
    await rig.until(events.TurnComplete, 2)
    last = rig.llm.asked[1]
    assert [(m.role, m.content, tuple(c.id for c in m.tool_calls)) for m in last[1:]] == [
        ("user", "go", ()),
        ("assistant", "", ("w",)),
        ("tool", "sunny", ()),
        ("assistant", "", ("l",)),
        ("tool", "on", ()),
    ]
    await rig.session.close()


@pytest.mark.parametrize("choice", ["none", "required", "light"])
async def test_a_client_that_says_what_to_call_chooses_among_its_own(choice: str) -> None:
    rig = rig_of(lambda *_: ["Fine."], Shelf(), tools=(Tool("light"),), tool_choice=choice)
    rig.session.say("go")
    await rig.until(events.TurnComplete)
    [options] = rig.llm.options  # type: ignore[attr-defined]
    assert (options.tools, options.tool_choice) == ((Tool("light"),), choice)
    await rig.session.close()


async def test_a_reply_outside_of_the_conversation_calls_nothing_of_ours() -> None:
    rig = rig_of(lambda *_: ["Fine."], Shelf())
    rig.session.respond(Ask(messages=(ChatMessage("user", "sort this"),), keep=False))
    await rig.until(events.TurnComplete)
    assert rig.llm.options[0].tools == ()  # type: ignore[attr-defined]
    await rig.session.close()


async def test_nothing_is_called_for_a_draft() -> None:
    shelf = Shelf(Result(True, "sunny"))
    rig = rig_of(once, shelf)
    rig.stt.words = "what time is it? and so on".split()
    await rig.hear(speech(1.0), silence(0.16))
    while not rig.tts.said:
        await asyncio.sleep(0.001)
    # It is written up to where it asks, and nobody has heard of it.
    await asyncio.sleep(0.02)
    assert shelf.called == [] and len(rig.llm.asked) == 1
    await rig.hear(silence(1.0))
    await rig.until(events.TurnComplete)
    assert rig.guesses == ["adopted"] and len(shelf.called) == 1
    names = rig.names()
    assert names.index("Final") < names.index("ToolStarted")
    await rig.session.close()


async def test_a_failing_model_does_not_call() -> None:
    shelf = Shelf()

    class Broken(Asker):
        async def reply(self, messages: Any, options: Any, job: Any) -> AsyncGenerator[LlmPiece, None]:  # type: ignore[override]
            yield call()
            raise EngineFailed("the model is broken")

    rig = rig_of(once, shelf)
    object.__setattr__(rig.roles, "llm", Broken(once))
    rig.session.say("go")
    await rig.until(events.TurnComplete)
    assert shelf.called == [] and rig.all(events.Failed)
    await rig.session.close()


async def test_another_process_does_not_call_again_what_was_called() -> None:
    """What is written down of a reply that waits for its second function has the first one's result."""
    shelf = Shelf(Result(True, "sunny"))

    def twice(messages: Sequence[ChatMessage], options: LlmOptions) -> Sequence[LlmPiece]:
        results = sum(m.role == "tool" for m in messages)
        return (
            ["First.", call(id_="a")]
            if not results
            else ["Next.", call(id_="b")]
            if results == 1
            else ["End."]
        )

    rig = rig_of(twice, shelf)
    shelf.closes_after = 1
    rig.session.say("go")
    await rig.until(events.ToolStarted, 2)
    await rig.until(events.ReplyAudio, 2)
    state = rig.session._state_to_keep()
    kept = [(seq, pack(event)) for seq, event in rig.session.outbox._log]
    other = Shelf()
    taken = Rig(SessionConfig(turn=TURN), functions=other, restored=restored(state, kept, []))
    taken.llm = Asker(twice)
    object.__setattr__(taken.roles, "llm", taken.llm)
    [done] = await taken.until(events.TurnComplete)
    assert isinstance(done, events.TurnComplete) and done.reply.startswith("First. Next.")
    asked = taken.llm.asked[0]
    assert [m.content for m in asked if m.role == "tool"] == ["sunny", UNFINISHED]
    assert other.called == [] and asked[-1].content.startswith("First.")
    await rig.session.close()
    await taken.session.close()
