"""Real parts for the tests: models from the manifest, recordings of people, a running server."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from app.engines.workers import Workers
from app.main import create_app
from app.models.store import ModelStore
from app.roles import RoleSet
from app.runtime import Runtime
from app.settings import Settings

MODELS = Path(os.environ["COLLOQUY_MODELS_DIR"]) if "COLLOQUY_MODELS_DIR" in os.environ else None


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Where models are kept between test runs."""
    return MODELS or Settings(_env_file=None).models_dir  # type: ignore[call-arg]


@pytest.fixture(scope="session")
def model_dir(models_dir: Path) -> Callable[[str], Path]:
    """Gives the folder of a model, fetched if need be."""
    store = ModelStore(models_dir)

    def folder(name: str) -> Path:
        return store.present(name) or asyncio.run(store.fetch(name, lambda done, message: None))

    return folder


@pytest.fixture
def settings(models_dir: Path, tmp_path: Path) -> Settings:
    """The embedded defaults with data of their own."""
    return make_settings(models_dir, tmp_path)


def make_settings(models_dir: Path, data: Path, **changes: object) -> Settings:
    """Settings that no environment or file of this machine changes."""
    given: dict[str, object] = {"models_dir": models_dir, "data_dir": data / "data", "port": 0}
    return Settings(_env_file=None, **(given | changes))  # type: ignore[arg-type]


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Two worker threads."""
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
async def roles(settings: Settings) -> AsyncIterator[RoleSet]:
    """All embedded engines, loaded for one test."""
    runtime = Runtime(settings)
    runtime.start()
    try:
        yield await runtime.roles()
    finally:
        await runtime.close()


@dataclass(slots=True)
class Server:
    """A running server. `url` has no slash at its end."""

    url: str
    app: FastAPI
    settings: Settings

    @property
    def ws(self) -> str:
        """The same for WebSockets."""
        return self.url.replace("http", "ws", 1)


@contextmanager
def running(settings: Settings, app: FastAPI | None = None) -> Iterator[Server]:
    """Serve on a free port of loopback, on a thread of its own, as `colloquy serve` does."""
    app = app or create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, ws="websockets-sansio", ws_max_size=1 << 24, timeout_graceful_shutdown=10
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.02)
    try:
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", app, settings)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


@pytest.fixture(scope="session")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One embedded server with all models, for the whole test run."""
    settings = make_settings(models_dir, tmp_path_factory.mktemp("server"), max_sessions=8)
    with running(settings) as server:
        context = server.app.state.context
        deadline = time.monotonic() + 600
        while not context.runtime.ready:
            failed = [s.message for s in context.runtime.status.values() if s.state == "failed"]
            if failed or time.monotonic() > deadline:
                raise RuntimeError(f"models are not ready: {failed or context.runtime.status}")
            time.sleep(0.1)
        yield server
