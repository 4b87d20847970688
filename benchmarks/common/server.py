"""Our own server for a benchmark: another process, so that client and server share no GIL."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.api.messages import (
    ErrorOut,
    Notice,
    SpeechStarted,
    SpeechStopped,
    TranscriptionFinal,
    TurnComplete,
    TurnDropped,
)
from app.roles import EngineFailed
from app.talk import NoServer, Talk, connect, health
from app.talk import Sound as SoundOut
from benchmarks.common.process import free_port, started
from benchmarks.common.report import note
from benchmarks.common.system import Began, Event, Line, Over, Sound, Stopped, System, Transcript, Trouble

_ROOT = Path(__file__).parents[2]
_START_S = 60.0
_RATE_OUT = 24_000


@asynccontextmanager
async def serving(url: str | None) -> AsyncIterator[System]:
    """The server at `url`, or, without one, a fresh one of this checkout (`colloquy serve`): settings
    from the environment, data of its own. Raises `NoServer`, or `EngineFailed` if a model cannot be had."""
    if url is not None:
        yield System("colloquy", await _models(url, None), (), lambda: conversing(url))
        return
    with tempfile.TemporaryDirectory(prefix="colloquy-bench-") as folder:
        port = free_port()
        own = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", str(port)]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        environment = {"DATA_DIR": f"{folder}/data", "HOST": "127.0.0.1", "PYTHONPATH": path}
        async with started("the server", command, environment) as process:
            yield System("colloquy", await _models(own, process), (process.pid,), lambda: conversing(own))


class _Line:
    """A session of ours as a `Line`."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def send(self, pcm16: bytes) -> None:
        await self._talk.send_audio(pcm16)

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for message in self._talk:
            match message:
                case ErrorOut() | Notice():
                    yield Trouble(f"{message.code}: {message.message}")
                case SpeechStarted():
                    yield Began(message.turn_id)
                case SpeechStopped():
                    yield Stopped(message.turn_id, message.at_ms)
                case TranscriptionFinal():
                    yield Transcript(message.turn_id, message.text)
                case SoundOut():
                    for packet in message.packets:
                        yield Sound(message.turn_id, self._talk.received_at, packet, _RATE_OUT)
                case TurnDropped():
                    yield Over(message.turn_id)
                case TurnComplete():
                    yield Over(message.turn_id, message.latency, message.reply)


@asynccontextmanager
async def conversing(url: str) -> AsyncIterator[Line]:
    """A new session of the server at `url`, with its default settings but for sound as binary frames."""
    async with connect(url, {"audio_out": {"binary": True}}) as talk:
        await talk.ready()
        yield _Line(talk)


async def _models(url: str, process: Process | None) -> dict[str, str]:
    """Wait until every model is loaded; which they are, by role."""
    told = ""
    began = time.monotonic()
    while True:
        if process is not None and process.returncode is not None:
            raise NoServer(f"the server stopped with status {process.returncode}")
        try:
            answer: dict[str, Any] = await health(url)
        except NoServer:
            if process is None or time.monotonic() - began > _START_S:
                raise
        else:
            roles = answer["roles"]
            if answer["status"] == "healthy":
                return {role["role"]: role["model"] for role in roles}
            if failed := [f"{r['role']}: {r['message']}" for r in roles if r["state"] == "failed"]:
                raise EngineFailed("models did not load: " + "; ".join(failed))
            fetching = ", ".join(role["model"] for role in roles if role["state"] == "fetching")
            if fetching and fetching != told:
                note(f"fetching {fetching}")
                told = fetching
        await asyncio.sleep(0.2)
