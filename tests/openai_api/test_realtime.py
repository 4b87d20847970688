"""`/v1/realtime` with OpenAI's own client: what is said and in which order, over scripted engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, silence, speech
from realtime_client import Realtime, realtime
from serving import Server, make_settings, scripted

from app.roles import ChatMessage, Job, LlmEnd, LlmOptions, LlmPiece, ToolCallPiece

TEXT = "First sentence here. Second sentence here. Third one."


class ToolLlm(ScriptedLlm):
    """Asks for the weather, if it may and has not been told; else writes `text`."""

    async def reply(  # type: ignore[override]
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece, None]:
        if options.tools and options.tool_choice != "none" and messages[-1].role != "tool":
            self.asked.append(list(messages))
            for index, city in enumerate(("Paris", "Rome")):
                yield ToolCallPiece(index, f"call_{city}", options.tools[0].name)
                for piece in ('{"city"', f': "{city}"', "}"):
                    yield ToolCallPiece(index, arguments=piece)
            yield LlmEnd("tool_calls", 20, 12)
            return
        async for piece in super().reply(messages, options, job):
            yield piece
        yield LlmEnd("length" if options.max_tokens < 5 else "stop", 10, 9)


class House:
    """A server and its engines."""

    def __init__(self, server: Server, llm: ToolLlm, tts: ToneTts, stt: CountingStt) -> None:
        self.server, self.llm, self.tts, self.stt = server, llm, tts, stt

    def reset(self) -> None:
        self.llm.pause, self.llm.text, self.tts.seconds_a_word = 0.0, TEXT, 0.05
        self.llm.asked.clear()


@pytest.fixture(scope="module")
def one_house(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    llm, tts, stt = ToolLlm(), ToneTts(), CountingStt()
    settings = make_settings(models_dir, tmp_path_factory.mktemp("realtime"), max_sessions=40)
    with scripted(settings, vad=LoudVad(), stt=stt, llm=llm, tts=tts) as server:
        yield House(server, llm, tts, stt)


@pytest.fixture
def house(one_house: House) -> House:
    one_house.reset()
    return one_house


QUESTION = np.concatenate([silence(0.3), speech(1.0), silence(2.5)])


WORDS = "conversation.item.input_audio_transcription.delta"


def order(talk: Realtime) -> list[str]:
    """The types of all events, runs of the same as one; words come when they are certain."""
    seen = [t for t in talk.types() if t not in ("rate_limits.updated", WORDS)]
    return [t for i, t in enumerate(seen) if i == 0 or seen[i - 1] != t]


async def test_a_spoken_turn_and_its_reply_come_in_openais_order(house: House) -> None:
    async with realtime(house.server) as talk:
        created = await talk.until("session.created")
        assert created["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        await talk.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
        await talk.play(QUESTION)
        done = await talk.until("response.done")
    part = "conversation.item"
    transcription = f"{part}.input_audio_transcription"
    assert order(talk) == [
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        f"{part}.added",
        f"{part}.done",
        f"{transcription}.completed",
        "response.created",
        "response.output_item.added",
        f"{part}.added",
        "response.content_part.added",
        *["response.output_audio_transcript.delta", "response.output_audio.delta"] * 2,
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        f"{part}.done",
        "response.done",
    ]
    said = "".join(e["delta"] for e in talk.of("response.output_audio_transcript.delta"))
    [transcript] = talk.of("response.output_audio_transcript.done")
    assert said == transcript["transcript"] == TEXT
    assert done["response"]["status"] == "completed"
    assert done["response"]["output"][0]["content"] == [{"type": "output_audio", "transcript": TEXT}]
    assert done["response"]["usage"]["total_tokens"] == 19
    [words] = talk.of(f"{transcription}.completed")
    heard = "".join(e["delta"] for e in talk.of(f"{transcription}.delta"))
    assert heard == words["transcript"] == "one two three four"
    committed = talk.of("input_audio_buffer.committed")[0]
    started = talk.of("input_audio_buffer.speech_started")[0]
    assert committed["item_id"] == started["item_id"] == words["item_id"]
    assert started["audio_start_ms"] == pytest.approx(300, abs=40)
    assert len(talk.sound(done["response"]["id"])) / 48000 == pytest.approx(8 * 0.05, abs=0.03)
    ids = [e["event_id"] for e in talk.seen]
    assert len(set(ids)) == len(ids)


async def test_typed_text_is_answered_in_text(house: House) -> None:
    async with realtime(house.server) as talk:
        await talk.update(output_modalities=["text"], instructions="Be brief.")
        await talk.say("hello", id="my-own-id")
        await talk.send("response.create", response={"metadata": {"topic": "greeting"}})
        done = await talk.until("response.done")
    assert talk.of("conversation.item.added")[0]["item"]["id"] == "my-own-id"
    assert "".join(e["delta"] for e in talk.of("response.output_text.delta")) == TEXT
    assert not talk.of("response.output_audio.delta")
    assert (
        done["response"]["metadata"]
        == talk.of("response.created")[0]["response"]["metadata"]
        == {"topic": "greeting"}
    )
    assert [(m.role, m.content) for m in house.llm.asked[-1]] == [("system", "Be brief."), ("user", "hello")]


async def test_manual_turns(house: House) -> None:
    async with realtime(house.server) as talk:
        session = await talk.update(
            audio={"input": {"turn_detection": None, "transcription": {"model": "x"}}}
        )
        assert session["audio"]["input"]["turn_detection"] is None
        await talk.send("input_audio_buffer.commit", event_id="too-early")
        error = await talk.until("error")
        assert error["error"]["code"] == "input_audio_buffer_commit_empty"
        assert error["error"]["event_id"] == "too-early"
        await talk.play(QUESTION)
        await talk.send("input_audio_buffer.commit")
        await talk.send("response.create")
        await talk.until("input_audio_buffer.committed")
        await talk.until("response.created")
        await talk.until("response.done")
        assert house.llm.asked[-1][-1].content == "one two three four"
        # What is cleared was never said.
        await talk.play(speech(1.0))
        await talk.send("input_audio_buffer.clear")
        await talk.until("input_audio_buffer.cleared")
        await talk.play(np.concatenate([silence(0.1), speech(0.5)]))
        await talk.send("input_audio_buffer.commit")
        await talk.until("input_audio_buffer.committed")
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] in ("one two", "one two three")
    assert not talk.of("input_audio_buffer.speech_started") and not talk.of(
        "input_audio_buffer.speech_stopped"
    )
    assert len(talk.of("response.created")) == 1


HEADSET = {"transcription": {"model": "whisper-1"}, "noise_reduction": {"type": "near_field"}}


async def test_speech_over_a_reply_cancels_it(house: House) -> None:
    house.tts.seconds_a_word = 0.5
    async with realtime(house.server) as talk:
        await talk.update(audio={"input": HEADSET})
        await talk.say("hello")
        await talk.send("response.create")
        await talk.until("response.output_audio.delta", 5)
        await talk.play(np.concatenate([silence(0.3), speech(1.5), silence(2)]), paced=True)
        cancelled = await talk.until("response.done")
        second = await talk.until("response.done")
    assert cancelled["response"]["status"] == "cancelled"
    assert cancelled["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert second["response"]["status"] == "completed"
    types = order(talk)
    at = types.index("response.done")
    assert types[at - 5 : at + 2] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
        "input_audio_buffer.speech_started",
    ]
    # History holds what was heard.
    answers = [m.content for m in house.llm.asked[-1] if m.role == "assistant"]
    assert answers and TEXT.startswith(answers[0].rstrip(".")) and len(answers[0]) < len(TEXT)


async def test_a_cough_over_a_reply_is_not_told(house: House) -> None:
    house.tts.seconds_a_word = 0.3
    house.stt.deaf_under_s = 0.6
    try:
        async with realtime(house.server) as talk:
            await talk.update(audio={"input": HEADSET})
            await talk.say("hello")
            await talk.send("response.create")
            await talk.until("response.output_audio.delta", 3)
            await talk.play(np.concatenate([silence(0.2), speech(0.3), silence(1.5)]), paced=True)
            done = await talk.until("response.done")
        assert done["response"]["status"] == "completed"
        assert not [t for t in talk.types() if t.startswith("input_audio_buffer")]
    finally:
        house.stt.deaf_under_s = 0.0


async def test_truncate_makes_history_what_was_heard(house: House) -> None:
    house.tts.seconds_a_word = 0.1
    async with realtime(house.server) as talk:
        await talk.say("hello")
        await talk.send("response.create")
        done = await talk.until("response.done")
        item = done["response"]["output"][0]["id"]
        await talk.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=300)
        truncated = await talk.until("conversation.item.truncated")
        assert (truncated["item_id"], truncated["audio_end_ms"]) == (item, 300)
        await talk.send("conversation.item.retrieve", item_id=item)
        found = await talk.until("conversation.item.retrieved")
        assert found["item"]["content"][0]["transcript"] == "First sentence here."
        await talk.say("go on")
        await talk.send("response.create")
        await talk.until("response.done")
        assert [m.content for m in house.llm.asked[-1][1:]] == ["hello", "First sentence here.", "go on"]
        for wrong in ({"audio_end_ms": 99999}, {"content_index": 1}, {"item_id": "nobody"}):
            fields: dict[str, Any] = {
                "item_id": item,
                "content_index": 0,
                "audio_end_ms": 10,
                "event_id": "e",
            } | wrong
            await talk.send("conversation.item.truncate", **fields)
            assert (await talk.until("error"))["error"]["event_id"] == "e"


async def test_functions_are_called_and_their_results_used(house: House) -> None:
    tool = {
        "type": "function",
        "name": "weather",
        "description": "How the weather is.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    async with realtime(house.server) as talk:
        await talk.update(tools=[tool], tool_choice="auto")
        await talk.say("How is the weather?")
        await talk.send("response.create")
        done = await talk.until("response.done")
        calls = done["response"]["output"]
        assert [(c["type"], c["name"], c["arguments"]) for c in calls] == [
            ("function_call", "weather", '{"city": "Paris"}'),
            ("function_call", "weather", '{"city": "Rome"}'),
        ]
        deltas = talk.of("response.function_call_arguments.delta")
        assert "".join(e["delta"] for e in deltas if e["output_index"] == 1) == '{"city": "Rome"}'
        assert [e["arguments"] for e in talk.of("response.function_call_arguments.done")] == [
            c["arguments"] for c in calls
        ]
        await talk.send(
            "conversation.item.create",
            item={"type": "function_call_output", "call_id": "call_nobody", "output": "?"},
        )
        assert (await talk.until("error"))["error"]["code"] == "invalid_tool_call_id"
        for call, output in zip(calls, ("sunny", "rain"), strict=True):
            await talk.send(
                "conversation.item.create",
                item={"type": "function_call_output", "call_id": call["call_id"], "output": output},
            )
        await talk.send("response.create")
        answer = await talk.until("response.done")
    assert answer["response"]["output"][0]["content"][0]["transcript"] == TEXT
    asked = house.llm.asked[-1]
    assert [m.role for m in asked] == ["system", "user", "assistant", "tool", "tool"]
    assert [c.id for c in asked[2].tool_calls] == ["call_Paris", "call_Rome"]
    assert [(m.tool_call_id, m.content) for m in asked[3:]] == [
        ("call_Paris", "sunny"),
        ("call_Rome", "rain"),
    ]


async def test_transcription_sessions(house: House) -> None:
    async with realtime(house.server, extra_query={"intent": "transcription"}) as talk:
        created = await talk.until("session.created")
        assert created["session"]["type"] == "transcription"
        await talk.send(
            "session.update",
            session={
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe-diarize"}}},
            },
        )
        await talk.until("session.updated")
        await talk.play(QUESTION)
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        await talk.send("response.create")
        assert "no responses" in (await talk.until("error"))["error"]["message"]
    assert completed["transcript"] == "one two three four"
    [segment] = talk.of("conversation.item.input_audio_transcription.segment")
    assert segment["speaker"] and segment["text"] == completed["transcript"]
    assert not talk.of("response.created") and not house.llm.asked


async def test_one_response_at_a_time_and_cancelling(house: House) -> None:
    house.tts.seconds_a_word = 0.4
    async with realtime(house.server) as talk:
        await talk.send("response.cancel", event_id="nothing-to-cancel")
        error = await talk.until("error")
        assert error["error"]["code"] == "response_cancel_not_active"
        await talk.say("hello")
        await talk.send("response.create")
        await talk.send("response.create", event_id="second")
        error = await talk.until("error")
        assert error["error"]["code"] == "conversation_already_has_active_response"
        assert error["error"]["event_id"] == "second"
        for wait in (None, "response.created", "response.content_part.added", "response.output_audio.delta"):
            if wait:
                await talk.until(wait)
            await talk.send("response.cancel")
            done = await talk.until("response.done")
            assert done["response"]["status"] == "cancelled"
            assert done["response"]["status_details"]["reason"] == "client_cancelled"
            await talk.send("response.create")
        done = await talk.until("response.done")
        assert done["response"]["status"] == "completed"


async def test_a_reply_that_is_cut_is_incomplete(house: House) -> None:
    async with realtime(house.server) as talk:
        await talk.say("hello")
        await talk.send("response.create", response={"max_output_tokens": 3})
        done = await talk.until("response.done")
    assert done["response"]["status"] == "incomplete"
    assert done["response"]["status_details"]["reason"] == "max_output_tokens"


async def test_items_are_kept_in_the_order_that_the_client_wants(house: House) -> None:
    async with realtime(house.server) as talk:
        await talk.say("two", id="b")
        await talk.say("one", id="a")
        content = [{"type": "input_text", "text": "zero"}]
        item = {"type": "message", "role": "system", "id": "z", "content": content}
        await talk.send("conversation.item.create", previous_item_id="root", item=item)
        added = [await talk.until("conversation.item.added") for _ in range(3)]
        assert [e["previous_item_id"] for e in added] == [None, "b", None]
        await talk.send("conversation.item.delete", item_id="b")
        assert (await talk.until("conversation.item.deleted"))["item_id"] == "b"
        await talk.say("again", id="a")
        assert (await talk.until("error"))["error"]["code"] == "item_create_duplicate_id"
        await talk.send("response.create")
        await talk.until("response.done")
        assert [(m.role, m.content) for m in house.llm.asked[-1][1:]] == [("system", "zero"), ("user", "one")]
        # Out of band: other input, nothing kept.
        asked = [
            {"type": "item_reference", "id": "a"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "sum up"}]},
        ]
        fields = {
            "conversation": "none",
            "input": asked,
            "output_modalities": ["text"],
            "instructions": "Sum up.",
        }
        await talk.send("response.create", response=fields)
        done = await talk.until("response.done")
        assert done["response"]["conversation_id"] is None
        assert [m.content for m in house.llm.asked[-1]] == ["Sum up.", "one", "sum up"]
        before = len(talk.of("conversation.item.added"))
        await talk.send("response.create")
        await talk.until("response.done")
        assert "sum up" not in str(house.llm.asked[-1])
        assert len(talk.of("conversation.item.added")) == before + 1


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
async def test_g711_both_ways(house: House, kind: str) -> None:
    async with realtime(house.server) as talk:
        form = {"type": kind}
        session = await talk.update(
            audio={"input": {"format": form, "transcription": {"model": "x"}}, "output": {"format": form}}
        )
        assert session["audio"]["output"]["format"] == form
        await talk.play(QUESTION, codec={"audio/pcmu": "mulaw", "audio/pcma": "alaw"}[kind], rate=8000)
        done = await talk.until("response.done")
    [completed] = talk.of("conversation.item.input_audio_transcription.completed")
    assert "one two three four".startswith(completed["transcript"]) and len(completed["transcript"]) > 10
    assert len(talk.sound(done["response"]["id"])) / 8000 == pytest.approx(8 * 0.05, abs=0.03)


async def test_semantic_vad_and_no_response_by_itself(house: House) -> None:
    async with realtime(house.server) as talk:
        detection = {"type": "semantic_vad", "eagerness": "low", "create_response": False}
        session = await talk.update(audio={"input": {"turn_detection": detection}})
        assert session["audio"]["input"]["turn_detection"] == detection | {"interrupt_response": True}
        await talk.play(QUESTION)
        await talk.until("conversation.item.done")
        await asyncio.sleep(0.2)
        assert not talk.of("response.created")
        assert not talk.of("conversation.item.input_audio_transcription.completed")
        await talk.send("response.create")
        await talk.until("response.done")
        assert house.llm.asked[-1][-1].content == "one two three four"


async def test_nobody_speaks(house: House) -> None:
    async with realtime(house.server) as talk:
        await talk.update(
            audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 1000}}}
        )
        await talk.say("hello")
        await talk.send("response.create")
        await talk.until("response.done")
        triggered = await talk.until("input_audio_buffer.timeout_triggered")
        committed = await talk.until("input_audio_buffer.committed")
        assert committed["item_id"] == triggered["item_id"]
        assert (await talk.until("response.done"))["response"]["status"] == "completed"


async def test_a_turn_that_only_the_client_took_for_speech_is_an_item_without_words(house: House) -> None:
    async with realtime(house.server) as talk:
        await talk.update(audio={"input": {"turn_detection": None, "transcription": {"model": "x"}}})
        await talk.play(silence(0.5))
        await talk.send("input_audio_buffer.commit")
        committed = await talk.until("input_audio_buffer.committed")
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        assert (completed["item_id"], completed["transcript"]) == (committed["item_id"], "")
        # What was committed is gone, and a frame without sound adds nothing.
        await talk.send("input_audio_buffer.append", audio="")
        await talk.send("input_audio_buffer.commit")
        assert (await talk.until("error"))["error"]["code"] == "input_audio_buffer_commit_empty"
        await talk.play(QUESTION)
        await talk.send("input_audio_buffer.commit")
        await talk.until("input_audio_buffer.committed")
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "one two three four"
    assert len(talk.of("error")) == 1


async def test_a_null_is_the_wish_for_what_there_was_at_first(house: House) -> None:
    async with realtime(house.server) as talk:
        first = (await talk.until("session.created"))["session"]
        del first["resume_token"]
        changed = await talk.update(
            output_modalities=["text"],
            max_output_tokens=9,
            audio={"output": {"voice": "alloy", "speed": 1.2}},
        )
        assert changed["output_modalities"] == ["text"] and changed["audio"]["output"]["speed"] == 1.2
        names = ("output_modalities", "max_output_tokens", "tools", "tool_choice", "instructions", "model")
        nulls: dict[str, Any] = dict.fromkeys(names)
        assert await talk.update(**nulls, audio={"output": {"voice": None, "speed": None}}) == first


async def test_words_are_told_by_the_transcription_and_then_known(house: House) -> None:
    """Some clients put the transcription's words behind those of the item."""
    async with realtime(house.server) as talk:
        await talk.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
        await talk.play(QUESTION)
        item = (await talk.until("conversation.item.added"))["item"]
        assert item["content"] == [{"type": "input_audio", "transcript": None}]
        completed = await talk.until("conversation.item.input_audio_transcription.completed")
        await talk.send("conversation.item.retrieve", item_id=item["id"])
        found = await talk.until("conversation.item.retrieved")
        assert found["item"]["content"][0]["transcript"] == completed["transcript"]


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        ({"type": "response.cancel"}, "response_cancel_not_active", "Cancellation failed: no active"),
        (
            {"type": "conversation.item.retrieve", "item_id": "i"},
            "item_retrieve_invalid_item_id",
            "does not exist",
        ),
        (
            {"type": "conversation.item.delete", "item_id": "i"},
            "item_delete_invalid_item_id",
            "does not exist",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1},
            "item_truncate_invalid_item_id",
            "does not exist",
        ),
        ({"type": "session.update", "session": {"voice": "alloy"}}, None, "beta"),
        (
            {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "ear"}}}}},
            None,
            "session.audio.input.turn_detection.type must be one of 'server_vad', 'semantic_vad'",
        ),
        ({"type": "response.create", "response": {"max_output_tokens": 5000}}, None, "response.max_output"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
async def test_errors_that_clients_know(
    house: House, event: dict[str, Any], code: str | None, message: str
) -> None:
    async with realtime(house.server) as talk:
        await talk.sdk.send(event)  # type: ignore[arg-type]
        error = (await talk.until("error"))["error"]
    assert error["code"] == code and message in error["message"]
