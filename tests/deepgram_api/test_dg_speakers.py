"""Who says what, live: two readers take turns; the voices are told apart by a real encoder."""

from __future__ import annotations

import httpx
import pytest
from deepgram_client import client, cut, finals, lawful, pcm, recording, streaming
from dialogue.scripted import silence
from serving import Server
from wire_client import join, new_session

from app.audio.wav import wav_bytes
from corpus import load, recordings

TURNS = ("austen-930", "cities-3", "austen-920", "cities-4", "austen-870")


@pytest.fixture(autouse=True)
def voices(server: Server) -> None:
    """The model that tells voices apart is fetched when it is first asked for."""
    file = wav_bytes(recording("austen-930"), 16000)
    httpx.post(f"{server.url}/v2/embedding", files={"file": file}, timeout=120).raise_for_status()


async def test_speakers_of_a_stream_are_told_apart(server: Server) -> None:
    options = {"encoding": "linear16", "sample_rate": 16000, "diarize": "true", "interim_results": "false"}
    async with streaming(server, **options) as wire:
        await wire.play(cut(pcm(recording(*TURNS, gap=2.5)), 6400), pause=0.02)
        await wire.finish()
    lawful(wire.seen)
    spoken: list[int] = []
    for message in finals(wire.seen):
        for word in message["channel"]["alternatives"][0]["words"]:
            if not spoken or spoken[-1] != word["speaker"]:
                spoken.append(word["speaker"])
    assert spoken == [0, 1, 0, 1, 0]


async def test_a_session_tells_its_speakers_apart_if_it_is_asked_to(server: Server) -> None:
    found = {r.id: r for r in recordings()}
    wish = {"diarize": True, "audio_out": {"binary": True}}
    session = await new_session(server.url, **wish)
    speakers = []
    async with join(server.url, session) as wire:
        await wire.until("session_ready")
        for name in TURNS[:3]:
            await wire.play(load(found[name]))
            await wire.play(silence(2.5))
            final = await wire.until("transcription_final")
            speakers.append(final["speaker"])
            await wire.send("interrupt")
    assert speakers == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]


def test_speakers_of_a_file_are_told_apart(server: Server) -> None:
    with client(server) as deepgram:
        answer = deepgram.listen.v1.media.transcribe_file(
            request=wav_bytes(recording(*TURNS, gap=2.5), 16000),
            diarize=True,
            utterances=True,
            paragraphs=True,
        )
    [best] = answer.results.channels[0].alternatives
    assert [p.speaker for p in best.paragraphs.paragraphs] == [0, 1, 0, 1, 0]
    assert best.paragraphs.transcript.count("Speaker 1: ") == 2
    spoken = [u.speaker for u in answer.results.utterances]
    assert [s for i, s in enumerate(spoken) if i == 0 or spoken[i - 1] != s] == [0, 1, 0, 1, 0]
