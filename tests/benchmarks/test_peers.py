"""What is said to a peer and heard from it: over a real WebSocket, with the peer's own wire."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.roles import EngineFailed
from app.settings import Settings
from benchmarks.common.paced import talking
from benchmarks.common.process import answering, free_port, started
from benchmarks.common.system import Began, Event, Sound, System, Transcript, Trouble
from benchmarks.peers import llm
from benchmarks.peers.pipecat import conversing

RATE_IN, RATE_OUT = 16_000, 24_000
TONE = (np.sin(np.arange(RATE_OUT // 5)) * 8000).astype("<i2").tobytes()
HUSH = bytes(len(TONE))


def rtvi(kind: str, **data: object) -> str:
    return json.dumps({"label": "rtvi-ai", "type": kind, "data": data})


async def parrot(socket: ServerConnection) -> None:
    """Speaks the bot's wire: hears sound as speech, and 300 ms of silence behind it as its end; a
    second of speech is answered on the spot, in the middle of it."""
    await socket.send(json.dumps({"type": "ready"}))
    speech, quiet, speaking, answered = 0, 0, False, False

    async def begin() -> None:
        await socket.send(rtvi("user-started-speaking"))
        if answered:
            await socket.send(TONE)  # the rest of what was said before

    async def answer(words: str) -> None:
        nonlocal answered
        answered = True
        await socket.send(rtvi("user-transcription", text=words, final=False))
        await socket.send(rtvi("user-transcription", text=words, final=True))
        await socket.send(rtvi("bot-llm-started"))
        await socket.send(HUSH)
        await socket.send(TONE)

    async for data in socket:
        assert isinstance(data, bytes) and len(data) == 2 * RATE_IN // 50
        if np.abs(np.frombuffer(data, "<i2")).max() > 1000:
            quiet, speech = 0, speech + 1
            if not speaking:
                speaking = True
                await begin()
            if speech == 50:
                await answer("so much")
                await begin()
        elif speaking and (quiet := quiet + 1) == 15:
            await answer(f"{speech} frames")
            speech, speaking = 0, False


@asynccontextmanager
async def parrots() -> AsyncIterator[System]:
    async with serve(parrot, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield System("parrot", {}, (), lambda: conversing(f"ws://127.0.0.1:{port}/"))


def voice(seconds: float) -> np.ndarray:
    """Something with a level, for a listener that asks for no more."""
    noise = np.random.default_rng(0).normal(0, 0.2, int(seconds * RATE_IN)).astype(np.float32)
    return np.clip(noise, -0.9, 0.9)


async def test_the_same_client_speaks_to_a_peer() -> None:
    async with parrots() as system, talking(system, by_ear=True) as talker:
        first = await talker.ask(voice(0.5))
        second = await talker.ask(voice(0.6))
    # What is left of an answer when the next turn has begun belongs to it, and to no other.
    assert [t.received_s for e in (first, second) for t in e.turns] == pytest.approx([0.6, 0.4])
    for exchange, words in ((first, "25 frames"), (second, "30 frames")):
        assert exchange.answer is not None
        assert not exchange.premature and exchange.errors == ()
        [turn] = exchange.turns
        assert turn.transcript == words
        # 300 ms of silence are waited for, whatever else the machine does.
        assert turn.first_sound is not None and turn.first_sound - exchange.spoken >= 0.29
        assert turn.leading_s == pytest.approx(0.2, abs=0.001)


async def test_an_answer_in_the_middle_is_premature_and_the_rest_another_turn() -> None:
    async with parrots() as system, talking(system, by_ear=True) as talker:
        exchange = await talker.ask(voice(2.0))
    assert exchange.premature
    early, late = exchange.turns
    assert early.transcript == "so much" and late.transcript == "100 frames"
    assert early.first_sound is not None and early.first_sound < exchange.spoken
    assert exchange.answer is late


async def test_what_a_peer_says_is_told_as_events() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "ready"}))
        await socket.send(rtvi("user-started-speaking"))
        await socket.send(rtvi("bot-llm-started"))
        await socket.send(TONE)
        await socket.send(rtvi("user-started-speaking"))
        await socket.send(TONE)
        await socket.send(rtvi("error", error="no more tokens", fatal=False))
        await socket.send(rtvi("user-transcription", text="hello", final=True))
        await socket.send(rtvi("metrics", ttfb=[]))
        await socket.close()

    heard: list[Event] = []
    async with serve(script, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with conversing(f"ws://127.0.0.1:{port}/") as line:
            with pytest.raises(EngineFailed, match="ended the conversation"):
                async for event in line:
                    heard.append(event)
    sounds = [event for event in heard if isinstance(event, Sound)]
    # The second piece still belongs to the reply that the person has interrupted.
    assert [(s.turn, s.pcm16, s.rate) for s in sounds] == [("1", TONE, RATE_OUT)] * 2
    assert [event for event in heard if not isinstance(event, Sound)] == [
        Began("1"),
        Began("2"),
        Trouble("no more tokens"),
        Transcript("2", "hello"),
    ]


async def test_the_language_model_answers_over_http(
    model_dir: Callable[[str], object], settings: Settings
) -> None:
    model_dir(llm.MODEL)
    async with llm.serving(settings) as endpoint, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        question = {"role": "user", "content": "What is the capital of France? One word."}
        answer = await http.post(
            f"{endpoint.url}/chat/completions",
            json={"model": endpoint.model, "messages": [question], "max_tokens": 8, "temperature": 0},
        )
        system = System("llm", {}, (endpoint.pid,), parrots)  # type: ignore[arg-type]
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
        # The weights alone are 400 MB.
        assert (system.rss_bytes() or 0) > 300e6 and (system.cpu_seconds() or 0) > 0
    assert system.rss_bytes() is None and system.cpu_seconds() is None


async def test_children_count_for_their_parents() -> None:
    child = "import time; room = bytearray(200_000_000); print(1); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    async with started("the parent", [sys.executable, "-c", parent]) as process:
        system = System("family", {}, (process.pid,), parrots)  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            while (system.rss_bytes() or 0) < 200e6:
                await asyncio.sleep(0.05)


async def test_a_process_that_does_not_start_shows_why(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", "import sys; print('no voice'); sys.exit(3)"]
    with pytest.raises(EngineFailed, match="the peer stopped with status 3"):
        async with started("the peer", command) as process:
            await answering("the peer", process, f"http://127.0.0.1:{free_port()}/", seconds=30)
    assert "the last lines of the peer:\nno voice" in capsys.readouterr().err
