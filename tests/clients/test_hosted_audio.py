"""The client of voice services against our own service, and against services that answer badly."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from dialogue.scripted import CountingStt, ScriptedLlm, ToneTts
from fastapi import FastAPI, Request, Response
from serving import make_settings, running, scripted

import corpus
from app.audio.wav import wav_bytes
from app.clients.hosted_audio import HostedAudio, HostedSpeakers, full_url
from app.engines.campplus import CamPlusPlus
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, BadAudio, EngineFailed, Job, Misconfigured, Samples, Span, SpeakerSpan
from app.runtime import Runtime

KEY = "a-key-for-the-test"
ENGINES = {"stt": CountingStt(), "llm": ScriptedLlm(), "tts": ToneTts()}


@pytest.fixture(scope="module")
def ours(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of ours."""
    data = tmp_path_factory.mktemp("service")
    with scripted(make_settings(models_dir, data, api_keys=[KEY]), **ENGINES) as server:
        yield server.url


def sound(*ids: str) -> Samples:
    known = {r.id: r for r in corpus.recordings()}
    return np.concatenate([corpus.load(known[name]) for name in ids])


def wav(audio: Samples) -> io.BytesIO:
    return io.BytesIO(wav_bytes(audio, SAMPLE_RATE))


async def test_voices_by_wire_are_those_of_the_engine(ours: str, model_dir: Callable[[str], Path]) -> None:
    pool = Workers(1)
    engine = CamPlusPlus(model_dir("campplus-zh-en"), pool)
    audio = sound("austen-870")
    for url in (ours, ours + "/", ours + "/v2/embedding"):
        client = await HostedSpeakers.open(url, KEY)
        try:
            assert client.dimensions == engine.dimensions == 192
            vector = await client.embed(audio, Job())
            with pytest.raises(BadAudio, match=r"0\.5 s"):
                await client.embed(audio[:7000], Job())
        finally:
            await client.close()
        assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert float(vector @ await engine.embed(audio, Job())) > 0.999
    pool.close()


async def test_recordings_by_wire(ours: str) -> None:
    client = HostedAudio(
        KEY, vad=ours + "/v1/vad", diarization=ours, identification=ours + "/v1/speaker-identification"
    )
    assert client.finds_speech and client.diarizes and client.identifies
    cities, austen = sound("cities-1", "cities-2"), sound("austen-870", "austen-920")
    both = np.concatenate([cities, austen])
    cut = len(cities) / SAMPLE_RATE
    try:
        [first, *_] = await client.speech(wav(both))
        assert 0 <= first.start < 0.6 and first.end > 2
        assert await client.speech(wav(np.zeros(SAMPLE_RATE, np.float32))) == []
        spans = await client.diarize(wav(both))
        assert {s.speaker for s in spans if s.start < cut - 1} == {"SPEAKER_00"}
        assert {s.speaker for s in spans if s.end > cut + 1} == {"SPEAKER_01"}
        profile = wav(sound("cities-5", "cities-6"))
        segments = [Span(0, cut), SpeakerSpan(cut, cut + 5, "SPEAKER_01")]
        assert await client.is_user(wav(both), profile, segments) == [True, False]
    finally:
        await client.close()


async def test_a_wrong_key_and_nobody_there_are_said(ours: str) -> None:
    with pytest.raises(EngineFailed, match=r"401.*HOSTED_API_KEY"):
        await HostedSpeakers.open(ours, "wrong")
    with pytest.raises(EngineFailed, match="HOSTED_SPEAKER_EMBEDDING_API_URL cannot be reached"):
        await HostedSpeakers.open("http://127.0.0.1:9", KEY)


# --- services that answer badly -------------------------------------------------------------------


class Service:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.body: bytes = b"[]"
        self.status = 200
        self.headers: dict[str, str] = {}
        self.delay = 0.0
        self.asked: list[tuple[str, str | None, list[str]]] = []
        self.app.post("/{path:path}")(self.answer)

    async def answer(self, path: str, request: Request) -> Response:
        form = await request.form()
        self.asked.append((path, request.headers.get("authorization"), sorted(form)))
        await form.close()
        await asyncio.sleep(self.delay)
        return Response(self.body, self.status, self.headers, media_type="application/json")


