"""The session WebSocket against a running server with real models."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import wave
from typing import Any

import httpx
import numpy as np
import pytest
import soxr
from serving import Server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from wire_client import Wire, join, new_session, talking

import corpus

AUSTEN = "had he married a more amiable woman he might have been made still more respectable than he was"


def recording(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A recording of a person and the silence after it."""
    [found] = [r for r in corpus.recordings() if r.id == name]
    return np.concatenate([corpus.load(found), np.zeros(24000, np.float32)])


async def hear_again(server: Server, sound: bytes, rate: int) -> str:
    """What the server's own recogniser understands of its reply."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(sound)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        response = await http.post("/stt", files={"file": ("reply.wav", file.getvalue())})
        assert response.status_code == 200, response.text
        return str(response.json()["text"])


async def test_a_spoken_question_is_heard_and_answered_in_voice(server: Server) -> None:
    async with talking(server.url, audio_out={"binary": True}) as wire:
        await wire.play(recording("austen-920"), pace=1)
        final = await wire.until("transcription_final")
        assert (
            corpus.wer(
                AUSTEN,
                final["text"],
            )
            < 0.15
        )
        done = await wire.until("turn_complete")
    spoken = await hear_again(server, b"".join(wire.sound), 24000)
    assert corpus.wer(done["reply"], spoken) < 0.35
    kinds = [m["type"] for m in wire.seen]
    for earlier, later in itertools.pairwise(
        (
            "session_ready",
            "speech_started",
            "transcription_partial",
            "speech_stopped",
            "transcription_final",
            "llm_token",
            "audio_chunk",
            "turn_complete",
        )
    ):
        assert kinds.index(earlier) < kinds.index(later)
    kept = [m["seq"] for m in wire.seen if m["type"] not in ("session_ready", "loading", "ping", "pong")]
    assert kept == list(range(1, len(kept) + 1))
    partials = [m for m in wire.seen if m["type"] == "transcription_partial"]
    assert len(partials) > 5
    for earlier, later in itertools.pairwise([*(p["committed"] for p in partials), final["text"]]):
        assert later.startswith(earlier)
    assert all(p["text"].startswith(p["committed"]) for p in partials)
    assert [w["text"] for w in final["words"]] == final["text"].split()
    chunks = [m for m in wire.seen if m["type"] == "audio_chunk"]
    assert sum(m["duration_ms"] for m in chunks) == pytest.approx(done["audio_ms"], abs=2)
    assert sum(len(b) for b in wire.sound) / 48 == pytest.approx(done["audio_ms"], abs=2)
    assert chunks[-1]["last"]


async def test_a_typed_question_in_json_audio_is_kept_and_read_back(server: Server) -> None:
    async with talking(server.url) as wire:
        await wire.send("text", text="What is the capital of France?")
        done = await wire.until("turn_complete")
        assert "Paris" in done["reply"]
        pcm = b"".join(base64.b64decode(m["data"]) for m in wire.seen if m["type"] == "audio_chunk")
        assert len(pcm) / 48 == pytest.approx(done["audio_ms"], abs=2)
        ready = wire.seen[0]
        async with httpx.AsyncClient(base_url=server.url) as http:
            for _ in range(50):
                turns = (await http.get(f"/api/v1/sessions/{ready['session_id']}/turns")).json()
                if turns:
                    break
                await asyncio.sleep(0.1)
            session = (await http.get(f"/api/v1/sessions/{ready['session_id']}")).json()
    assert [(t["number"], t["source"], t["transcript"]) for t in turns] == [
        (1, "text", "What is the capital of France?")
    ]
    assert turns[0]["reply"] == done["reply"]
    assert session["state"] == "listening"


async def test_a_reply_whole_instead_of_streamed(server: Server) -> None:
    async with talking(server.url) as wire:
        await wire.send("text", text="Say hello to Bob.", streaming=False)
        done = await wire.until("turn_complete")
    tokens = [m["token"] for m in wire.seen if m["type"] == "llm_token"]
    assert len(tokens) == 1 and tokens[0].strip() == done["reply"]


@pytest.mark.parametrize(
    ("codec", "rate"), [("pcm16", 48000), ("pcm16", 8000), ("mulaw", 8000), ("pcm8", 16000), ("opus", 48000)]
)
async def test_sound_in_every_codec_is_understood(server: Server, codec: str, rate: int) -> None:
    from app.audio.codecs import encoder

    sound = recording("austen-920")
    speaker = encoder(codec, 16000, rate)
    packets = [c.data for i in range(0, len(sound), 320) for c in speaker.encode(sound[i : i + 320])]
    packets += [c.data for c in speaker.flush()]
    settings = {"audio_in": {"codec": codec, "sample_rate": rate}}
    async with talking(server.url, turn_detection={"mode": "manual"}, **settings) as wire:
        for packet in packets:
            await wire.socket.send(packet)
        await wire.send("commit")
        final = await wire.until("transcription_final")
        assert (
            corpus.wer(
                AUSTEN,
                final["text"],
            )
            < 0.3
        )
        await wire.send("interrupt")


async def test_the_reply_as_opus_packets_decodes_to_the_reply(server: Server) -> None:
    from app.audio.codecs import decoder

    out = {"codec": "opus", "sample_rate": 24000, "binary": True}
    async with talking(server.url, audio_out=out) as wire:
        await wire.send("text", text="What is the capital of France?")
        done = await wire.until("turn_complete")
    assert sum(m["frames"] for m in wire.seen if m["type"] == "audio_chunk") == len(wire.sound)
    listener = decoder("opus", 24000)
    sound = np.concatenate([listener.decode(p) for p in wire.sound])
    assert len(sound) / 16 == pytest.approx(done["audio_ms"], abs=60)
    wide = soxr.resample(sound, 16000, 24000)
    spoken = await hear_again(server, (wide.clip(-1, 1) * 32767).astype("<i2").tobytes(), 24000)
    assert "paris" in spoken.lower()


async def test_interrupting_stops_the_sound_and_the_next_turn_is_clean(server: Server) -> None:
    async with talking(server.url) as wire:
        await wire.send("text", text="Count slowly from one to fifty in words.")
        first = await wire.until("audio_chunk")
        await wire.send("interrupt")
        interrupted = await wire.until("interrupted")
        assert interrupted["turn_id"] == first["turn_id"] and interrupted["reason"] == "client"
        done = await wire.until("turn_complete")
        assert done["interrupted"] and done["reply"] == interrupted["heard_text"]
        seen = len(wire.seen)
        await wire.send("text", text="What is the capital of France?")
        done = await wire.until("turn_complete")
        assert {m.get("turn_id") for m in wire.seen[seen:]} <= {done["turn_id"], None}


async def test_speaking_over_the_reply_interrupts_it(server: Server) -> None:
    async with talking(server.url) as wire:
        await wire.send("text", text="Tell me a long story about a king.")
        chunk = await wire.until("audio_chunk")
        await wire.send("playback", turn_id=chunk["turn_id"], played_ms=100)
        player = asyncio.create_task(wire.play(recording("austen-880"), pace=1))
        interrupted = await wire.until("interrupted")
        assert interrupted["reason"] == "speech"
        await player
        done = await wire.until("turn_complete")
        assert done["turn_id"] == interrupted["turn_id"]
        final = await wire.until("transcription_final")
        assert final["turn_id"] != done["turn_id"]


async def test_a_client_that_returns_misses_nothing_and_hears_nothing_twice(server: Server) -> None:
    session = await new_session(server.url)
    async with join(server.url, session) as wire:
        await wire.until("session_ready")
        await wire.send("text", text="Count from one to ten in words.")
        await wire.until("audio_chunk")
        first = list(wire.seen)
    last = first[-1]["seq"]
    await asyncio.sleep(0.5)
    async with join(server.url, session) as wire:
        await wire.send("resume", last_seq=last)
        ready = await wire.receive()
        assert ready["type"] == "session_ready" and ready["resumed"]
        done = await wire.until("turn_complete")
    lasting = [m for m in first + wire.seen if m["type"] not in ("session_ready", "ping")]
    assert [m["seq"] for m in lasting] == list(range(1, len(lasting) + 1))
    chunks = [m for m in lasting if m["type"] == "audio_chunk"]
    assert sum(m["duration_ms"] for m in chunks) == pytest.approx(done["audio_ms"], abs=3)


async def test_a_second_connection_takes_the_session_over(server: Server) -> None:
    session = await new_session(server.url)
    async with join(server.url, session) as old:
        await old.until("session_ready")
        async with join(server.url, session) as new:
            await new.send("resume", last_seq=0)
            await new.until("session_ready")
            await new.send("text", text="Say yes.")
            await new.until("turn_complete")
            with pytest.raises(ConnectionClosed) as closed:
                await old.until("turn_complete")
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4409


async def test_push_to_talk(server: Server) -> None:
    async with talking(server.url, turn_detection={"mode": "manual"}) as wire:
        await wire.play(recording("austen-930"))
        await wire.send("commit")
        final = await wire.until("transcription_final")
        assert corpus.wer("he might even have been made amiable himself", final["text"]) < 0.3
        await wire.until("turn_complete")


async def test_settings_change_while_the_session_runs(server: Server) -> None:
    async with talking(server.url) as wire:
        await wire.send(
            "configure",
            settings={
                "instructions": "Answer every question with the word banana.",
                "audio_out": {"sample_rate": 8000, "codec": "mulaw"},
            },
        )
        await wire.send("text", text="What do you say?")
        chunk = await wire.until("audio_chunk")
        assert chunk["codec"] == "mulaw" and chunk["sample_rate"] == 8000
        await wire.until("turn_complete")
        await wire.send("set_tts_mode", mode="hq")
        notice = await wire.until("notice")
        assert notice["code"] == "HQ_UNAVAILABLE"


BAD: list[tuple[str | bytes, str | None, str]] = [
    ("this is not json", "body", "BAD_INPUT"),
    ("[1, 2]", "body", "BAD_INPUT"),
    ("{}", "type", "BAD_INPUT"),
    ('{"type": "no_such_message"}', "type", "BAD_INPUT"),
    ('{"type": "audio_chunk"}', "audio_chunk.data", "BAD_INPUT"),
    ('{"type": "audio_chunk", "data": 5}', "audio_chunk.data", "BAD_INPUT"),
    ('{"type": "audio_chunk", "data": "AAAA", "sr": 12345}', "audio_chunk.sr", "BAD_INPUT"),
    ('{"type": "audio_chunk", "data": "AAAA", "sr": "16000"}', "audio_chunk.sr", "BAD_INPUT"),
    ('{"type": "audio_chunk", "data": "hello there!"}', "data", "BAD_INPUT"),
    ('{"type": "audio_chunk", "data": "AAAAA==="}', "data", "BAD_INPUT"),
    ('{"type": "audio_chunk", "data": "AAA="}', None, ""),
    ('{"type": "audio_chunk", "data": "AA=="}', "data", "BAD_AUDIO"),
    ('{"type": "text", "text": ""}', "text.text", "BAD_INPUT"),
    ('{"type": "text", "text": "   "}', "text", "BAD_INPUT"),
    ('{"type": "text", "text": ["a"]}', "text.text", "BAD_INPUT"),
    ('{"type": "playback", "turn_id": "x", "played_ms": -1}', "playback.played_ms", "BAD_INPUT"),
    (
        '{"type": "configure", "settings": {"language": "klingon"}}',
        "configure.settings.language",
        "BAD_INPUT",
    ),
    ('{"type": "configure", "settings": {"language": "fr"}}', "language", "BAD_INPUT"),
    ('{"type": "configure", "settings": {"voice": "../../etc/passwd"}}', "voice", "BAD_INPUT"),
    ('{"type": "configure", "settings": {"audio_out": {"codec": "opus"}}}', "audio_out.binary", "BAD_INPUT"),
    (
        '{"type": "configure", "settings": {"turn_detection": {"end_ms": 1}}}',
        "configure.settings.turn_detection.end_ms",
        "BAD_INPUT",
    ),
    ('{"type": "resume", "last_seq": 5}', "type", "BAD_INPUT"),
    (b"\x01\x02\x03", "data", "BAD_AUDIO"),
    (b"", "data", "BAD_AUDIO"),
    ("x" * 2_000_000, "message", "TOO_LARGE"),
    (b"\0" * 10_000_000, "message", "TOO_LARGE"),
]


@pytest.mark.parametrize(("frame", "field", "code"), BAD, ids=[str(b[0][:50]) for b in BAD])
async def test_bad_input_is_refused_by_name_and_the_session_lives(
    server: Server, frame: str | bytes, field: str | None, code: str
) -> None:
    async with talking(server.url) as wire:
        await wire.socket.send(frame)
        if not code:  # two bytes of sound are fine
            await wire.send("ping")
            await wire.until("pong")
            return
        error = await wire.refused()
        assert error["code"] == code
        assert error["field"] == field
        assert len(error["trace_id"]) == 32 and error["message"]


async def test_a_text_frame_that_is_not_utf8_ends_the_connection_but_not_the_session(server: Server) -> None:
    session = await new_session(server.url)
    async with join(server.url, session) as wire:
        await wire.until("session_ready")
        with pytest.raises(ConnectionClosed) as closed:
            await wire.socket.send(b"\xff\xfe\xfd", text=True)
            await wire.until("pong")
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1007
    async with join(server.url, session) as wire:
        await wire.send("resume", last_seq=0)
        await wire.until("session_ready")


def _altered(token: str) -> str:
    payload, signature = token.split(".")
    return f"{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


async def test_who_may_not_join_is_refused_before_accept(server: Server) -> None:
    session = await new_session(server.url)
    other = await new_session(server.url)
    for wrong in (
        session | {"token": ""},
        session | {"token": "a.b"},
        session | {"token": _altered(session["token"])},
        session | {"token": other["token"]},
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with join(server.url, wrong):
                pass
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        async with join(server.url, session, origin="https://evil.example"):
            pass


async def test_a_session_that_ended_closes_with_its_own_code(server: Server) -> None:
    session = await new_session(server.url)
    async with httpx.AsyncClient(base_url=server.url) as http:
        await http.delete(f"/api/v1/sessions/{session['session_id']}")
    async with join(server.url, session) as wire:
        with pytest.raises(ConnectionClosed) as closed:
            await wire.receive()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404


async def test_sound_much_faster_than_real_time_is_taken_whole(server: Server) -> None:
    async with talking(server.url) as wire:
        long = np.concatenate([recording("austen-920")] * 3)
        player = asyncio.create_task(wire.play(long))
        finals = [await wire.until("transcription_final") for _ in range(3)]
        await player
        assert all("amiable" in f["text"] or "respectable" in f["text"] for f in finals)
        await wire.send("interrupt")


async def test_two_sessions_do_not_hear_each_other(server: Server) -> None:
    async def one(name: str) -> Wire:
        async with talking(server.url) as wire:
            await wire.play(recording(name), pace=1)
            await wire.until("transcription_final")
            return wire

    first, second = await asyncio.gather(one("austen-920"), one("austen-890"))
    [a] = [m["text"] for m in first.seen if m["type"] == "transcription_final"]
    [b] = [m["text"] for m in second.seen if m["type"] == "transcription_final"]
    assert "respectable" in a and "selfish" in b
