"""Processes that a benchmark starts, and ends."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from asyncio.subprocess import STDOUT, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from socket import create_server

import httpx

from app.roles import EngineFailed
from benchmarks.common.report import note

_STOP_S = 30.0
_LOG_CHARACTERS = 2000


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def started(
    what: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """Run `command`, and end it with the block. `environment` is put over this process's own. What the
    process printed last is shown if the block fails; `what` says whose lines these are."""
    with tempfile.TemporaryDirectory(prefix="colloquy-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = await create_subprocess_exec(
                *command, env=os.environ | (environment or {}), stdout=out, stderr=STDOUT
            )
        try:
            yield process
        except BaseException as error:
            # Of several processes the one that is closest to the failure tells, and each that died.
            if process.returncode is None and getattr(error, "__notes__", None):
                raise
            error.add_note(f"what {what} printed last is shown above")
            lines = log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:]
            note(f"the last lines of {what}:\n{lines}")
            raise
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def answering(what: str, process: Process, url: str, *, seconds: float) -> None:
    """Wait until a GET of `url`, on this machine, is answered with 200. Raises `EngineFailed` if the
    process ends before, or does not answer within `seconds`."""
    began = time.monotonic()
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        while True:
            if process.returncode is not None:
                raise EngineFailed(f"{what} stopped with status {process.returncode}")
            try:
                if (await http.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() - began > seconds:
                raise EngineFailed(f"{what} did not answer within {seconds:.0f} s")
            await asyncio.sleep(0.2)


def memory_mb(*, peak: bool = False) -> float:
    """Resident memory of this process in MB, or the most that it ever was; Linux only."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024
