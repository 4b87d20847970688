"""What the app's first screen asks for, beside conversations."""

from __future__ import annotations

import io
import uuid
import wave
from typing import Any

import httpx
import pytest
from dialogue.scripted import speech
from serving import Server

from app.audio.wav import wav_bytes


@pytest.fixture
def client(small: Server, key: str) -> Any:
    with httpx.Client(base_url=small.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        yield client


def wav(seconds: float, rate: int = 16000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(bytes(int(seconds * rate) * 2 * channels))
    return file.getvalue()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/conversations"),
        ("POST", "/v1/conversations"),
        ("GET", f"/v1/conversations/{uuid.UUID(int=1)}"),
        ("DELETE", f"/v1/conversations/{uuid.UUID(int=1)}"),
        ("GET", "/v1/users/language"),
        ("PATCH", "/v1/users/language"),
        ("GET", "/v1/users/people"),
        ("GET", "/v3/speech-profile"),
        ("POST", "/v3/upload-audio"),
        ("GET", "/v3/memories"),
        ("GET", "/v1/action-items"),
    ],
)
def test_strangers_get_nothing(small: Server, method: str, path: str) -> None:
    answer = httpx.request(method, small.url + path)
    assert answer.status_code == 401 and answer.json()["code"] == "NOT_ALLOWED"


def test_language(client: httpx.Client) -> None:
    assert client.get("/v1/users/language").json() == {"language": None}
    assert client.patch("/v1/users/language", json={"language": "zh-CN"}).status_code == 200
    assert client.get("/v1/users/language").json() == {"language": "zh-CN"}
    for wrong in ({"language": ""}, {"language": 5}, {}, {"language": "x" * 99}):
        assert client.patch("/v1/users/language", json=wrong).status_code == 422
    assert client.get("/v1/users/language").json() == {"language": "zh-CN"}


def test_people(client: httpx.Client) -> None:
    assert client.get("/v1/users/people").json() == []
    bob = client.post("/v1/users/people", json={"name": " Bob  Stone "}).json()
    assert bob["name"] == "Bob Stone" and uuid.UUID(bob["id"])
    ada = client.post("/v1/users/people", json={"name": "Ada"}).json()
    assert client.post("/v1/users/people", json={"name": "bob stone"}).json() == bob
    query = {"include_speech_samples": "true"}
    assert client.get("/v1/users/people", params=query).json() == [ada, bob]
    assert client.patch(f"/v1/users/people/{ada['id']}/name", params={"value": "Zoe"}).status_code == 200
    assert client.get(f"/v1/users/people/{ada['id']}").json()["name"] == "Zoe"
    assert client.delete(f"/v1/users/people/{ada['id']}").status_code == 204
    assert client.get("/v1/users/people").json() == [bob]
    for path in (ada["id"], "nonsense"):
        assert client.get(f"/v1/users/people/{path}").status_code == 404
        assert client.delete(f"/v1/users/people/{path}").status_code == 404
    assert client.post("/v1/users/people", json={"name": ""}).status_code == 422


def test_a_voice_profile(client: httpx.Client, small: Server) -> None:
    assert client.get("/v3/speech-profile").json() == {"has_profile": False}
    # There is nobody here who could tell voices apart: the recording is kept until there is.
    spoken = wav_bytes(speech(6.0), 16000)
    answer = client.post("/v3/upload-audio", files={"file": ("profile.wav", spoken, "audio/wav")})
    assert answer.status_code == 200
    kept = small.settings.data_dir / "objects" / answer.json()["url"]
    assert kept.exists()
    assert client.get("/api/v1/speech-profile").json()["encoder"] is None
    assert client.get("/v3/speech-profile").json() == {"has_profile": True}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (wav(4.9), 422),
        (wav(121.0), 422),
        (wav(10.0, rate=44100), 422),
        (wav(10.0)[:60], 422),
        (b"RIFF" + bytes(100), 422),
        (b"", 422),
        (bytes(49 << 20), 413),
    ],
)
def test_what_is_no_voice_profile(client: httpx.Client, data: bytes, status: int) -> None:
    answer = client.post("/v3/upload-audio", files={"file": ("profile.wav", data, "audio/wav")})
    assert answer.status_code == status and answer.json()["field"] == "file"
    assert client.get("/v3/speech-profile").json() == {"has_profile": False}


def test_items_of_others_cannot_be_marked(client: httpx.Client) -> None:
    for item in (str(uuid.uuid4()), "nonsense"):
        assert client.patch(f"/v1/action-items/{item}/completed").status_code == 404
