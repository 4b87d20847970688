"""A line that breaks again and again: every sample is heard once, every event comes once."""

from __future__ import annotations

import asyncio
import io
import random
import wave
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from cutting_proxy import Proxy, cutting_proxy
from dialogue.scripted import CountingStt, LoudVad, ScriptedLlm, ToneTts
from serving import Server, make_settings, scripted

from app.api.messages import Loading, Notice, Queued, ServerMessage, SessionReady, TurnComplete
from app.audio.codecs import decoder, pack_pcm16
from app.talk import Sound, Talk, client, connect

OUT = {"codec": "pcm16", "sample_rate": 16000, "binary": True}
SECONDS = 20
WORDS = " ".join(f"word{i}{'.' if i % 10 == 9 else ''}" for i in range(60))


@pytest.fixture
def brief_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LONGEST_WAIT_S", 0.3)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Server]:
    """A server that hears nothing in particular and says sixty words in nine seconds."""
    settings = make_settings(tmp_path / "none", tmp_path)
    llm = ScriptedLlm(WORDS)
    with scripted(settings, vad=LoudVad(), stt=CountingStt(), llm=llm, tts=ToneTts(0.15)) as server:
        yield server


async def cuts(proxy: Proxy, chance: random.Random, count: int) -> None:
    """Cut the line `count` times; what is on it is lost, or reaches the server too late."""
    for _ in range(count):
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        accepted = proxy.accepted
        if chance.random() < 0.7:
            proxy.hold()
            await asyncio.sleep(chance.uniform(0.0, 0.15))
        proxy.cut(late_s=chance.choice([None, 0.2, 0.5]))
        while proxy.accepted == accepted:
            await asyncio.sleep(0.01)


async def until_complete(talk: Talk) -> list[ServerMessage]:
    seen: list[ServerMessage] = []
    async with asyncio.timeout(120):
        async for message in talk:
            seen.append(message)
            if isinstance(message, TurnComplete):
                break
    return seen


async def kept(server: Server, talk: Talk) -> bytes:
    """The session's only recording, as PCM16."""
    session = f"/api/v1/sessions/{talk.session_id}/turns"
    async with httpx.AsyncClient(base_url=server.url) as http, asyncio.timeout(20):
        while not (turns := (await http.get(session)).json()):
            await asyncio.sleep(0.05)
        [turn] = turns
        while (answer := await http.get(f"{session}/{turn['turn_id']}/audio")).status_code != 200:
            await asyncio.sleep(0.05)
    with wave.open(io.BytesIO(answer.content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        return file.readframes(file.getnframes())


@pytest.mark.usefixtures("brief_waits")
@pytest.mark.parametrize(("rate", "seed"), [(16000, 1), (48000, 2)])
async def test_twenty_cuts_lose_nothing_and_double_nothing(quick: Server, rate: int, seed: int) -> None:
    chance = random.Random(seed)
    spoken = np.random.default_rng(seed).integers(-9000, 9000, SECONDS * rate).astype("<i2").tobytes()
    settings = {
        "audio_in": {"codec": "pcm16", "sample_rate": rate},
        "audio_out": OUT,
        "turn_detection": {"mode": "manual"},
    }
    async with cutting_proxy(quick.url) as proxy, connect(proxy.url, settings) as talk:
        hearing = asyncio.create_task(until_complete(talk))
        cutting = asyncio.create_task(cuts(proxy, chance, 12))
        size = rate // 50 * 2
        for at in range(0, len(spoken), size):
            await talk.send_audio(spoken[at : at + size])
            await asyncio.sleep(0.004)
        await cutting
        proxy.hold()
        await talk.commit()
        await asyncio.sleep(0.05)
        await cuts(proxy, chance, 8)
        messages = await hearing
        recording = await kept(quick, talk)
    assert talk.lost_s == 0
    ready = [m for m in messages if isinstance(m, SessionReady)]
    assert len(ready) >= 15  # some are cut before they are told so
    assert [m.resumed for m in ready] == [False, *[True] * (len(ready) - 1)]
    assert len({m.received_ms for m in ready}) > 5
    expected = decoder("pcm16", rate).decode(spoken)
    assert recording == pack_pcm16(expected)
    events = [m for m in messages if not isinstance(m, SessionReady | Loading | Queued)]
    numbers = [m.seq for m in events if not (isinstance(m, Notice) and m.code == "RECONNECTING")]
    assert numbers == list(range(1, len(numbers) + 1))
    done = messages[-1]
    assert isinstance(done, TurnComplete) and done.reply == WORDS
    sound = b"".join(p for m in messages if isinstance(m, Sound) for p in m.packets)
    assert len(sound) / 32 == pytest.approx(done.audio_ms, abs=1)


@pytest.mark.usefixtures("brief_waits")
async def test_words_on_a_line_that_breaks_are_answered_once(quick: Server) -> None:
    async with cutting_proxy(quick.url) as proxy, connect(proxy.url, {"audio_out": OUT}) as talk:
        await talk.ready()
        proxy.hold()
        await talk.text("Are you there?")
        await asyncio.sleep(0.1)
        proxy.cut(late_s=0.3)
        messages = await until_complete(talk)
        assert isinstance(messages[-1], TurnComplete) and messages[-1].transcript == "Are you there?"
        # Neither the resend nor the late one begins another turn.
        await asyncio.sleep(0.5)
        await talk.text("Again.")
        [*_, done] = await until_complete(talk)
    assert isinstance(done, TurnComplete) and (done.transcript, done.number) == ("Again.", 2)
