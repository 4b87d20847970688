"""A server as `colloquy serve` runs it, for tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import runtime
from app.cli.server import config, listen
from app.main import create_app
from app.settings import Settings


def make_settings(models_dir: Path, data: Path, **changes: object) -> Settings:
    """Settings that no environment or file of this machine changes."""
    given: dict[str, object] = {
        "models_dir": models_dir,
        "data_dir": data / "data",
        "master_key_file": data / "config" / "master.key",
        "port": 0,
    }
    return Settings(_env_file=None, **(given | changes))  # type: ignore[arg-type]


@dataclass(slots=True)
class Server:
    """A running server. `url` has no slash at its end."""

    url: str
    app: FastAPI
    settings: Settings
    uvicorn: uvicorn.Server

    @property
    def ws(self) -> str:
        """The same for WebSockets."""
        return self.url.replace("http", "ws", 1)


@contextmanager
def scripted(settings: Settings, *, send_buffer: int | None = None, **engines: Any) -> Iterator[Server]:
    """`running` with engines that do what a test says, for tests that are not about them: `vad`, `stt`,
    `llm` and `tts`."""
    settings = settings.model_copy(update={"turn_provider": "none", "stt_partial_provider": "whisper"})
    before = dict(runtime.PROVIDERS)
    for role, engine in engines.items():

        async def build(_: Any, engine: Any = engine) -> Any:
            return engine

        runtime.PROVIDERS.update({key: build for key in before if key[0] == role})
    try:
        with running(settings, send_buffer=send_buffer) as server:
            while not (context := getattr(server.app.state, "context", None)) or not context.runtime.ready:
                time.sleep(0.01)
            yield server
    finally:
        runtime.PROVIDERS.update(before)


@contextmanager
def running(
    settings: Settings, app: FastAPI | None = None, *, send_buffer: int | None = None
) -> Iterator[Server]:
    """Serve on a free port of loopback, on a thread of its own, as `colloquy serve` does. `send_buffer`
    is how many bytes the kernel keeps for a reader, if not its own choice (megabytes)."""
    app = app or create_app(settings)
    listener = listen("127.0.0.1", 0)
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    server = uvicorn.Server(config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.02)
    try:
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", app, settings, server)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()
