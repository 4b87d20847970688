"""The systems of `benchmarks.overhead`: how each is started with instant engines, and called."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from app.roles import EngineFailed, Misconfigured
from app.talk import NoServer, health
from benchmarks.common.instant_client import Caller
from benchmarks.common.process import answering, free_port, started
from benchmarks.peers import peer as find_peer
from benchmarks.peers.environment import environment as make_environment

_ROOT = Path(__file__).parents[2]
_START_S = 60.0
_VAD_FRAME = 512
_END_MS = 500
_PIPECAT_BOT = Path(__file__).with_name("instant_pipecat.py")

C = TypeVar("C", bound=Caller)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs: its process, and how to call it."""

    pid: int
    call: Callable[[], Awaitable[Caller]]


@dataclass(frozen=True, slots=True)
class System:
    """`serve(core, sessions)` runs it on one core, ready for so many sessions, as long as the block lasts."""

    name: str
    serve: Callable[[int, int], AbstractAsyncContextManager[Running]]


async def _called(make: type[C], url: str) -> C:
    port = urlsplit(url).port
    assert port is not None
    _, caller = await asyncio.get_running_loop().create_connection(lambda: make(url), "127.0.0.1", port)
    return caller


# --- ours ----------------------------------------------------------------------------------------


class _Ours(Caller):
    """A session of ours. `speech_stopped` says where speech ended; the end wait is fixed here."""

    def message(self, message: dict[str, object]) -> None:
        match message["type"]:
            case "session_ready":
                self.ready.set_result(None)
            case "speech_stopped":
                at_ms = message["at_ms"]
                assert isinstance(at_ms, int | float)
                frames = round(at_ms * 16 / _VAD_FRAME) + -(-_END_MS * 16 // _VAD_FRAME)
                self.ended(frames * _VAD_FRAME)
            case "error" | "notice":
                self.errors.append(f"{message['code']}: {message['message']}")
            case "interrupted" | "turn_dropped":
                self.errors.append(str(message["type"]))


def ours(*, with_vad: bool, environment: Mapping[str, str] | None = None) -> System:
    """`instant_server` of this checkout, with a fixed end wait: where a turn ends is the audio's matter
    alone. The client cancels echoes, as browsers do. `environment` is put over this process's own."""
    turns = {"adaptive": False, "end_ms": _END_MS, "echo": False}
    wish = {"audio_out": {"binary": True}, "turn_detection": turns}

    @asynccontextmanager
    async def serve(core: int, sessions: int) -> AsyncIterator[Running]:
        with tempfile.TemporaryDirectory(prefix="colloquy-bench-") as folder:
            url = f"http://127.0.0.1:{(port := free_port())}"
            command = [sys.executable, "-m", "benchmarks.common.instant_server", "--port", str(port)]
            command += ["--core", str(core), "--sessions", str(sessions)]
            if not with_vad:
                command.append("--without-vad")
            path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            own = {"DATA_DIR": f"{folder}/data", "PYTHONPATH": path}
            async with (
                started("the server", command, {**(environment or {}), **own}) as process,
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=_START_S) as http,
            ):
                await _ready(url)

                async def call() -> Caller:
                    answer = await http.post("/api/v1/sessions", json=wish)
                    if answer.status_code != 201:
                        raise EngineFailed(f"no session: {answer.text}")
                    session = answer.json()
                    where = f"{url.replace('http', 'ws', 1)}{session['ws_url']}?token={session['token']}"
                    return await _called(_Ours, where)

                yield Running(process.pid, call)

    return System("colloquy", serve)


async def _ready(url: str) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + _START_S
    while True:
        try:
            if (await health(url))["status"] == "healthy":
                return
        except NoServer:
            if loop.time() > until:
                raise
        await asyncio.sleep(0.2)


# --- Pipecat -------------------------------------------------------------------------------------


class _Pipecat(Caller):
    """A conversation with `instant_pipecat`."""

    def message(self, message: dict[str, object]) -> None:
        match message.get("type"):
            case "ready":
                self.ready.set_result(None)
            case "ended":
                sample = message["sample"]
                assert isinstance(sample, int)
                self.ended(sample)
            case "error" | "error-response":
                self.errors.append(str(message.get("data")))


async def peer(name: str, *, with_vad: bool) -> System:
    """A peer with instant engines; its environment is made on first use."""
    if name != "pipecat":
        raise Misconfigured(f"{name!r} has no instant engines here; there is: pipecat")
    requirements = find_peer(name).requirements
    python = await make_environment(requirements)
    version = re.search(r"^pipecat-ai==(\S+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)

    @asynccontextmanager
    async def serve(core: int, sessions: int) -> AsyncIterator[Running]:
        port = free_port()
        command = [str(python), "-P", str(_PIPECAT_BOT), "--port", str(port), "--core", str(core)]
        if not with_vad:
            command.append("--without-vad")
        async with started("Pipecat", command) as process:
            await answering("Pipecat", process, f"http://127.0.0.1:{port}/health", seconds=2 * _START_S)
            yield Running(process.pid, lambda: _called(_Pipecat, f"ws://127.0.0.1:{port}/"))

    return System(f"pipecat {version[1] if version else ''}".strip(), serve)
