"""REST against a running server with real models."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Server, make_settings, running

import corpus

AUSTEN = "had he married a more amiable woman he might have been made still more respectable than he was"


def wav(name: str) -> bytes:
    """A recording of a person, as its file."""
    [found] = [r for r in corpus.recordings() if r.id == name]
    return found.path.read_bytes()


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


def check_error(response: httpx.Response, status: int, code: str, field: str | None = None) -> str:
    """The one shape of errors; gives the message."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body["code"] == code
    assert len(body["trace_id"]) == 32
    assert body.get("field") == field
    return str(body["message"])


async def test_health_says_what_each_role_is(http: httpx.AsyncClient) -> None:
    for path in ("/health", "/api/v1/health"):
        health = (await http.get(path)).json()
        assert health["status"] == "healthy"
        assert {r["role"]: r["state"] for r in health["roles"]} == dict.fromkeys(
            ("vad", "turn", "stt", "stt_partial", "llm", "tts"), "ready"
        )


async def test_stt_gives_words_with_times(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/stt", files={"file": ("a.wav", wav("austen-920"))})).json()
    assert corpus.wer(AUSTEN, answer["text"]) < 0.15
    starts = [w["start"] for w in answer["words"]]
    assert starts == sorted(starts) and 0 < answer["words"][-1]["end"] < 6.1
    assert not answer["low_confidence"]


async def test_stt_of_a_long_recording_is_whole(http: httpx.AsyncClient) -> None:
    [cities] = [r for r in corpus.recordings() if r.id == "cities"]
    answer = (await http.post("/stt", files={"file": ("a.wav", cities.path.read_bytes())})).json()
    assert corpus.wer(cities.text, answer["text"]) < 0.2
    assert answer["words"][-1]["end"] > 40


@pytest.mark.parametrize("kind", ["silence", "white", "hum"])
async def test_stt_of_noise_hears_nobody(http: httpx.AsyncClient, kind: Any) -> None:
    sound = corpus.noise(kind, 5.0)
    answer = (await http.post("/stt", files={"file": ("a.wav", as_wav(sound))})).json()
    assert answer["text"] == "" and answer["low_confidence"]


async def test_chat_remembers_the_conversation(http: httpx.AsyncClient) -> None:
    first = (await http.post("/chat", data={"text": "My name is Barbara."})).json()
    second = (
        await http.post(
            "/chat", data={"text": "What is my name?", "conversation_id": first["conversation_id"]}
        )
    ).json()
    assert second["conversation_id"] == first["conversation_id"]
    assert "Barbara" in second["reply"]


async def test_turns_of_one_conversation_at_once_are_numbered_one_by_one(http: httpx.AsyncClient) -> None:
    first = (await http.post("/chat", data={"text": "Say one."})).json()
    again = {"text": "Say two.", "conversation_id": first["conversation_id"]}
    answers = await asyncio.gather(*(http.post("/chat", data=again) for _ in range(4)))
    assert {a.status_code for a in answers} == {200}
    last = (await http.post("/chat", data=again)).json()
    turns = (await http.get(f"/api/v1/sessions/{last['conversation_id']}/turns")).json()
    assert [t["number"] for t in turns][:5] == [1, 2, 3, 4, 5]


async def test_tts_says_the_text(http: httpx.AsyncClient) -> None:
    text = "The quick brown fox jumps over the lazy dog."
    answer = await http.post("/tts", json={"text": text})
    assert answer.headers["content-type"] == "audio/wav"
    heard = (await http.post("/stt", files={"file": ("a.wav", answer.content)})).json()
    assert corpus.wer(text, heard["text"]) < 0.25


async def test_conversation_answers_a_recording_in_voice(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/conversation", files={"audio_file": ("a.wav", wav("austen-920"))})).json()
    assert corpus.wer(AUSTEN, answer["transcript"]) < 0.15
    heard = await http.post("/stt", files={"file": ("a.wav", base64.b64decode(answer["audio"]))})
    assert corpus.wer(answer["reply"], heard.json()["text"]) < 0.35
    assert (
        0 < answer["latency"]["stt_final"] < answer["latency"]["llm_done"] < answer["latency"]["reply_done"]
    )
    for _ in range(50):
        turns = (await http.get(f"/api/v1/sessions/{answer['conversation_id']}/turns")).json()
        if turns:
            break
        await asyncio.sleep(0.1)
    assert turns[0]["source"] == "upload" and turns[0]["audio_key"].startswith("raw_inputs/")
    kept = f"/api/v1/sessions/{answer['conversation_id']}/turns/{turns[0]['turn_id']}/audio"
    again = (await http.post("/stt", files={"file": ("a.wav", (await http.get(kept)).content)})).json()
    assert again["text"] == answer["transcript"]
    check_error(await http.get(kept.replace(turns[0]["turn_id"], "nope")), 404, "NOT_FOUND", "turn_id")


async def test_speaker_info_lists_the_voices(http: httpx.AsyncClient) -> None:
    info = (await http.get("/speaker_info")).json()
    assert info["default"] in [v["name"] for v in info["voices"]]


def as_wav(samples: Any, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def png() -> bytes:
    """A small picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 72))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"Dear diary, today I renamed a text file.\n" * 50, ""),
        (png(), "PNG"),
        (b"PK\x03\x04" + b"\0" * 500, ""),
        (wav("austen-920")[:40], ""),
        (b"\xff\xfe" * 1000, ""),
    ],
    ids=["empty", "text", "picture", "zip", "header", "rubbish"],
)
async def test_what_is_not_a_recording_is_refused_with_the_reason(
    http: httpx.AsyncClient, content: bytes, words: str
) -> None:
    for path, field in (("/stt", "file"), ("/conversation", "audio_file")):
        answer = await http.post(path, files={field: ("speech.wav", content)})
        assert words in check_error(answer, 422, "BAD_AUDIO", field)


async def test_a_three_hour_file_is_refused_without_being_decoded(http: httpx.AsyncClient) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(4000)
        out.writeframes(b"\x80" * (4000 * 3600 * 3))
    hours = file.getvalue()
    message = check_error(
        await http.post("/stt", files={"file": ("long.wav", hours)}), 413, "TOO_LARGE", "file"
    )
    assert "7200" in message


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "field"),
    [
        ("POST", "/stt", {}, 422, "BAD_INPUT", "file"),
        ("POST", "/stt", {"data": {"file": "text"}}, 422, "BAD_INPUT", "file"),
        ("POST", "/chat", {"data": {"text": ""}}, 422, "BAD_INPUT", "text"),
        ("POST", "/chat", {"data": {"text": "x" * 9000}}, 422, "BAD_INPUT", "text"),
        ("POST", "/chat", {"data": {"text": "a", "conversation_id": "nope"}}, 404, "NOT_FOUND", "session_id"),
        ("POST", "/tts", {"content": b"{not json"}, 422, "BAD_INPUT", "body"),
        ("POST", "/tts", {"json": {"text": 5}}, 422, "BAD_INPUT", "text"),
        ("POST", "/tts", {"json": {"text": "hi", "cfg_scale": 9}}, 422, "BAD_INPUT", "cfg_scale"),
        ("POST", "/tts", {"json": {"text": "?!…"}}, 422, "BAD_INPUT", "text"),
        (
            "POST",
            "/tts",
            {"json": {"text": "hi", "speaker_voice_path": "../../etc/passwd"}},
            404,
            "NOT_FOUND",
            "voice",
        ),
        ("POST", "/api/v1/sessions", {"json": {"language": "fr"}}, 422, "BAD_INPUT", "language"),
        ("POST", "/api/v1/sessions", {"json": {"voice": "nobody"}}, 422, "BAD_INPUT", "voice"),
        ("POST", "/api/v1/sessions", {"content": b"\xff\xfe"}, 422, "BAD_INPUT", "body"),
        ("GET", "/api/v1/sessions/not-a-uuid", {}, 404, "NOT_FOUND", "session_id"),
        (
            "GET",
            "/api/v1/sessions/00000000-0000-0000-0000-000000000000/turns",
            {},
            404,
            "NOT_FOUND",
            "session_id",
        ),
        ("GET", "/api/v1/sessions?limit=0", {}, 422, "BAD_INPUT", "limit"),
        ("GET", "/no/such/page", {}, 404, "NOT_FOUND", None),
        ("PUT", "/chat", {}, 405, "BAD_INPUT", None),
    ],
)
async def test_bad_requests_are_refused_by_name(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    body: dict[str, Any],
    status: int,
    code: str,
    field: str | None,
) -> None:
    check_error(await http.request(method, path, **body), status, code, field)


async def test_metrics_count_what_happened(http: httpx.AsyncClient, server: Server) -> None:
    await http.post("/stt", files={"file": ("a.wav", wav("austen-920"))})
    await http.post("/tts", json={"text": "Hello there."})
    await http.post("/chat", data={"text": "Hello."})
    text = (await http.get("/api/v1/metrics")).text
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0) + sample.value
    for name in (
        "asr_rtf_count",
        "llm_ttft_seconds_count",
        "tts_synthesis_latency_seconds_count",
        "tts_rtf_count",
    ):
        assert values[name] >= 1, name
    for name in ("active_sessions_count", "websocket_connections_active", "llm_request_queue_length"):
        assert name in values


async def test_other_sites_and_other_names_are_refused(http: httpx.AsyncClient, server: Server) -> None:
    check_error(
        await http.post("/chat", data={"text": "a"}, headers={"Origin": "https://evil.example"}),
        401,
        "NOT_ALLOWED",
    )
    check_error(
        await http.post("/chat", data={"text": "a"}, headers={"Host": "evil.example"}), 401, "NOT_ALLOWED"
    )


async def test_a_site_that_is_allowed_may_use_the_api(models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(models_dir, tmp_path, allowed_origins=["https://friend.example"])
    with running(settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            friend = {"Origin": "https://friend.example"}
            created = await http.post("/api/v1/sessions", json={}, headers=friend)
            assert created.status_code == 201
            assert created.headers["access-control-allow-origin"] == "https://friend.example"
            other = await http.post("/api/v1/sessions", json={}, headers={"Origin": "https://evil.example"})
            check_error(other, 401, "NOT_ALLOWED")


async def test_with_keys_only_their_holders_get_in(models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(models_dir, tmp_path, api_keys=["alpha-key", "beta-key"], host="0.0.0.0")
    with running(settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            check_error(await http.post("/api/v1/sessions", json={}), 401, "NOT_ALLOWED")
            wrong = {"Authorization": "Bearer gamma-key"}
            check_error(await http.post("/api/v1/sessions", json={}, headers=wrong), 401, "NOT_ALLOWED")
            alpha, beta = ({"Authorization": f"Bearer {k}-key"} for k in ("alpha", "beta"))
            created = await http.post("/api/v1/sessions", json={}, headers=alpha)
            assert created.status_code == 201
            path = f"/api/v1/sessions/{created.json()['session_id']}"
            assert (await http.get(path, headers=alpha)).status_code == 200
            check_error(await http.get(path, headers=beta), 404, "NOT_FOUND", "session_id")
            check_error(await http.delete(path, headers=beta), 404, "NOT_FOUND", "session_id")
            assert (await http.get("/api/v1/sessions", headers=beta)).json() == []
            assert (await http.get("/health")).status_code == 200


async def test_being_full_says_when_to_come_back(models_dir: Path, tmp_path: Path) -> None:
    settings = make_settings(models_dir, tmp_path, max_sessions=1, max_waiting=1)
    with running(settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            for position in (0, 1):
                made = await http.post("/api/v1/sessions")
                assert made.status_code == 201 and made.json()["queue_position"] == position
            full = await http.post("/api/v1/sessions")
            check_error(full, 503, "BUSY")
            assert int(full.headers["Retry-After"]) >= 1 and full.json()["position"] == 1


async def test_the_api_describes_itself(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"/stt", "/chat", "/tts", "/conversation", "/speaker_info", "/health"} <= set(paths)
    json.dumps(paths)
