"""A bare client of the session WebSocket, for tests that look at the frames themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect

from app.api.messages import server_message


class Wire:
    """Frames of one connection; `sound` collects the binary ones, `seen` all messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []
        self.sound: list[bytes] = []

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type_, **fields}))

    async def receive(self) -> dict[str, Any]:
        """The next message; every one must parse strictly as the protocol has it."""
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), 30)
            if isinstance(frame, bytes):
                self.sound.append(frame)
                continue
            server_message.validate_json(frame)
            message: dict[str, Any] = json.loads(frame)
            self.seen.append(message)
            return message

    async def until(self, type_: str) -> dict[str, Any]:
        """The next message of a type; those before it are in `seen`."""
        while (message := await self.receive())["type"] != type_:
            pass
        return message

    async def refused(self) -> dict[str, Any]:
        """The next error; and the session still answers afterwards."""
        error = await self.until("error")
        await self.send("ping", timestamp=7)
        pong = await self.until("pong")
        assert pong["timestamp"] == 7
        return error

    async def play(self, samples: npt.NDArray[np.float32], *, pace: float = 0.0) -> None:
        """Send sound as binary PCM16 in 20 ms frames, `pace` times real time (0: at once)."""
        pcm = (samples * 32767).astype("<i2").tobytes()
        for at in range(0, len(pcm), 640):
            await self.socket.send(pcm[at : at + 640])
            if pace:
                await asyncio.sleep(0.02 / pace)


async def new_session(url: str, headers: dict[str, str] | None = None, **settings: Any) -> dict[str, str]:
    """`POST /api/v1/sessions`."""
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        response = await http.post("/api/v1/sessions", json=settings)
        assert response.status_code == 201, response.text
        created: dict[str, str] = response.json()
        return created


@asynccontextmanager
async def join(url: str, session: dict[str, str], **options: Any) -> AsyncIterator[Wire]:
    """A connection to a session."""
    address = f"{url.replace('http', 'ws', 1)}{session['ws_url']}?token={session['token']}"
    async with connect(address, max_size=None, **options) as socket:
        yield Wire(socket)


@asynccontextmanager
async def talking(url: str, **settings: Any) -> AsyncIterator[Wire]:
    """A new session, connected and ready; ended afterwards."""
    session = await new_session(url, **settings)
    try:
        async with join(url, session) as wire:
            await wire.until("session_ready")
            yield wire
    finally:
        async with httpx.AsyncClient(base_url=url) as http:
            await http.delete(f"/api/v1/sessions/{session['session_id']}")
