"""Who may come in, and with how much: before a byte of a request is parsed."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.roles import ColloquyError, NotAllowed, TooLarge

_DRAIN_S = 10.0
"""Who sends too much is read for so long before being told: most clients listen only when they have sent
all."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Door:
    """ASGI middleware: the bearer token, and the size of what is sent. `/health` is open to all."""

    def __init__(
        self, app: ASGIApp, *, key: str, limit_mb: float, answer: Callable[[ColloquyError], Response]
    ) -> None:
        self._app, self._key, self._limit_mb, self._answer = app, key.encode(), limit_mb, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["path"] != "/health":
                self._check(Headers(scope=scope))
        except NotAllowed as error:
            await self._answer(error)(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _check(self, headers: Headers) -> None:
        if self._key:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key):
                raise NotAllowed("this service needs its key: send Authorization: Bearer KEY")
            return
        # Without a key only this machine's programs may come, not pages of other sites in its browser.
        host = urlsplit(f"//{headers.get('host', '')}").hostname
        if host not in _LOOPBACK or headers.get("origin"):
            raise NotAllowed("without DIARIZER_API_KEY this service answers only programs on this machine")

    def _limited(self, receive: Receive) -> Receive:
        """`receive` that raises `TooLarge`; a request's own word for its size is not trusted."""
        left = self._limit_mb * 1e6

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_S):
                        while message.get("more_body"):
                            message = await receive()
                raise TooLarge(
                    f"a request may have {self._limit_mb:g} MB: send a shorter or compressed recording"
                )
            return message

        return counted
