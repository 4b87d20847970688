"""The door of live transcription: who gets in, what garbage does, and what is left when somebody leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deepgram.core.api_error import ApiError
from deepgram_client import async_client, client, finals, pcm, said, streaming
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, silence, speech
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Server, make_settings, scripted
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.api import closing
from app.api.deepgram import listen as door
from app.observability.logs import configure
from app.roles import Job, Samples, SttOptions, Transcript

RAW = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16000}
KEY = {"Authorization": "Token secret"}


class SlowStt(CountingStt):
    """Takes `pause` seconds longer."""

    pause = 0.0

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        await asyncio.sleep(self.pause)
        return await super().transcribe(audio, options, job)


@pytest.fixture(scope="module")
def engines() -> dict[str, Any]:
    return {"vad": LoudVad(), "stt": SlowStt(), "llm": ScriptedLlm(), "tts": ToneTts()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, engines: dict[str, Any]) -> Iterator[Server]:
    """A server with two places, and engines that cost nothing."""
    data: Path = tmp_path_factory.mktemp("door")
    given = make_settings(data / "none", data, api_keys=["secret"], max_sessions=2)
    with scripted(given, **engines) as server:
        yield server


async def empty(server: Server) -> None:
    """Wait until nothing of any session is left."""
    context = server.app.state.context
    async with asyncio.timeout(20):
        while len(context.sessions) or context.metrics.websocket_connections_active._value.get():
            await asyncio.sleep(0.02)


async def refused(server: Server, headers: dict[str, str] | None = None, **query: Any) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as found:
        async with streaming(server, headers=KEY if headers is None else headers, **query):
            pass
    response = found.value.response
    told = json.loads(response.body or b"")
    assert told.keys() == {"err_code", "err_msg", "request_id"}
    assert response.headers["dg-request-id"] == told["request_id"]
    assert response.headers["dg-error"]
    return found.value


# --- who gets in ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {"encoding": "linear16"},
        {"encoding": "g729"},
        {"encoding": "nonsense"},
        {"encoding": "linear16", "sample_rate": "7999"},
        {"encoding": "linear16", "sample_rate": "many"},
        {"encoding": "linear16", "sample_rate": 16000, "channels": 2, "multichannel": "true"},
        {"interim_results": "perhaps"},
        {"endpointing": "soon"},
        {"endpointing": "-5"},
        {"utterance_end_ms": "x"},
        {"language": "!"},
        {"language": "fr"},
        {"callback": "https://example.org/hook"},
        {"redact": "pci"},
        {"keyterm": "x" * 500},
        {"channels": "10" * 30},
        {"model": "nova-3", "encoding": "größer\r\nX: y 😀"},
    ],
)
async def test_a_bad_query_is_an_answer_before_the_upgrade(small: Server, query: dict[str, Any]) -> None:
    error = await refused(small, **query)
    assert error.response.status_code == 400
    await empty(small)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Token wrong"}, {"Authorization": "Basic secret"}])
async def test_a_bad_key_is_an_answer_before_the_upgrade(small: Server, headers: dict[str, str]) -> None:
    assert (await refused(small, headers, **RAW)).response.status_code == 401


async def test_the_clients_say_so(small: Server) -> None:
    with (
        pytest.raises((ApiError, InvalidStatus)) as found,
        client(small, "wrong") as deepgram,
        deepgram.listen.v1.connect(**RAW),
    ):
        pass
    assert "401" in str(found.value)
    with pytest.raises((ApiError, InvalidStatus)) as found:
        async with (
            async_client(small, "secret") as deepgram,
            deepgram.listen.v1.connect(model="nova-3", encoding="speex"),
        ):
            pass
    assert "400" in str(found.value)


@pytest.mark.parametrize(
    ("headers", "offered"),
    [
        ({"Authorization": "token secret"}, None),
        ({"Authorization": "Bearer secret"}, None),
        (None, ["token", "secret"]),
        (None, ["bearer", "secret"]),
        ({"Origin": "https://elsewhere.example"}, ["token", "secret"]),
    ],
)
async def test_ways_to_show_a_key(small: Server, headers: Any, offered: Any) -> None:
    async with streaming(small, headers=headers, subprotocols=offered, **RAW) as wire:
        assert wire.socket.subprotocol == (offered[0] if offered else None)
        response = wire.socket.response
        summary = await wire.finish()
        assert response is not None and response.headers["dg-request-id"] == summary["request_id"]


async def test_a_refusal_is_no_error_of_ours(small: Server, caplog: pytest.LogCaptureFixture) -> None:
    uvicorns, ours = logging.getLogger("uvicorn.error"), logging.getLogger("app")
    before = [(named, named.level, named.propagate, named.handlers[:]) for named in (uvicorns, ours)]
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    configure("INFO", json=True)
    try:
        await refused(small, {}, **RAW)
        await asyncio.sleep(0.2)
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        for named, level, propagate, handlers in before:
            named.setLevel(level)
            named.propagate = propagate
            named.handlers[:] = handlers
    assert "/v1/listen: NOT_ALLOWED" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_full_server_says_when_to_come_back(small: Server) -> None:
    await empty(small)
    async with streaming(small, headers=KEY, **RAW) as one, streaming(small, headers=KEY, **RAW) as two:
        error = await refused(small, **RAW)
        assert error.response.status_code == 429
        assert int(error.response.headers["Retry-After"]) > 0
        assert json.loads(error.response.body or b"")["err_code"] == "TOO_MANY_REQUESTS"
        await one.finish()
        await two.finish()
    await empty(small)
    async with streaming(small, headers=KEY, **RAW) as wire:
        await wire.finish()


async def test_who_comes_while_models_load_is_told_so(tmp_path: Path, engines: dict[str, Any]) -> None:
    with scripted(make_settings(tmp_path / "none", tmp_path), **engines) as server:
        runtime = server.app.state.context.runtime
        status = runtime.status["stt"]
        before, status.state = status.state, "loading"
        assert not runtime.ready
        error = await refused(server, {}, **RAW)
        status.state = before
    assert error.response.status_code == 503 and "stt loading" in error.response.headers["dg-error"]
    assert int(error.response.headers["Retry-After"]) > 0


# --- what is sent ---------------------------------------------------------------------------------


async def test_text_that_is_no_message_is_answered_and_forgiven(small: Server) -> None:
    async with streaming(small, headers=KEY, **RAW) as wire:
        for text in ("", "{", "[1]", "null", '{"type": 7}', '{"type": "Dance"}', "[" * 60000, "x" * 200_000):
            await wire.socket.send(text)
            error = await wire.until("Error")
            assert error["variant"] == "SchemaError" and error["message"] == text[:200]
        await wire.play([pcm(speech(1.0)), pcm(silence(1.5))])
        assert (await wire.finish())["duration"] == 2.5
    assert said(wire.seen) == "one two three four"


async def test_every_finalize_is_answered_once(small: Server, engines: dict[str, Any]) -> None:
    engines["stt"].pause = 1.0
    try:
        async with streaming(small, headers=KEY, **RAW) as wire:
            await wire.play([pcm(speech(1.0))])
            for _ in range(3):  # only the first of them ends an utterance
                await wire.say("Finalize")
            for _ in range(3):
                await wire.until("Results", from_finalize=True)
            await wire.finish()
    finally:
        engines["stt"].pause = 0.0
    assert said(wire.seen) == "one two three four"
    assert [m["from_finalize"] for m in finals(wire.seen)] == [True] * 3


async def test_what_is_no_sound_is_said_and_closed(small: Server) -> None:
    for data in (b"no container at all, and no encoding was named", b"\x1aE\xdf\xa3" + bytes(5000)):
        async with streaming(small, headers=KEY, model="nova-3") as wire:
            await wire.play([data])
            await wire.say("CloseStream")
            with pytest.raises(ConnectionClosed):
                await wire.until("Metadata")
            assert wire.socket.close_code == 1008
            assert str(wire.socket.close_reason).startswith("DATA-0000")
    async with streaming(small, headers=KEY, model="nova-3", encoding="opus") as wire:
        with pytest.raises(ConnectionClosed):
            await wire.play([b"\xff" * 7] * 60)
            await wire.until("Metadata")
        assert wire.socket.close_code == 1008
    await empty(small)


TYPES = st.sampled_from(["KeepAlive", "Finalize", "Configure", "CloseStreams", "Results", 3, None])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.one_of(
    st.text(max_size=50),
    st.binary(min_size=1, max_size=3000),
    st.builds(lambda t, d: json.dumps({**d, "type": t}), TYPES, st.dictionaries(st.text(max_size=8), JUNK)),
    st.builds(lambda s: pcm(speech(s)), st.floats(0.01, 1.5)),
    st.builds(lambda s: pcm(silence(s)), st.floats(0.01, 2.0)),
)
QUERIES = st.sampled_from(
    [
        {},
        {"interim_results": "true", "vad_events": "true", "utterance_end_ms": "1000"},
        {"channels": "2", "endpointing": "10"},
        {"encoding": "linear32", "interim_results": "true"},
        {"encoding": "mulaw"},
        {"encoding": "opus"},
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=QUERIES, messages=st.lists(MESSAGES, max_size=12))
async def test_no_message_kills_a_stream(
    small: Server, query: dict[str, str], messages: list[str | bytes]
) -> None:
    """Whatever is sent, each Finalize is answered once, the stream ends with its summary, and only what
    cannot be Opus is closed otherwise."""
    flushes = 0
    async with streaming(small, headers=KEY, **{**RAW, **query}) as wire:
        for message in messages:
            await wire.socket.send(message)
            if isinstance(message, str) and '"type": "Finalize"' in message:
                flushes += 1
        await wire.finish()
    told = finals(wire.seen)
    assert sum(m["from_finalize"] for m in told) == flushes
    begun = [m["start"] for m in told]
    assert begun == sorted(begun)


async def test_who_does_not_read_is_closed_and_holds_little(
    small: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_SEND_TIMEOUT_S", 1.0)
    monkeypatch.setattr(closing, "HANG_UP_S", 0.5)
    largest = 0
    async with streaming(small, headers=KEY, **RAW) as wire:
        # Each is answered, and no answer is taken: soon the server waits, and reads no more either.
        with pytest.raises((ConnectionClosed, TimeoutError)):
            async with asyncio.timeout(60):
                while small.app.state.context.metrics.websocket_connections_active._value.get():
                    await asyncio.wait_for(wire.play(["x" * 200] * 500), 5)  # type: ignore[list-item]
                    for connection in list(small.uvicorn.server_state.connections):
                        largest = max(largest, connection.transport.get_write_buffer_size())
        await empty(small)
        assert 0 < largest < 1 << 17
        wire.socket.transport.abort()


# --- who leaves -----------------------------------------------------------------------------------


async def test_a_dropped_line_leaves_nothing(small: Server) -> None:
    for _ in range(5):
        async with streaming(small, headers=KEY, **RAW) as wire:
            await wire.play([pcm(speech(2.0))])
            wire.socket.transport.abort()
        await empty(small)
    async with streaming(small, headers=KEY) as wire:  # a container's thread ends, too
        await wire.play([b"OggS"])
        wire.socket.transport.abort()
    await empty(small)


async def test_a_recogniser_that_fails_is_seen(small: Server, engines: dict[str, Any]) -> None:
    engines["stt"].fails = True
    engines["tts"].said.clear()  # the self-check speaks
    try:
        async with streaming(small, headers=KEY, **RAW) as wire:
            await wire.play([pcm(speech(1.0)), pcm(silence(2.0))])
            assert "broken" in (await wire.until("Error"))["description"]
            engines["stt"].fails = False
            await wire.play([pcm(speech(1.0)), pcm(silence(2.0))])
            await wire.finish()
    finally:
        engines["stt"].fails = False
    assert said(wire.seen) == "one two three four"
    assert engines["llm"].asked == [] and engines["tts"].said == []


async def test_nothing_that_was_said_is_kept(small: Server) -> None:
    async with streaming(small, headers=KEY, **RAW) as wire:
        await wire.play([pcm(speech(1.0)), pcm(silence(2.0))])
        await wire.finish()
    await empty(small)
    data = small.settings.data_dir
    assert not [p for p in (data / "objects").rglob("*") if p.is_file()]
    owner = small.app.state.context.access.owner({"authorization": "Token secret"})
    kept = small.app.state.context.conversations.sessions(owner, 10, 0)
    assert await kept == []


async def test_a_server_that_stops_says_so(
    tmp_path: Path, engines: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with scripted(make_settings(tmp_path / "none", tmp_path), **engines) as server:
        async with streaming(server, **RAW) as wire:
            await wire.play([pcm(speech(1.0))])
            await asyncio.sleep(0.3)
            server.uvicorn.should_exit = True
            with pytest.raises(ConnectionClosed):
                await wire.until("Metadata")
            assert wire.socket.close_code == 1012
        while not server.uvicorn.lifespan.shutdown_event.is_set():
            await asyncio.sleep(0.05)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
