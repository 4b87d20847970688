"""A real HTTP server for files, with the ways in which networks fail; wheels and manifests to go with it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from app.models.manifest import HubSource, Manifest, Model, ModelFile, Package, PackageSource

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FileServer:
    """Serves `files` (path -> content) with Range.

    `break_after` holds, for coming requests, after how many bytes to drop the connection. Bodies whose
    path contains a key of `slow` trickle, so many bytes in 20 ms; `dropped` is set when a client goes
    away from one. `requests` records path and first byte asked for.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    ranges: bool = True
    slow: dict[str, int] = field(default_factory=dict)
    dropped: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, int]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def starts(self, path: str) -> list[int]:
        return [start for asked, start in self.requests if asked.endswith(path)]


def _handler(state: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            state.requests.append((self.path, start))
            if to := state.redirects.get(self.path):
                self.send_response(302)
                self.send_header("Location", to)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = state.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            if asked and state.ranges:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                body = body[start:]
            else:
                self.send_response(200)
            self.send_header(
                "Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream"
            )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.break_after:
                self.wfile.write(body[: state.break_after.pop(0)])
                self.close_connection = True
            else:
                self._send(body)

        def _send(self, body: bytes) -> None:
            sent = 0
            try:
                while sent < len(body):
                    step = next((step for part, step in state.slow.items() if part in self.path), len(body))
                    self.wfile.write(body[sent : sent + step])
                    sent += step
                    if step < len(body):
                        time.sleep(0.02)
            except OSError:
                state.dropped.set()
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def serve(state: FileServer, port: int = 0) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def stop(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress and differ from place to place."""
    blocks = (hashlib.sha256(f"{seed}-{i}".encode()).digest() for i in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def described(path: str, body: bytes) -> ModelFile:
    return ModelFile(path, hashlib.sha256(body).hexdigest(), len(body))


def hub() -> HubSource:
    return HubSource("hub", "someone/thing", REVISION)


def hub_path(path: str) -> str:
    return f"/someone/thing/resolve/{REVISION}/{path}"


def manifest(
    files: dict[str, bytes],
    *sources: HubSource | PackageSource,
    name: str = "thing",
    packages: dict[str, Package] | None = None,
) -> Manifest:
    described_files = tuple(described(path, body) for path, body in files.items())
    size = sum(len(body) for body in files.values())
    return Manifest(packages or {}, (Model(name, "test", "MIT", size, described_files, sources),))


def make_wheel(
    folder: Path, name: str, version: str, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    """A wheel that pip accepts, with `members`."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", compression) as wheel:
        for member, body in members.items():
            wheel.writestr(member, body)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


async def until(condition: Callable[[], object]) -> None:
    """Wait for something outside this process's event loop."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


class Heard:
    """Listens to progress; holds it to its promise."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.messages: list[str] = []

    def __call__(self, fraction: float, message: str) -> None:
        assert not self.fractions or fraction >= self.fractions[-1]
        assert 0 <= fraction <= 1
        assert message
        self.fractions.append(fraction)
        self.messages.append(message)


def leftovers(root: Path) -> list[Path]:
    """All files below a store's root besides its locks."""
    return [path for path in root.rglob("*") if path.is_file() and path.parent.name != ".locks"]
