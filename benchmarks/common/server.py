"""A server of its own for a benchmark: another process, so that client and server share no GIL."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from asyncio.subprocess import STDOUT, Process, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_server
from typing import Any

from app.roles import EngineFailed
from app.talk import NoServer, health
from benchmarks.common.report import note

_ROOT = Path(__file__).parents[2]
_START_S = 60.0
_STOP_S = 30.0
_LOG_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Server:
    """A server whose models are loaded. `models` by role; `pid` is None where somebody else started it."""

    url: str
    models: dict[str, str]
    pid: int | None

    def cpu_seconds(self) -> float | None:
        """Processor time used so far, in seconds; None where that cannot be read."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


@asynccontextmanager
async def serving(url: str | None) -> AsyncIterator[Server]:
    """The server at `url`, or, without one, a fresh one of this checkout (`colloquy serve`): settings
    from the environment, data of its own. Raises `NoServer`, or `EngineFailed` if a model cannot be had."""
    if url is not None:
        yield Server(url, await _models(url, None), None)
        return
    with (
        tempfile.TemporaryDirectory(prefix="colloquy-bench-") as folder,
        create_server(("127.0.0.1", 0)) as probe,
    ):
        port: int = probe.getsockname()[1]
        probe.close()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-c", "from app.cli import main; main()", "serve", "--port", str(port)]
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"DATA_DIR": f"{folder}/data", "HOST": "127.0.0.1", "PYTHONPATH": path}
        log = Path(folder) / "server.log"
        with log.open("wb") as out:
            process = await create_subprocess_exec(*command, env=environment, stdout=out, stderr=STDOUT)
        try:
            yield Server(url, await _models(url, process), process.pid)
        except BaseException:
            note(f"the server's last lines:\n{log.read_text(errors='replace')[-_LOG_CHARACTERS:]}")
            raise
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


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
