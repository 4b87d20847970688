"""What every client of hosted streaming recognition does, against servers of the providers' protocols with a
real recogniser behind them; Deepgram's client also against our own `/v1/listen` with all models."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients.streaming.deepgram_server import deepgram_server
from clients.streaming.hearing import KEY, Behaviour
from clients.streaming.soniox_server import soniox_server
from clients.streaming.speechmatics_server import speechmatics_server
from dialogue.scripted import CountingStt
from serving import Server

import corpus
from app.clients.streaming.deepgram import Deepgram
from app.clients.streaming.soniox import Soniox
from app.clients.streaming.speechmatics import Speechmatics
from app.engines.moonshine import Moonshine
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, Job, Samples, SpeechToText, SttOptions
from app.roles.streaming import Heard, StreamDead, StreamingStt, SttStream

PROVIDERS: dict[str, tuple[Any, Any, str]] = {
    "deepgram": (deepgram_server, Deepgram, "nova-3"),
    "soniox": (soniox_server, Soniox, "stt-rt-v5"),
    "speechmatics": (speechmatics_server, Speechmatics, "enhanced"),
}
EVERY = pytest.mark.parametrize("name", PROVIDERS)
SHORT_S = 0.6
"""A time limit for providers that say nothing."""


@pytest.fixture(scope="module")
def engine(model_dir: Callable[[str], Path]) -> Iterator[SpeechToText]:
    """What hears in the providers."""
    pool = Workers(1)
    yield Moonshine(model_dir("moonshine-tiny-en"), pool, threads=1)
    pool.close()


@contextlib.asynccontextmanager
async def provider(
    name: str, engine: SpeechToText, behaviour: Behaviour | None = None, **changes: Any
) -> AsyncIterator[StreamingStt]:
    """A client of a running provider. Behind it no task is left."""
    serve, client, model = PROVIDERS[name]
    before = asyncio.all_tasks()
    async with serve(engine, behaviour or Behaviour()) as url:
        stt = client(**({"api_key": KEY, "base_url": url, "model": model, "timeout_s": 20.0} | changes))
        try:
            yield stt
        finally:
            await stt.close()
            await stt.close()
    assert asyncio.all_tasks() == before


@contextlib.asynccontextmanager
async def opened(stt: StreamingStt, options: SttOptions | None = None) -> AsyncIterator[SttStream]:
    stream = await stt.open(options or SttOptions("en"), Job("test"))
    try:
        yield stream
    finally:
        async with asyncio.timeout(20):
            await stream.close()


def recording(name: str) -> tuple[Samples, str]:
    found = {r.id: r for r in corpus.recordings()}[name]
    return corpus.load(found), found.text


async def play(stream: SttStream, sound: Samples) -> None:
    for at in range(0, len(sound), 1600):
        await stream.send(sound[at : at + 1600])


async def all_of(stream: SttStream) -> list[Heard]:
    async with asyncio.timeout(60):
        return [heard async for heard in stream]


def said(told: list[Heard]) -> str:
    return " ".join(word.text for heard in told if heard.final for word in heard.words)


def lawful(told: list[Heard], sent_s: float) -> None:
    """What is final follows what was final before, and nothing is told of sound that was not sent."""
    reached = 0.0
    for heard in told:
        assert heard.start == reached and heard.end <= sent_s + 0.1
        assert heard.final or not heard.finalized
        starts = [word.start for word in heard.words]
        assert starts == sorted(starts)
        for word in heard.words:
            assert reached - 0.1 <= word.start <= word.end <= heard.end + 0.1
            assert 0 <= word.confidence <= 1 and word.text == word.text.strip() != ""
        if heard.final:
            reached = heard.end


async def hear(stt: StreamingStt) -> list[Heard]:
    """Two sentences with a pause between, in which the words so far are asked for. Gives what is told up to
    the answer."""
    first, first_text = recording("austen-930")
    second, second_text = recording("cities-1")
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    async with opened(stt) as stream:
        hearing = asyncio.create_task(all_of(stream))
        await play(stream, np.concatenate([first, pause]))
        await stream.finalize()
        await stream.keep_alive()
        await play(stream, np.concatenate([pause, second, pause]))
        await stream.keep_alive()
        await stream.finish()
        told = await hearing
    assert sum(heard.finalized for heard in told) == 1
    answer = next(i for i, heard in enumerate(told) if heard.finalized)
    assert corpus.wer(first_text, said(told[: answer + 1])) < 0.3
    assert corpus.wer([first_text, second_text], [said(told[: answer + 1]), said(told[answer + 1 :])]) < 0.25
    lawful(told, (len(first) + len(second) + 3 * len(pause)) / SAMPLE_RATE)
    last = [word for heard in told if heard.final for word in heard.words][-1]
    assert last.end > told[answer].end + 0.7 * len(second) / SAMPLE_RATE
    assert told[answer].end == pytest.approx((len(first) + len(pause)) / SAMPLE_RATE, abs=1.2)
    return told[: answer + 1]


@EVERY
async def test_what_is_said_is_heard_once_and_in_order(name: str, engine: SpeechToText) -> None:
    behaviour = Behaviour()
    async with provider(name, engine, behaviour) as stt:
        assert any(not heard.final and heard.words for heard in await hear(stt))
        assert stt.info.name == name and stt.info.model
    assert behaviour.streams == 1
    assert behaviour.heard_s == pytest.approx(
        1.5 + sum(len(recording(r)[0]) for r in ("austen-930", "cities-1")) / SAMPLE_RATE, abs=0.01
    )


async def test_our_own_door_is_a_provider(server: Server) -> None:
    stt = Deepgram("unused", base_url=server.url, model="nova-3", timeout_s=30)
    await hear(stt)
    await stt.close()


@EVERY
async def test_long_speech_becomes_final_on_the_way(name: str, engine: SpeechToText) -> None:
    names = ("austen-920", "austen-930", "cities-1")
    sounds, texts = zip(*(recording(r) for r in names), strict=True)
    async with provider(name, engine) as stt, opened(stt) as stream:
        hearing = asyncio.create_task(all_of(stream))
        await play(stream, np.concatenate(sounds))
        await stream.finish()
        told = await hearing
    sent_s = sum(map(len, sounds)) / SAMPLE_RATE
    lawful(told, sent_s)
    assert any(heard.final and heard.words and heard.end < sent_s - 3 for heard in told)
    assert corpus.wer(" ".join(texts), said(told)) < 0.35


@EVERY
@pytest.mark.parametrize("answers", [True, False])
async def test_a_finalize_is_answered_though_nothing_was_said(name: str, answers: bool) -> None:
    """Deepgram and Speechmatics may leave it unanswered."""
    behaviour = Behaviour(answers_finalize=answers)
    told: list[Heard] = []

    async def listen() -> None:
        async for heard in stream:
            told.append(heard)

    async with provider(name, CountingStt(), behaviour) as stt, opened(stt) as stream:
        hearing = asyncio.create_task(listen())
        await stream.finalize()
        await stream.send(np.zeros(0, np.float32))
        await play(stream, np.zeros(SAMPLE_RATE // 4, np.float32))
        await stream.finalize()
        async with asyncio.timeout(20):
            while sum(heard.finalized for heard in told) < 2:
                await asyncio.sleep(0.02)
        await stream.finish()
        await hearing
    assert [heard.words for heard in told if heard.finalized] == [(), ()]
    lawful(told, 0.25)


@EVERY
async def test_nothing_sent_is_nothing_heard(name: str) -> None:
    async with provider(name, CountingStt()) as stt, opened(stt) as stream:
        await stream.finish()
        assert said(await all_of(stream)) == ""


@EVERY
async def test_what_is_asked_for_reaches_the_provider(name: str) -> None:
    behaviour = Behaviour()
    options = SttOptions("en", ("Dashwood", "Fanny Price"))
    async with provider(name, CountingStt(), behaviour) as stt, opened(stt, options):
        pass
    [asked] = behaviour.asked
    match name:
        case "deepgram":
            assert asked["language"] == ["en"] and asked["keyterm"] == ["Dashwood", "Fanny Price"]
            assert asked["model"] == ["nova-3"] and "keywords" not in asked
        case "soniox":
            assert asked["language_hints"] == ["en"]
            assert asked["context"]["terms"] == ["Dashwood", "Fanny Price"]
        case _:
            config = asked["transcription_config"]
            assert config["language"] == "en"
            assert config["additional_vocab"] == [{"content": "Dashwood"}, {"content": "Fanny Price"}]


@pytest.mark.parametrize(("language", "told"), [(None, "en"), ("en", None)])
async def test_a_language_is_detected_where_none_is_given(
    engine: SpeechToText, language: str | None, told: str | None
) -> None:
    sound, _ = recording("prompt-hello")
    async with provider("soniox", engine) as stt, opened(stt, SttOptions(language)) as stream:
        await play(stream, sound)
        await stream.finish()
        assert {heard.language for heard in await all_of(stream) if heard.final and heard.words} == {told}


async def test_speechmatics_says_that_it_must_know_the_language() -> None:
    async with provider("speechmatics", CountingStt()) as stt:
        with pytest.raises(StreamDead, match="melia-1") as caught:
            await stt.open(SttOptions(None), Job())
        assert (caught.value.outcome, caught.value.retryable) == ("config_error", False)


@EVERY
async def test_several_streams_do_not_meet(name: str, engine: SpeechToText) -> None:
    names = ("austen-930", "cities-1", "prompt-hello")

    async def one(stt: StreamingStt, recorded: str) -> float:
        sound, text = recording(recorded)
        async with opened(stt) as stream:
            await play(stream, sound)
            await stream.finish()
            return corpus.wer(text, said(await all_of(stream)))

    async with provider(name, engine) as stt:
        assert max(await asyncio.gather(*(one(stt, recorded) for recorded in names))) < 0.4


# --- leaving --------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(
    ("moment", "trouble"),
    [*((m, "") for m in "open sound finalize finish over".split()), ("sound", "hang"), ("finish", "hang")],
)
async def test_leaving_at_any_moment(name: str, moment: str, trouble: Any) -> None:
    """Also from a provider that answers nothing any more. `provider` sees that no task is left."""
    behaviour = Behaviour(trouble=trouble, after_s=0.5)
    async with provider(name, CountingStt(), behaviour) as stt:
        stream = await stt.open(SttOptions("en"), Job())
        hearing = asyncio.create_task(all_of(stream))
        if moment != "open":
            await play(stream, np.ones(SAMPLE_RATE, np.float32) / 4)
        if moment == "finalize":
            await stream.finalize()
        if moment in ("finish", "over"):
            await stream.finish()
        if moment == "over":
            await hearing
        async with asyncio.timeout(20):
            await stream.close()
            await stream.close()
            await hearing  # who iterates is let go


@EVERY
async def test_leaving_while_it_opens(name: str) -> None:
    async with provider(name, CountingStt(), Behaviour(hang_open=True)) as stt:
        opening = asyncio.create_task(stt.open(SttOptions("en"), Job()))
        await asyncio.sleep(0.3)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


# --- failing --------------------------------------------------------------------------------------

ERRORS: dict[str, list[tuple[dict[str, Any], str, bool]]] = {
    "deepgram": [({"description": "out of order"}, "upstream_error", True)],
    "soniox": [
        ({"error_code": 401, "error_message": "Invalid API key."}, "config_error", False),
        ({"error_code": 402, "error_message": "Organization balance exhausted."}, "config_error", False),
        ({"error_code": 400, "error_message": "Invalid model specified."}, "config_error", False),
        ({"error_code": 400, "error_message": "Audio decode error"}, "invalid_input", False),
        ({"error_code": 400, "error_message": "Audio is too long."}, "upstream_error", True),
        ({"error_code": 408, "error_message": "Audio data decode timeout"}, "timeout", True),
        ({"error_code": 429, "error_message": "Rate limit exceeded."}, "upstream_error", True),
        ({"error_code": 503, "error_message": "Cannot continue request (code 1)."}, "upstream_error", True),
    ],
    "speechmatics": [
        ({"type": "not_authorised", "reason": "no"}, "config_error", False),
        ({"type": "timelimit_exceeded", "reason": "no"}, "config_error", False),
        ({"type": "data_error", "reason": "no"}, "invalid_input", False),
        ({"type": "idle_timeout", "reason": "no"}, "timeout", True),
        ({"type": "quota_exceeded", "reason": "no"}, "upstream_error", True),
        ({"type": "job_error", "reason": "no"}, "upstream_error", True),
    ],
}


async def dying(stream: SttStream) -> StreamDead:
    """How a stream ends to which sound is sent until it does; who sends is told as who iterates is."""
    hearing = asyncio.create_task(all_of(stream))
    with pytest.raises(StreamDead) as sending:
        async with asyncio.timeout(30):
            while True:
                await stream.send(np.ones(3200, np.float32) / 4)
                await asyncio.sleep(0.02)
    with pytest.raises(StreamDead) as iterating:
        await hearing
    for caught in (sending.value, iterating.value):
        assert KEY not in "".join(traceback.format_exception(caught))
    assert (sending.value.outcome, sending.value.message) == (
        iterating.value.outcome,
        iterating.value.message,
    )
    return iterating.value


@pytest.mark.parametrize(
    ("name", "error", "outcome", "retryable"),
    [(name, *row) for name, rows in ERRORS.items() for row in rows],
)
async def test_an_error_has_its_outcome(
    name: str, error: dict[str, Any], outcome: str, retryable: bool
) -> None:
    # A provider may repeat what it was sent.
    error = {
        k: f"{v} {KEY}" if k in ("description", "error_message", "reason") else v for k, v in error.items()
    }
    behaviour = Behaviour(trouble="error", error=error, after_s=0.5)
    async with provider(name, CountingStt(), behaviour) as stt, opened(stt) as stream:
        dead = await dying(stream)
    assert (dead.outcome, dead.retryable) == (outcome, retryable)


@EVERY
@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [("drop", "upstream_error"), ("close", "upstream_error"), ("nonsense", "upstream_error")],
)
async def test_a_break_has_its_outcome(name: str, trouble: Any, outcome: str) -> None:
    behaviour = Behaviour(trouble=trouble, after_s=0.5)
    async with provider(name, CountingStt(), behaviour) as stt, opened(stt) as stream:
        dead = await dying(stream)
    assert (dead.outcome, dead.retryable) == (outcome, True)


@pytest.mark.parametrize(
    ("closing", "outcome"),
    [
        ((1008, "DATA-0000: could not be decoded"), "invalid_input"),
        ((1011, "NET-0000"), "upstream_error"),
        ((1000, ""), "upstream_error"),
    ],
)
async def test_deepgram_says_why_in_its_close(closing: tuple[int, str], outcome: str) -> None:
    behaviour = Behaviour(trouble="close", closing=closing, after_s=0.5)
    async with provider("deepgram", CountingStt(), behaviour) as stt, opened(stt) as stream:
        dead = await dying(stream)
    assert dead.outcome == outcome and closing[1] in dead.message


@EVERY
@pytest.mark.parametrize("at", ["finalize", "finish", "sound"])
async def test_silence_has_an_end(name: str, at: Any) -> None:
    """Deepgram's protocol owes no answer to sound alone."""
    behaviour = Behaviour(trouble="hang", at=at, after_s=0.5)
    async with provider(name, CountingStt(), behaviour) as stt, opened(stt) as stream:
        stream._told._timeout_s = SHORT_S  # type: ignore[attr-defined]  # opening has the time that it needs
        if at == "sound" and name != "deepgram":
            dead = await dying(stream)
        else:
            await play(stream, np.ones(SAMPLE_RATE, np.float32) / 4)
            await (stream.finish() if at == "finish" else stream.finalize())
            with pytest.raises(StreamDead) as caught:
                await all_of(stream)
            dead = caught.value
    assert (dead.outcome, dead.retryable) == ("timeout", True)


