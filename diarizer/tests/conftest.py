"""The service on a real socket."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from diarizer.app import create_app
from diarizer.settings import Settings

with warnings.catch_warnings():
    # While this file is read, every warning is an error: that there is no decoder is meant.
    warnings.simplefilter("ignore")
    from diarizer.tests import material

KEY = "a-key-for-the-test"

Serve = Callable[..., httpx.Client]

_TALKATIVE = "pyannote speechbrain torch torchaudio lightning hyperpyyaml asteroid_filterbanks".split()
"""Libraries whose warnings the service does not show either (`__main__`)."""


def pytest_configure(config: pytest.Config) -> None:
    for where in _TALKATIVE:
        config.addinivalue_line("filterwarnings", f"ignore:::{where}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with real weights."""
    return material.diarization(tmp_path_factory.mktemp("models") / "pipeline")


@contextmanager
def _serving(settings: Settings) -> Iterator[httpx.Client]:
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        key = settings.api_key.get_secret_value()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=100) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def wait_until(client: httpx.Client, status: str) -> dict[str, Any]:
    """`/health` once it has this status."""
    while (found := client.get("/health").json())["status"] != status:
        time.sleep(0.05)
    health: dict[str, Any] = found
    return health


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Starts services with these settings; `ready=False` does not wait for their models."""
    with ExitStack() as stack:

        def start(*, ready: bool = True, **changes: object) -> httpx.Client:
            given = {"pipeline": str(folder), "api_key": KEY, "device": "cpu"} | changes
            client = stack.enter_context(_serving(Settings(**given)))  # type: ignore[arg-type]
            if ready:
                wait_until(client, "healthy")
            return client

        yield start


@pytest.fixture(scope="session")
def client(folder: Path) -> Iterator[httpx.Client]:
    """A service that is ready; what it is asked is at most 100 s long and 4 MB."""
    settings = Settings(
        pipeline=str(folder), api_key=KEY, device="cpu", max_audio_s=100, max_upload_mb=4, known_distance=0.38
    )
    with _serving(settings) as client:
        wait_until(client, "healthy")
        yield client
