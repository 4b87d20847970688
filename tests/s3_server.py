"""A real S3 server on loopback, for tests: objects in a folder, a free port, signatures checked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.stores.s3 import S3Access

_KEY_ID, _SECRET = "tests", "a-secret-of-the-tests"


class S3Server:
    """`start` and `stop` as a test likes; the address stays. It keeps objects as files, so a key may not
    be the beginning of another."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.access = S3Access(f"http://127.0.0.1:{self.port}", "us-east-1", _KEY_ID, _SECRET)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def bucket(self, name: str) -> str:
        """Make a bucket; its URL."""
        (self._folder / name / ".nanio-meta").mkdir(parents=True)
        return f"s3://{name}"

    def folder_of(self, bucket: str) -> Path:
        """Where the objects of a bucket lie."""
        return self._folder / bucket.removeprefix("s3://")

    @property
    def environment(self) -> dict[str, str]:
        """The settings that lead to it."""
        return {
            "S3_ENDPOINT_URL": str(self.access.endpoint_url),
            "S3_REGION": "us-east-1",
            "S3_ACCESS_KEY_ID": _KEY_ID,
            "S3_SECRET_ACCESS_KEY": _SECRET,
        }

    def start(self) -> None:
        """Returns once it answers."""
        options = f"--host 127.0.0.1 --port {self.port} --no-access-log --log-level error".split()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nanio", "serve", "--data-dir", str(self._folder), *options],
            env={**os.environ, "NANIO_ACCESS_KEY": _KEY_ID, "NANIO_SECRET_KEY": _SECRET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the S3 server did not start") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server that runs while the block does."""
    server = S3Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
