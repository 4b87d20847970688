"""Live transcription with Deepgram's client, and with a bare socket where the messages matter."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from deepgram.core.events import EventType
from deepgram_client import (
    async_client,
    at_rate,
    client,
    container,
    cut,
    finals,
    lawful,
    pcm,
    recording,
    said,
    streaming,
    strict,
    text_of,
    words_of,
)
from serving import Server

import corpus
from app.api.deepgram import listen as door
from app.audio.codecs import encoder

RAW = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16000}


@pytest.fixture(autouse=True)
def _calm(server: Server) -> None:
    """What a test before this one has left to do is done: nobody is refused for it."""
    deadline = time.monotonic() + 60
    while server.app.state.context.runtime.overloaded() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_the_sync_client_follows_a_voice_in_real_time(server: Server) -> None:
    sound = recording("austen-920", gap=1.0)
    seen: list[dict[str, Any]] = []
    opened, closed = threading.Event(), threading.Event()

    def message(parsed: Any) -> None:
        strict(parsed.dict())
        seen.append(parsed.dict())

    options = {"interim_results": True, "vad_events": True, "utterance_end_ms": 1000, "smart_format": True}
    with client(server) as deepgram, deepgram.listen.v1.connect(**RAW, **options) as socket:
        socket.on(EventType.OPEN, lambda _: opened.set())
        socket.on(EventType.MESSAGE, message)
        socket.on(EventType.CLOSE, lambda _: closed.set())
        listening = threading.Thread(target=socket.start_listening, daemon=True)
        listening.start()
        began = time.monotonic()
        for i, packet in enumerate(cut(pcm(sound), 640)):
            socket.send_media(packet)
            time.sleep(max(0.0, began + (i + 1) * 0.02 - time.monotonic()))
        socket.send_close_stream()
        listening.join(30)
    assert opened.is_set() and closed.is_set()
    assert corpus.wer(text_of("austen-920"), said(seen)) < 0.15
    lawful(seen)
    kinds = [m["type"] for m in seen]
    assert kinds[0] == "SpeechStarted" and kinds[-1] == "Metadata"
    assert seen[0]["timestamp"] == pytest.approx(1.35, abs=0.3)
    results = [m for m in seen if m["type"] == "Results"]
    assert len([m for m in results if not m["is_final"]]) > 5
    assert results[-1]["speech_final"]
    [end] = [m for m in seen if m["type"] == "UtteranceEnd"]
    assert end["last_word_end"] == words_of(seen)[-1]["end"]
    assert seen[-1]["duration"] == pytest.approx(len(sound) / 16000, abs=0.01)
    assert results[-1]["metadata"]["request_id"] == seen[-1]["request_id"]
    assert results[-1]["metadata"]["model_info"]["name"] == "nova-3"


async def test_the_async_client_sends_faster_than_anybody_speaks(server: Server) -> None:
    names = "austen-930", "cities-1", "prompt-hello"
    sound = recording(*names, gap=2.0)
    seen: list[dict[str, Any]] = []
    options = {"interim_results": "true", "utterance_end_ms": "1000"}
    async with async_client(server) as deepgram, deepgram.listen.v1.connect(**RAW, **options) as socket:
        for packet in cut(pcm(sound), 16000):
            await socket.send_media(packet)
        await socket.send_close_stream()
        async for parsed in socket:
            strict(parsed.dict())
            seen.append(parsed.dict())
    assert corpus.wer(text_of(*names), said(seen)) < 0.15
    lawful(seen)
    # The words are where they were said.
    begin = 0.0
    found = {r.id: r for r in corpus.recordings()}
    words = words_of(seen)
    for name in names:
        begin += 2.0
        end = begin + found[name].seconds
        within = [w["punctuated_word"] for w in words if begin - 0.2 <= w["start"] and w["end"] <= end + 0.2]
        assert corpus.wer(text_of(name), " ".join(within)) < 0.3
        begin = end
    # Each ends by itself: two seconds are more than one.
    ends = [m["last_word_end"] for m in seen if m["type"] == "UtteranceEnd"]
    spoken = [m["channel"]["alternatives"][0]["words"] for m in finals(seen) if m["speech_final"]]
    assert ends == [words[-1]["end"] for words in spoken if words]
    assert len(ends) >= len(names)


async def test_a_long_voice_is_final_by_and_by(server: Server) -> None:
    async with streaming(server, **RAW, interim_results="true", endpointing=2000) as wire:
        await wire.play(cut(pcm(recording("cities")), 3200), pause=0.02)
        summary = await wire.finish()
    assert corpus.wer(text_of("cities"), said(wire.seen)) < 0.15
    lawful(wire.seen)
    parts = finals(wire.seen)
    assert len([m for m in parts if not m["speech_final"]]) >= 2
    assert parts[-1]["speech_final"]
    assert summary["duration"] == pytest.approx(45.9, abs=0.2)


async def test_results_are_in_order_however_fast_sound_comes(server: Server) -> None:
    """Chunks of a long utterance may be done before the short ones ahead of it."""
    names = "austen-880", "cities-8", "austen-890", "austen-920"
    found = {r.id: r for r in corpus.recordings()}
    async with streaming(server, **RAW, interim_results="true") as wire:
        await wire.play([pcm(recording(*names, gap=1.0))])
        await wire.finish()
    assert corpus.wer(text_of(*names), said(wire.seen)) < 0.15
    lawful(wire.seen)
    last = words_of(wire.seen)[-1]
    assert last["end"] == pytest.approx(4 + sum(found[n].seconds for n in names), abs=0.6)


async def test_what_was_said_by_now_is_told_when_asked_for(server: Server) -> None:
    sound = pcm(recording("austen-920", tail=0.0))
    half = len(sound) // 2
    async with streaming(server, **RAW, vad_events="true") as wire:
        await wire.say("Finalize")  # nothing was said: that is told, too
        nothing = await wire.until("Results")
        assert (nothing["from_finalize"], nothing["is_final"], nothing["speech_final"]) == (True, True, False)
        assert nothing["channel"]["alternatives"][0]["transcript"] == ""
        await wire.play(cut(sound[:half], 3200))
        await wire.say("Finalize")
        flushed = await wire.until("Results", from_finalize=True)
        assert flushed["is_final"] and "amiable" in flushed["channel"]["alternatives"][0]["transcript"]
        await wire.play(cut(sound[half:], 3200))
        await wire.finish()
    assert corpus.wer(text_of("austen-920"), said(wire.seen)) < 0.3
    lawful(wire.seen)
    assert [m["from_finalize"] for m in finals(wire.seen)] == [True, True, False]


async def test_finalize_waits_for_what_has_ended_already(server: Server) -> None:
    async with streaming(server, **RAW) as wire:
        await wire.play(cut(pcm(recording("austen-930", tail=1.5)), 32000))
        await wire.say("Finalize")
        answer = await wire.until("Results", from_finalize=True)
        assert corpus.wer(text_of("austen-930"), said(wire.seen)) < 0.15
        assert wire.seen[-1] is answer
        await wire.finish()


async def test_keep_alive_keeps_a_silent_stream(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_IDLE_S", 1.0)
    async with streaming(server, **RAW) as wire:
        for _ in range(8):
            await wire.say("KeepAlive")
            await asyncio.sleep(0.4)
        assert (await wire.finish())["duration"] == 0
    async with streaming(server, **RAW) as wire:
        await asyncio.wait_for(wire.socket.wait_closed(), 10)
        assert wire.socket.close_code == 1011
        assert str(wire.socket.close_reason).startswith("NET-0001")


async def test_an_empty_message_ends_a_stream(server: Server) -> None:
    async with streaming(server, **RAW) as wire:
        await wire.play(cut(pcm(recording("prompt-hello", tail=0.0)), 3200))
        await wire.socket.send(b"")
        await wire.until("Metadata")
    assert "hello" in said(wire.seen).lower()


def packets(codec: str, rate: int) -> list[bytes]:
    voice = encoder(codec, 16000, rate)
    sound = recording("austen-920", tail=0.0)
    chunks = [c.data for at in range(0, len(sound), 320) for c in voice.encode(sound[at : at + 320])]
    return chunks + [c.data for c in voice.flush()]


def stereo(sound: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    return pcm(np.repeat(sound, 2) * np.tile(np.array([1.0, 0.6], np.float32), len(sound)))


@pytest.mark.parametrize(
    ("query", "make"),
    [
        ({"encoding": "linear16", "sample_rate": 48000}, lambda s: [pcm(at_rate(s, 48000))]),
        ({"encoding": "linear16", "sample_rate": 22050}, lambda s: cut(pcm(at_rate(s, 22050)), 333)),
        ({"encoding": "linear16", "sample_rate": 16000, "channels": 2}, lambda s: cut(stereo(s), 1001)),
        (
            {"encoding": "linear32", "sample_rate": 44100},
            lambda s: cut(at_rate(s, 44100).astype("<f4").tobytes(), 4097),
        ),
        ({"encoding": "mulaw", "sample_rate": 8000}, lambda s: packets("mulaw", 8000)),
        ({"encoding": "mulaw"}, lambda s: packets("mulaw", 8000)),
        ({"encoding": "alaw", "sample_rate": 8000}, lambda s: packets("alaw", 8000)),
        ({"encoding": "opus", "sample_rate": 48000}, lambda s: packets("opus", 48000)),
        ({"encoding": "opus"}, lambda s: cut(container(s, "ogg", "libopus"), 900)),
        ({"encoding": "ogg-opus"}, lambda s: cut(container(s, "ogg", "libopus"), 900)),
        ({}, lambda s: cut(container(s, "webm", "libopus"), 900)),
        ({}, lambda s: cut(container(s, "wav", "pcm_s16le"), 9000)),
        ({"encoding": "flac"}, lambda s: cut(container(s, "flac", "flac", 16000), 9000)),
        ({}, lambda s: [container(s, "mp3", "mp3", 44100)]),
    ],
    ids=("48k 22k stereo floats mulaw mulaw-8k alaw opus opus-in-ogg ogg-opus webm wav flac mp3".split()),
)
async def test_every_encoding_is_understood(server: Server, query: dict[str, Any], make: Any) -> None:
    sound = recording("austen-920", tail=0.0)
    async with streaming(server, model="nova-2", **query) as wire:
        await wire.play(make(sound))
        summary = await wire.finish()
    assert corpus.wer(text_of("austen-920"), said(wire.seen)) < 0.3
    assert summary["duration"] == pytest.approx(len(sound) / 16000, abs=0.12)


async def test_a_browser_is_heard_while_it_records(server: Server) -> None:
    """Words come before the recording ends, although its container says nothing of its length."""
    data = container(recording("austen-920", tail=0.5), "webm", "libopus")
    async with streaming(server, interim_results="true", subprotocols=["token", "any"]) as wire:
        assert wire.socket.subprotocol == "token"
        playing = asyncio.create_task(wire.play(cut(data, len(data) // 26 + 1), pause=0.25))
        first = await wire.until("Results")
        assert not playing.done() and not first["is_final"]
        await playing
        await wire.finish()
    assert corpus.wer(text_of("austen-920"), said(wire.seen)) < 0.15


@pytest.mark.parametrize(
    ("query", "look"),
    [
        ({"punctuate": "false"}, lambda m: m["transcript"] == m["transcript"].lower()),
        ({"punctuate": "false"}, lambda m: all("punctuated_word" not in w for w in m["words"])),
        ({}, lambda m: m["transcript"].endswith(".")),
        ({"diarize": "true"}, lambda m: {w["speaker"] for w in m["words"]} == {0}),
        ({"diarize_model": "latest"}, lambda m: {w["speaker"] for w in m["words"]} == {0}),
        ({}, lambda m: all("speaker" not in w for w in m["words"])),
    ],
)
async def test_words_are_written_as_asked_for(server: Server, query: dict[str, Any], look: Any) -> None:
    async with streaming(server, **RAW, **query) as wire:
        await wire.play([pcm(recording("austen-930", tail=0.0))])
        await wire.finish()
    told = [m["channel"]["alternatives"][0] for m in finals(wire.seen)]
    assert any(alternative["words"] for alternative in told)
    assert all(look(alternative) for alternative in told if alternative["words"])


async def test_no_endpoint_is_told_to_whom_wants_none(server: Server) -> None:
    sound = recording("austen-930", "cities-1", gap=1.0)
    async with streaming(server, **RAW, endpointing="false") as wire:
        await wire.play(cut(pcm(sound), 32000))
        await wire.finish()
    assert not any(m["speech_final"] for m in finals(wire.seen))
    assert corpus.wer(text_of("austen-930", "cities-1"), said(wire.seen)) < 0.15


async def test_key_terms_can_change_on_the_way(server: Server) -> None:
    async with streaming(server, **RAW, keyterm=["amiable woman"], keywords=["snuffle:2"]) as wire:
        await wire.say("Configure", keyterms=["Fanny Dashwood"])
        told = await wire.until("ConfigureSuccess")
        assert told["keyterms"] == ["Fanny Dashwood"]
        await wire.say("Configure", keyterms="no list")
        assert (await wire.until("Error"))["variant"] == "SchemaError"
        await wire.play([pcm(recording("austen-920", tail=0.0))])
        await wire.finish()
    assert corpus.wer(text_of("austen-920"), said(wire.seen)) < 0.3
