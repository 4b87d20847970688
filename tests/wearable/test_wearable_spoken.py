"""People's speech through every codec, with a broken connection, into what the app shows and what is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from app_simulator import PACKERS, App, app, check_conversation
from serving import Server

import corpus
from app.roles import Samples

FIRST = ("austen-920", "cities-1")
SECOND = ("austen-930", "cities-2")
GAP_S = 1.5


def spoken(names: tuple[str, ...]) -> tuple[Samples, str]:
    """Recordings with pauses between, and their text."""
    found = {r.id: r for r in corpus.recordings()}
    silence = np.zeros(int(GAP_S * 16000), np.float32)
    sound = np.concatenate([piece for name in names for piece in (corpus.load(found[name]), silence)])
    return sound, " ".join(found[name].text for name in names)


async def over(server: Server) -> None:
    """What was sent by phones that have left is heard to its end."""
    async with asyncio.timeout(60):
        while len(server.app.state.context.sessions):
            await asyncio.sleep(0.05)


async def begin_anew(server: Server) -> None:
    """Whoever spoke before us was another."""
    await over(server)
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        for conversation in kept(server):
            gone = await client.delete(f"/v1/conversations/{conversation['id']}")
            assert gone.status_code == 204


def kept(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/v1/conversations", timeout=30).json()
    return [c for c in found if c["status"] == "in_progress"]


def heard(phone: App, words: int, said: str) -> bool:
    return len(phone.text.split()) >= words and corpus.wer(said, phone.text) < 0.3


@pytest.mark.parametrize("codec", PACKERS)
async def test_a_conversation_through_each_codec(server: Server, codec: str) -> None:
    await begin_anew(server)
    (one, first), (two, second) = spoken(FIRST), spoken(SECOND)
    async with app(server, scale=1000, codec=codec) as phone:
        await phone.status("ready")
        await phone.play(PACKERS[codec](one))
        await phone.until(lambda: heard(phone, len(first.split()) - 2, first))
        await phone.drop()
        await phone.come_back()
        await phone.until(lambda: phone.statuses.count("ready") == 2)
        await phone.play(PACKERS[codec](two))
        await phone.leave()
    await over(server)
    (conversation,) = kept(server)
    segments = conversation["transcript_segments"]
    text = " ".join(s["text"] for s in segments)
    assert corpus.wer(f"{first} {second}", text) < 0.15
    assert len({s["id"] for s in segments}) == len(segments)
    times = [(s["start"], s["end"]) for s in segments]
    assert times == sorted(times) and times[0][0] >= 0
    assert times[-1][1] > (len(one) + len(two)) / 16000 - 6
    # What the app shows are these segments, but for what came after it had left.
    assert set(phone.segments) <= {s["id"] for s in segments}


async def test_a_connection_that_breaks_in_mid_word(server: Server) -> None:
    """What was sent is heard to its end; nothing is doubled."""
    await begin_anew(server)
    sound, text = spoken(FIRST)
    packets = PACKERS["opus_fs320"](sound)
    async with app(server, scale=1000, codec="opus_fs320") as phone:
        await phone.status("ready")
        for part in np.array_split(np.arange(len(packets)), 5):
            await phone.play(packets[i] for i in part)
            await phone.leave()
            await phone.come_back()
        await phone.until(lambda: len(phone.text.split()) > 0.8 * len(text.split()))
    await over(server)
    (conversation,) = kept(server)
    final = " ".join(s["text"] for s in conversation["transcript_segments"])
    assert len(final.split()) <= len(text.split()) * 1.15
    assert corpus.wer(text, final) < 0.4


async def test_something_is_made_of_it(server: Server) -> None:
    await begin_anew(server)
    sound, _ = spoken(SECOND)
    async with app(server, codec="opus") as phone:
        await phone.status("ready")
        await phone.play(PACKERS["opus"](sound))
        await phone.until(lambda: len(phone.text.split()) > 15)
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            made = (await client.post("/v1/conversations")).json()["conversation"]
        told = await phone.event("memory_created", 120)
    check_conversation(made)
    assert told["memory"] == made
    structured = made["structured"]
    assert 1 <= len(structured["title"].split()) <= 10
    assert structured["overview"], "the model was not understood"


async def test_speakers_keep_their_labels_when_the_phone_comes_back(server: Server) -> None:
    """Two readers take turns, on two connections."""
    await begin_anew(server)
    server.app.state.context.around.clear()
    (one, first), (two, _) = spoken(("austen-930", "cities-3")), spoken(("cities-4", "austen-920"))
    codec = next(iter(PACKERS))
    async with app(server, scale=1000, codec=codec) as phone:
        await phone.status("ready")
        await phone.play(PACKERS[codec](one))
        await phone.until(lambda: heard(phone, len(first.split()) - 2, first))
        await phone.drop()
        await phone.come_back()
        await phone.until(lambda: phone.statuses.count("ready") == 2)
        await phone.play(PACKERS[codec](two))
        await phone.leave()
    await over(server)
    (conversation,) = kept(server)
    speakers = [s["speaker"] for s in conversation["transcript_segments"]]
    assert speakers == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
