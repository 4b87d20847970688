"""Server processes that hear chords, on data that they may share."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from app_simulator import App
from serving import Server

TESTS = Path(__file__).parents[1]
KEY = "key-number-0"
SCALE = 1000.0


class Process:
    """A server process that hears chords."""

    def __init__(self, data: Path) -> None:
        command = [sys.executable, str(TESTS / "wearable/chord_server.py"), str(data), KEY]
        environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}:{TESTS / 'wearable'}"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)

    async def phone(self, **query: Any) -> App:
        assert self._process.stdout is not None
        url = await asyncio.to_thread(self._process.stdout.readline)
        settings: Any = None
        server = Server(url.strip(), settings, settings, settings)
        return App(server, query, {"Authorization": f"Bearer {KEY}"}, scale=SCALE)

    def kill(self) -> None:
        """As if the machine were gone. Idempotent."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def process(data: Path) -> AsyncIterator[Process]:
    one = Process(data)
    try:
        yield one
    finally:
        one.kill()


async def heard_out(phone: App) -> None:
    """What was sent is heard before the phone is back: it is away for longer than that takes."""
    async with httpx.AsyncClient(base_url=phone.server.url) as client, asyncio.timeout(60):
        while (await client.get("/health")).json()["sessions"]:
            await asyncio.sleep(0.02)


async def kept(phone: App) -> list[dict[str, Any]]:
    """The segments by REST."""
    async with httpx.AsyncClient(base_url=phone.server.url, headers=phone.headers, timeout=60) as client:
        conversations = (await client.get("/v1/conversations")).json()
    assert len(conversations) <= 1
    return [segment for c in conversations for segment in c["transcript_segments"]]
