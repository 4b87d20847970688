"""How every door closes a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

HANG_UP_S = 5.0
_LONGEST = 120
"""Bytes of a reason; the protocol (RFC 6455, 5.5) has room for 123."""


async def close(socket: WebSocket, code: int, reason: str) -> None:
    """Close, if it is open. Who does not read cannot be told; when this returns the server hangs up."""
    if socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(HANG_UP_S):
                await socket.close(code, reason.encode()[:_LONGEST].decode(errors="ignore"))
