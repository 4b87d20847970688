"""A TCP proxy that can cut what goes through it, hold it back, and refuse for a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(eq=False, slots=True)
class _Line:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    flows: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """`url` is where it listens. While `down`, whoever connects is hung up on."""

    def __init__(self, target: str) -> None:
        self.turn_to(target)
        self._lines: set[_Line] = set()
        self.down = False
        self.url = ""
        self.accepted = 0

    def turn_to(self, target: str) -> None:
        """New connections go to the server at `target`."""
        parts = urlsplit(target)
        assert parts.hostname and parts.port
        self._target = parts.hostname, parts.port

    def hold(self) -> None:
        """Take what comes on the connections that there are, but pass nothing on."""
        for line in self._lines:
            line.flows.clear()

    def cut(self, *, late_s: float | None = None) -> None:
        """End all connections at once, without a goodbye. What was held is lost; or, after `late_s`,
        it still reaches the server, which has not noticed."""
        loop = asyncio.get_running_loop()
        for line in self._lines:
            line.near.transport.abort()
            if late_s is None:
                line.far.transport.abort()
            loop.call_later(late_s or 0.0, line.flows.set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        self.accepted += 1
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        line = _Line(writer, far_writer)
        line.flows.set()
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(line, reader, far_writer))
                group.create_task(self._pipe(line, far_reader, writer))
        finally:
            self._lines.discard(line)

    async def _pipe(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await line.flows.wait()
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