@pytest.fixture
def service(models_dir: Path, tmp_path: Path) -> Iterator[tuple[Service, str]]:
    service = Service()
    with running(make_settings(models_dir, tmp_path), service.app) as server:
        yield service, server.url


async def test_both_shapes_of_a_vector_are_taken(service: tuple[Service, str]) -> None:
    answers, url = service
    client = HostedSpeakers(url + "/prefix", "")
    audio = np.ones(SAMPLE_RATE, np.float32)
    for body in (b"[3, 4]", b'{"embedding": [3.0, 4.0], "model": "x"}'):
        answers.body = body
        np.testing.assert_allclose(await client.embed(audio, Job()), [0.6, 0.8], atol=1e-6)
    await client.close()
    assert answers.asked == [("prefix/v2/embedding", None, ["file"])] * 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"[1.0, 2.0]"),
        (422, b"[1.0, 2.0]"),
        (302, b"[1.0, 2.0]"),
        (204, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"embedding": []}'),
        (200, b'["a"]'),
        (200, b"[0, 0]"),
        (200, b"[NaN, 1]"),
        (200, b"[[1, 2]]"),
        (200, b"null"),
    ],
)
async def test_what_is_no_vector_is_a_failure(service: tuple[Service, str], status: int, body: bytes) -> None:
    answers, url = service
    answers.status, answers.body, answers.headers = status, body, {"Location": f"{url}/elsewhere"}
    client = HostedSpeakers(url, KEY)
    with pytest.raises(EngineFailed, match="HOSTED_SPEAKER_EMBEDDING_API_URL"):
        await client.embed(np.ones(SAMPLE_RATE, np.float32), Job())
    await client.close()
    assert answers.asked == [("v2/embedding", f"Bearer {KEY}", ["file"])]


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, b"[]"), (200, b"{}"), (200, b'[{"start": 1}]'), (200, b'[{"start": -1, "end": 2}]'), (200, b"x")],
)
async def test_what_is_no_list_of_spans_is_a_failure(
    service: tuple[Service, str], status: int, body: bytes
) -> None:
    answers, url = service
    answers.status, answers.body = status, body
    client = HostedAudio(KEY, vad=url + "/my/vad", diarization=url, identification=url + "/id")
    audio = wav(np.zeros(SAMPLE_RATE, np.float32))
    with pytest.raises(EngineFailed, match="HOSTED_VAD_API_URL"):
        await client.speech(audio)
    with pytest.raises(EngineFailed, match="HOSTED_DIARIZATION_API_URL"):
        await client.diarize(audio)
    with pytest.raises(EngineFailed, match="HOSTED_SPEECH_PROFILE_API_URL"):
        await client.is_user(audio, audio, [Span(0, 1), Span(1, 2)])
    await client.close()
    assert [path for path, *_ in answers.asked] == ["my/vad", "v1/diarization", "id"]


async def test_as_many_answers_as_segments(service: tuple[Service, str]) -> None:
    answers, url = service
    answers.body = b'[{"is_user": true, "person_id": null}]'
    client = HostedAudio(KEY, vad=None, diarization=None, identification=url)
    assert not client.finds_speech and not client.diarizes
    audio = np.zeros(SAMPLE_RATE, np.float32)
    assert await client.is_user(wav(audio), wav(audio), [Span(0, 1)]) == [True]
    with pytest.raises(EngineFailed, match="not one answer a segment"):
        await client.is_user(wav(audio), wav(audio), [Span(0, 1), Span(1, 2)])
    await client.close()
    assert answers.asked[0][2] == ["audio_file", "profile_file", "segments"]


