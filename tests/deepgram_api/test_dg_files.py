"""Recordings by Deepgram's client: what was said in them, or why not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deepgram.core.api_error import ApiError
from deepgram.errors.bad_request_error import BadRequestError
from deepgram.types.listen_v1response import ListenV1Response
from deepgram_client import async_client, at_rate, client, container, cut, pcm, recording, text_of
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts, silence, speech
from serving import Server, make_settings, scripted

import corpus
from app.audio.wav import wav_bytes

PAUSED = "austen-930", "cities-1"


def wav(sound: Any) -> bytes:
    return wav_bytes(sound, 16000)


def test_the_sync_client_sends_a_file(server: Server) -> None:
    with client(server) as deepgram:
        answer = deepgram.listen.v1.media.transcribe_file(
            request=wav(recording(*PAUSED, gap=2.0)),
            model="nova-3",
            smart_format=True,
            utterances=True,
            diarize=True,
            detect_language=True,
            summarize="v2",
            keyterm=["Dashwood"],
            tag=["a", "b"],
            extra="who:me",
        )
    raw = json.loads(answer.json())
    told = ListenV1Response.model_validate(raw).dict()
    [channel] = told["results"]["channels"]
    [best] = channel["alternatives"]
    assert corpus.wer(text_of(*PAUSED), best["transcript"]) < 0.15
    assert channel["detected_language"] == "en"
    assert {w["speaker"] for w in best["words"]} == {0, 1}
    assert [w["punctuated_word"] for w in best["words"]] == best["transcript"].split()
    one, two = told["results"]["utterances"]
    assert corpus.wer(text_of("austen-930"), one["transcript"]) < 0.3
    assert corpus.wer(text_of("cities-1"), two["transcript"]) < 0.3
    assert one["end"] < two["start"]
    found = {r.id: r for r in corpus.recordings()}
    assert two["start"] == pytest.approx(4 + found["austen-930"].seconds, abs=0.6)
    paragraphs = best["paragraphs"]
    assert len(paragraphs["paragraphs"]) == 2
    assert sum(p["num_words"] for p in paragraphs["paragraphs"]) == len(best["words"])
    assert paragraphs["transcript"].startswith("\nSpeaker 0: ")
    metadata = told["metadata"]
    assert metadata["tags"] == ["a", "b"] and metadata["extra"] == {"who": "me"}
    assert metadata["duration"] == pytest.approx(5.5 + sum(found[n].seconds for n in PAUSED), abs=0.05)
    assert [w["parameter"] for w in metadata["warnings"]] == ["summarize"]


async def test_the_async_client_sends_a_file_piece_by_piece(server: Server) -> None:
    data = container(recording("austen-920"), "webm", "libopus")

    async def pieces() -> Any:
        for piece in cut(data, 5000):
            yield piece
            await asyncio.sleep(0.01)

    async with async_client(server) as deepgram:
        answer = await deepgram.listen.v1.media.transcribe_file(request=pieces(), model="nova-3")
    best = answer.results.channels[0].alternatives[0]
    assert corpus.wer(text_of("austen-920"), best.transcript) < 0.15
    assert best.paragraphs is None and answer.results.utterances is None
    times = [t for w in best.words for t in (w.start, w.end)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("query", "make"),
    [
        ({"encoding": "linear16", "sample_rate": 44100}, lambda s: pcm(at_rate(s, 44100))),
        ({"encoding": "linear16", "sample_rate": 8000}, lambda s: container(s, "mp3", "mp3", 44100)),
        ({}, lambda s: container(s, "flac", "flac", 16000)),
    ],
    ids=["raw", "named-wrongly", "flac"],
)
async def test_files_in_other_encodings(server: Server, query: dict[str, Any], make: Any) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
        response = await http.post(
            "/v1/listen",
            params=query,
            content=make(recording("austen-920")),
            headers={"Content-Type": "audio/wav", "Authorization": "Token x"},
        )
    if query and "named" not in query:
        assert response.headers["dg-request-id"] == response.json()["metadata"]["request_id"]
    heard = response.json()["results"]["channels"][0]["alternatives"][0]["transcript"]
    assert corpus.wer(text_of("austen-920"), heard) < 0.2


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stt() -> CountingStt:
    return CountingStt()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, stt: CountingStt) -> Iterator[Server]:
    """A server with limits, and engines that cost nothing."""
    data: Path = tmp_path_factory.mktemp("small")
    settings = make_settings(data / "none", data, api_keys=["secret"], max_upload_mb=0.5, max_audio_s=20)
    with scripted(settings, vad=LoudVad(), stt=stt, llm=ScriptedLlm(), tts=ToneTts()) as server:
        yield server


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"This is no recording at all, however it is named.", "text"),
        (b"%PDF-1.7 \x00\x01\x02", "PDF"),
        (wav(speech(1.0))[:44], "no sound"),
        (b"RIFF\x00\x00\x00\x00WAVEjunk" + bytes(64), ""),
    ],
)
def test_what_is_no_recording_is_refused(small: Server, body: bytes, why: str) -> None:
    with pytest.raises(BadRequestError) as refused, client(small, "secret") as deepgram:
        deepgram.listen.v1.media.transcribe_file(request=body, model="nova-3")
    told = refused.value.body
    assert told["err_code"] == "Bad Request" and why in told["err_msg"]
    assert told["request_id"] == refused.value.headers["dg-request-id"]
    assert "failed to process audio" in refused.value.headers["dg-error"]


def test_nothing_is_fetched_from_elsewhere(small: Server) -> None:
    with pytest.raises(BadRequestError) as refused, client(small, "secret") as deepgram:
        deepgram.listen.v1.media.transcribe_url(url="http://127.0.0.1:1/secret.wav", model="nova-3")
    assert "fetches nothing" in refused.value.body["err_msg"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"callback": "https://example.org"}, "callback"),
        ({"redact": "pci"}, "redact"),
        ({"language": "tlh_!"}, "language"),
        ({"language": "de"}, "English only"),
        ({"encoding": "amr-wb"}, "amr-wb"),
        ({"encoding": "linear16"}, "sample_rate"),
        ({"utt_split": -1}, "utt_split"),
    ],
)
def test_options_that_cannot_be_had_are_refused(small: Server, options: Any, why: str) -> None:
    with pytest.raises(BadRequestError) as refused, client(small, "secret") as deepgram:
        deepgram.listen.v1.media.transcribe_file(request=pcm(speech(1.0)), model="nova-3", **options)
    assert why in refused.value.body["err_msg"]


@pytest.mark.parametrize(
    ("key", "body", "status", "code"),
    [
        ("secret", lambda: wav(speech(19.0)), 413, "PAYLOAD_TOO_LARGE"),
        ("secret", lambda: iter([bytes(100_000)] * 10), 413, "PAYLOAD_TOO_LARGE"),  # without a length
        ("secret", lambda: container(silence(21), "flac", "flac", 16000), 413, "PAYLOAD_TOO_LARGE"),
        ("wrong", lambda: b"x", 401, "INVALID_AUTH"),
    ],
    ids=["bytes", "unknown", "seconds", "key"],
)
def test_limits_of_size_length_and_access(small: Server, key: str, body: Any, status: int, code: str) -> None:
    with pytest.raises(ApiError) as refused, client(small, key) as deepgram:
        deepgram.listen.v1.media.transcribe_file(request=body(), model="nova-3")
    assert refused.value.status_code == status
    assert refused.value.body["err_code"] == code


def test_both_ways_to_show_a_key(small: Server) -> None:
    for scheme in ("Token", "Bearer"):
        response = httpx.post(
            f"{small.url}/v1/listen",
            content=wav(speech(1.0)),
            headers={"Authorization": f"{scheme} secret"},
        )
        assert response.status_code == 200, response.text


async def test_who_leaves_stops_the_work(small: Server, stt: CountingStt) -> None:
    stt.calls.clear()
    # The gate belongs to the server's loop; it is made there.
    stt.gate = asyncio.Event()
    try:
        async with httpx.AsyncClient(base_url=small.url, timeout=60) as http:
            headers = {"Authorization": "Token secret"}
            asked = asyncio.create_task(http.post("/v1/listen", content=wav(speech(3.0)), headers=headers))
            while not stt.calls:
                await asyncio.sleep(0.02)
            asked.cancel()
        connections = small.uvicorn.server_state
        async with asyncio.timeout(10):
            while connections.tasks:
                await asyncio.sleep(0.02)
    finally:
        stt.gate = None
