"""A TCP proxy that can cut what goes through it, and refuse for a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Proxy:
    """`url` is where it listens. While `down`, whoever connects is hung up on."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname and parts.port
        self._target = parts.hostname, parts.port
        self._writers: set[asyncio.StreamWriter] = set()
        self.down = False
        self.url = ""
        self.accepted = 0

    def cut(self) -> None:
        """End all connections at once, without a goodbye."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        self.accepted += 1
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, far_writer))
                group.create_task(self._pipe(far_reader, writer))
        finally:
            self._writers -= ends

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def cutting_proxy(target: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the server at `target` (http://host:port)."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        await asyncio.sleep(0.05)  # for the pipes to notice
