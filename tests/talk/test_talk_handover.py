"""Server processes that are killed while somebody talks: another one goes on, through Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from cutting_proxy import Proxy, cutting_proxy
from redis_server import redis_server

from app.api.messages import (
    Loading,
    Notice,
    Queued,
    ServerMessage,
    SessionReady,
    TranscriptionFinal,
    TurnComplete,
)
from app.audio.codecs import pack_pcm16
from app.roles import Samples
from app.talk import Sound, Talk, client, connect
from corpus import load, questions, wer

ROOT = Path(__file__).parents[2]
OUT = {"codec": "pcm16", "sample_rate": 16000, "binary": True}


class Process:
    """`colloquy serve` with all models."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        code = "from app.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", self.url.rpartition(":")[2]]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, env=os.environ | environment, cwd=ROOT, stdout=out, stderr=out
            )

    async def ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.url) as http, asyncio.timeout(240):
            while True:
                try:
                    if (await http.get("/health")).json()["status"] == "healthy":
                        return
                except httpx.TransportError:
                    assert self._process.poll() is None, "the server did not start"
                await asyncio.sleep(0.2)

    def kill(self) -> None:
        """As if the machine were gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """As an operator does."""
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture
async def house(models_dir: Path, tmp_path: Path) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes of one server."""
    with redis_server(tmp_path) as redis:
        environment = {
            "SHARED_STATE_URL": redis.url,
            "DATA_DIR": str(tmp_path / "data"),
            "MODELS_DIR": str(models_dir),
            "SESSION_SECRET": "the same for both",
        }
        two = [Process(environment, tmp_path / f"{i}.log") for i in range(2)]
        try:
            for one in two:
                await one.ready()
            yield two[0], two[1]
        finally:
            for one in two:
                one.kill()


@pytest.fixture(autouse=True)
def brief_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(client, "_LONGEST_WAIT_S", 0.3)
    return


async def play(talk: Talk, samples: Samples) -> None:
    """Speak, in real time."""
    for at in range(0, len(samples), 320):
        await talk.send_audio(pack_pcm16(samples[at : at + 320]))
        await asyncio.sleep(0.02)


async def hear(talk: Talk, seen: list[ServerMessage]) -> None:
    async for message in talk:
        seen.append(message)


async def until_complete(seen: list[ServerMessage]) -> TurnComplete:
    async with asyncio.timeout(90):
        while not (done := [m for m in seen if isinstance(m, TurnComplete)]):
            await asyncio.sleep(0.02)
    return done[0]


def check(seen: list[ServerMessage], done: TurnComplete) -> None:
    """Every event once, in order; the sound is whole."""
    events = [m for m in seen if not isinstance(m, SessionReady | Loading | Queued)]
    numbers = [m.seq for m in events if not (isinstance(m, Notice) and m.code == "RECONNECTING")]
    assert numbers == list(range(1, len(numbers) + 1))
    sound = [m for m in seen if isinstance(m, Sound)]
    assert sum(m.duration_ms for m in sound) == pytest.approx(done.audio_ms, abs=20)
    assert [m.resumed for m in seen if isinstance(m, SessionReady)] == [True]


async def moved(proxy: Proxy, first: Process, second: Process, *, kindly: bool) -> None:
    proxy.turn_to(second.url)
    await asyncio.to_thread(first.stop if kindly else first.kill)


@pytest.mark.parametrize("kindly", [False, True])
async def test_a_sentence_and_a_reply_go_on_in_another_process(
    house: tuple[Process, Process], kindly: bool
) -> None:
    first, second = house
    recording = next(r for r in questions() if 4 < len(load(r)) / 16000 < 8)
    sound = load(recording)
    half = len(sound) // 2
    seen: list[ServerMessage] = []
    async with cutting_proxy(first.url) as proxy, connect(proxy.url, {"audio_out": OUT}) as talk:
        await talk.ready()
        hearing = asyncio.create_task(hear(talk, seen))
        await play(talk, sound[:half])
        await asyncio.gather(
            moved(proxy, first, second, kindly=kindly),
            play(talk, np.concatenate([sound[half:], np.zeros(32000, np.float32)])),
        )
        done = await until_complete(seen)
        hearing.cancel()
        session = f"/api/v1/sessions/{talk.session_id}/turns"
        async with httpx.AsyncClient(base_url=second.url) as http, asyncio.timeout(20):
            while not (turns := (await http.get(session)).json()):
                await asyncio.sleep(0.05)
    check(seen, done)
    [final] = [m for m in seen if isinstance(m, TranscriptionFinal)]
    assert wer(recording.text, final.text) < 0.3
    assert done.reply and turns[0]["transcript"] == final.text and turns[0]["reply"] == done.reply


async def test_a_reply_goes_on_in_another_process(house: tuple[Process, Process]) -> None:
    first, second = house
    seen: list[ServerMessage] = []
    async with cutting_proxy(first.url) as proxy, connect(proxy.url, {"audio_out": OUT}) as talk:
        await talk.ready()
        hearing = asyncio.create_task(hear(talk, seen))
        await talk.text("Tell me in three sentences what a bridge is for.")
        async with asyncio.timeout(60):
            while sum(m.duration_ms for m in seen if isinstance(m, Sound)) < 1500:
                await asyncio.sleep(0.02)
        await moved(proxy, first, second, kindly=False)
        done = await until_complete(seen)
        hearing.cancel()
    check(seen, done)
    assert not done.interrupted
    written = "".join(getattr(m, "token", "") for m in seen)
    assert done.reply == written.strip()
    spoken = " ".join(m.text for m in seen if isinstance(m, Sound) and m.text)
    assert spoken.split() == written.split()
