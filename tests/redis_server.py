"""A real Redis on loopback, for tests: data in memory, a free port."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RedisServer:
    """`start` and `stop` as a test likes; the address stays."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        options = f"--port {self.port} --bind 127.0.0.1 --dir {self._folder} --appendonly no".split()
        self._process = subprocess.Popen(
            ["redis-server", *options, "--save", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as peer:
                    peer.sendall(b"PING\r\n")
                    if peer.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("redis-server did not start") from None
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def wait_until_gone(self, key: str) -> None:
        """Wait until `key` has expired."""
        from redis.asyncio import Redis

        client = Redis.from_url(self.url)
        async with asyncio.timeout(20):
            while await client.exists(key):
                await asyncio.sleep(0.05)
        await client.aclose()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server that runs while the block does."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