OPENING: list[tuple[str, Behaviour, dict[str, Any], str, str]] = [
    (name, behaviour, changes, outcome, match)
    for name in PROVIDERS
    for behaviour, changes, outcome, match in (
        (Behaviour(), {"api_key": "wrong-key"}, "config_error", f"{name.upper()}_API_KEY"),
        (Behaviour(refuse=400), {}, "config_error", f"{name.upper()}_MODEL"),
        (Behaviour(refuse=429), {}, "upstream_error", "no more streams"),
        (Behaviour(refuse=503), {}, "upstream_error", "HTTP 503"),
        (Behaviour(hang_open=True), {"timeout_s": SHORT_S}, "timeout", "in time"),
        (Behaviour(), {"base_url": "ws://127.0.0.1:9"}, "upstream_error", f"{name.upper()}_BASE_URL"),
        (Behaviour(), {"base_url": "nonsense"}, "config_error", f"{name.upper()}_BASE_URL"),
    )
] + [
    ("soniox", Behaviour(), {"model": "whisper"}, "config_error", "Invalid model"),
    ("speechmatics", Behaviour(), {"model": "whisper"}, "config_error", "invalid_model"),
    ("speechmatics", Behaviour(trouble="hang", at="start"), {"timeout_s": SHORT_S}, "timeout", "in time"),
    ("speechmatics", Behaviour(trouble="drop", at="start"), {}, "upstream_error", "Speechmatics"),
]


@pytest.mark.parametrize(("name", "behaviour", "changes", "outcome", "match"), OPENING)
async def test_what_is_not_opened_says_why(
    name: str,
    behaviour: Behaviour,
    changes: dict[str, Any],
    outcome: str,
    match: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.clients.streaming.soniox._ACCEPT_S", 20)
    async with provider(name, CountingStt(), behaviour, **changes) as stt:
        async with asyncio.timeout(30):
            with pytest.raises(StreamDead, match=match) as caught:
                await stt.open(SttOptions("en"), Job())
    dead = caught.value
    assert (dead.outcome, dead.retryable) == (outcome, outcome != "config_error")
    assert changes.get("api_key", KEY) not in "".join(traceback.format_exception(dead))


@pytest.mark.parametrize("name", ["soniox", "speechmatics"])
async def test_a_language_that_is_not_known_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.clients.streaming.soniox._ACCEPT_S", 20)
    async with provider(name, CountingStt()) as stt:
        for language in ("xx", "xxx"):
            with pytest.raises(StreamDead, match="language") as caught:
                await stt.open(SttOptions(language), Job())
            assert (caught.value.outcome, caught.value.retryable) == ("config_error", False)
