"""A server of its own for a benchmark: another process, so that client and server share no GIL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common.report import note

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Server:
    """`url` has no slash at its end; `pid` is None where somebody else started it."""

    url: str
    pid: int | None

    def cpu_seconds(self) -> float | None:
        """Processor time used so far, in seconds; None where that cannot be read."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


@contextmanager
def serving(url: str | None) -> Iterator[Server]:
    """The server at `url`, or, without one, a fresh server of this checkout: settings from the
    environment as for any server, a data folder of its own, models loaded."""
    if url is not None:
        wait_until_healthy(url.rstrip("/"), None)
        yield Server(url.rstrip("/"), None)
        return
    with tempfile.TemporaryDirectory(prefix="colloquy-bench-") as folder:
        log = Path(folder) / "server.log"
        port = _free_port()
        command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", str(port)]
        command += ["--ws", "websockets-sansio", "--ws-max-size", str(1 << 24), "--log-level", "warning"]
        environment = os.environ | {"DATA_DIR": f"{folder}/data", "PORT": str(port), "HOST": "127.0.0.1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process)
            yield Server(f"http://127.0.0.1:{port}", process.pid)
        except BaseException:
            note(f"the server's last lines:\n{log.read_text(errors='replace')[-2000:]}")
            raise
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """Wait until every model is loaded; what `/health` says then. Exits with a message if the
    server cannot be reached or a model failed."""
    told = ""
    began = time.monotonic()
    while True:
        if process is not None and process.poll() is not None:
            raise SystemExit(f"the server stopped with status {process.returncode}")
        try:
            health: dict[str, Any] = httpx.get(f"{url}/health", timeout=10).raise_for_status().json()
        except httpx.HTTPError as error:
            if process is None or time.monotonic() - began > 60:
                raise SystemExit(f"no server answers at {url}: {error}") from None
            time.sleep(0.1)
            continue
        if health["status"] == "healthy":
            return health
        failed = [f"{r['role']}: {r['message']}" for r in health["roles"] if r["state"] == "failed"]
        if failed:
            raise SystemExit("models did not load: " + "; ".join(failed))
        fetching = ", ".join(r["model"] for r in health["roles"] if r["state"] == "fetching")
        if fetching and fetching != told:
            note(f"fetching {fetching}")
            told = fetching
        time.sleep(0.1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