async def test_one_that_hangs_is_left(service: tuple[Service, str], monkeypatch: pytest.MonkeyPatch) -> None:
    answers, url = service
    answers.delay = 1.0
    monkeypatch.setattr("app.clients.hosted_audio._CLIP_S", 0.1)
    client = HostedSpeakers(url, KEY)
    with pytest.raises(EngineFailed, match="did not answer in time"):
        await client.embed(np.ones(SAMPLE_RATE, np.float32), Job())
    await client.close()


async def test_vectors_stay_as_long_as_they_were(service: tuple[Service, str]) -> None:
    answers, url = service
    answers.body = b"[1, 0, 0]"
    client = await HostedSpeakers.open(url, KEY)
    answers.body = b"[1, 0]"
    with pytest.raises(EngineFailed, match="no vector"):
        await client.embed(np.ones(SAMPLE_RATE, np.float32), Job())
    await client.close()


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("http://a", "http://a/v2/embedding"),
        ("http://a/", "http://a/v2/embedding"),
        ("http://a/x", "http://a/x/v2/embedding"),
        ("http://a/v2/embedding", "http://a/v2/embedding"),
        ("http://a/v2/embedding/", "http://a/v2/embedding"),
        ("http://a/models/embedding", "http://a/models/embedding"),
    ],
)
def test_a_url_may_be_the_base_or_whole(given: str, whole: str) -> None:
    assert full_url(given, "/v2/embedding") == whole


# --- wired ----------------------------------------------------------------------------------------


async def test_a_provider_without_a_url_says_which(models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(models_dir, tmp_path, speaker_provider="hosted", vad_provider="silero")
    runtime = Runtime(settings)
    runtime.start()
    try:
        with pytest.raises(Misconfigured, match="HOSTED_SPEAKER_EMBEDDING_API_URL"):
            await runtime.on_demand("speaker")
    finally:
        await runtime.close()


def test_a_server_of_ours_may_ask_another(
    ours: str, models_dir: Path, tmp_path: Path, service: tuple[Service, str]
) -> None:
    """What it is asked itself it passes on, whatever format it came in."""
    asked = {"Authorization": f"Bearer {KEY}"}
    audio = wav(sound("cities-1", "austen-870")).getvalue()
    settings = make_settings(
        models_dir,
        tmp_path,
        speaker_provider="hosted",
        hosted_speaker_embedding_api_url=ours,
        hosted_diarization_api_url=ours,
        hosted_vad_api_url=ours + "/v1/vad",
        hosted_speech_profile_api_url=ours + "/v1/speaker-identification",
        hosted_api_key=KEY,
    )
    forms: list[tuple[str, dict[str, Any]]] = [
        (path, {"files": {"file": audio}}) for path in ("/v1/vad", "/v2/embedding", "/v1/diarization")
    ]
    identify: dict[str, Any] = {
        "files": {"audio_file": audio, "profile_file": wav(sound("cities-5")).getvalue()},
        "data": {"segments": '[{"start": 0, "end": 3.5}, {"start": 4.5, "end": 9}]'},
    }
    forms.append(("/v1/speaker-identification", identify))
    with scripted(settings, **ENGINES) as server, httpx.Client(timeout=60) as client:
        for path, form in forms:
            passed = client.post(server.url + path, **form)
            direct = client.post(ours + path, headers=asked, **form)
            assert passed.status_code == direct.status_code == 200, passed.text
            if path == "/v2/embedding":
                np.testing.assert_allclose(passed.json(), direct.json(), atol=1e-3)
            else:
                assert passed.json() == direct.json() and passed.json()
        health = client.get(server.url + "/health").json()
    assert {r["role"]: r["model"] for r in health["roles"]}["speaker"] == "127.0.0.1"

    # One that fails is told as such, not as an empty answer.
    answers, url = service
    answers.status = 500
    failing = make_settings(models_dir, tmp_path, hosted_vad_api_url=url, hosted_diarization_api_url=url)
    with scripted(failing, **ENGINES) as server, httpx.Client(timeout=60) as client:
        for path in ("/v1/vad", "/v1/diarization"):
            response = client.post(server.url + path, files={"file": audio})
            assert response.status_code == 502 and response.json()["code"] == "ENGINE_FAILED"
