"""People's voices, known by recordings, on a wearable's stream and in a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from app_simulator import PACKERS, App, app
from serving import Server
from test_wearable_spoken import begin_anew, kept, over, spoken
from wire_client import join, new_session

from app.audio.wav import wav_bytes


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody is known before, and nobody after."""
    around = server.app.state.context.around
    await begin_anew(server)
    around.clear()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client
        await client.delete("/v3/speech-profile")
        for person in (await client.get("/v1/users/people")).json():
            await client.delete(f"/v1/users/people/{person['id']}")
    await over(server)
    around.clear()


async def enrol(client: httpx.AsyncClient, path: str, *names: str) -> None:
    sound, _ = spoken(names)
    answer = await client.post(path, files={"file": ("voice.wav", wav_bytes(sound, 16000), "audio/wav")})
    assert answer.status_code == 200, answer.text


def shown(phone: App) -> list[tuple[bool, str | None]]:
    return [(s["is_user"], s["person_id"]) for s in phone.shown]


async def test_readers_are_known_by_their_recordings(server: Server, client: httpx.AsyncClient) -> None:
    await enrol(client, "/v3/upload-audio", "austen-880", "austen-920")
    ada = (await client.post("/v1/users/people", json={"name": "Ada"})).json()["id"]
    await enrol(client, f"/v1/users/people/{ada}/speech-samples", "cities-1", "cities-2")
    sound, _ = spoken(("cities-3", "cities-5", "austen-870", "call-4", "cities-6"))
    async with app(server, codec="opus_fs320") as phone:
        await phone.status("ready")
        await phone.play(PACKERS["opus_fs320"](np.concatenate([sound, np.zeros(16000, np.float32)])))
        await phone.until(lambda: shown(phone)[-1:] == [(False, ada)] and len(shown(phone)) >= 4, 90)
    await over(server)
    (conversation,) = kept(server)
    who = [(s["is_user"], s["person_id"]) for s in conversation["transcript_segments"]]
    # The first words were said before there was enough of the voice to know it.
    assert who == [(False, ada), (True, None), (False, None), (False, ada)]
    assert who == shown(phone)


async def test_a_conversation_knows_its_user(server: Server, client: httpx.AsyncClient) -> None:
    await enrol(client, "/v3/upload-audio", "austen-880", "austen-920")
    sound, _ = spoken(("austen-870", "cities-1"))
    session = await new_session(server.url, diarize=True)
    async with join(server.url, session) as wire:
        await wire.until("session_ready")
        await wire.play(np.concatenate([sound, np.zeros(16000, np.float32)]))
        mine = await wire.until("transcription_final")
        assert mine["speaker"] == "SPEAKER_00"
        assert mine["person"] == {"id": "user", "name": "user", "is_user": True}
        other = await wire.until("transcription_final")
        assert (other["speaker"], other["person"]) == ("SPEAKER_01", None)
    await client.delete(f"/api/v1/sessions/{session['session_id']}")
