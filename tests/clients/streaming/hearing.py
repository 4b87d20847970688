"""What the servers of the tests share: a recogniser that hears a stream, what goes wrong, and a socket.

They speak the providers' documented protocols and are strict about what they are sent, with a real recogniser
behind them: `async with soniox_server(engine, Behaviour()) as url`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

import numpy as np
from websockets.asyncio.server import Request, Response, ServerConnection, serve

from app.roles import SAMPLE_RATE, Job, Samples, SpeechToText, SttOptions, Word

KEY = "streaming-key-of-the-test"
Json = dict[str, Any]


@dataclass(slots=True)
class Behaviour:
    """How a provider behaves. `trouble` begins after `after_s` of sound ("hang": it reads on and says
    nothing; "drop": the connection breaks without a word; "close": `closing`; "error": `error`, in the
    protocol's own shape, then a close; "nonsense": what is not of the protocol), or with `at`."""

    key: str = KEY
    refuse: int = 0
    """HTTP status instead of a WebSocket."""
    hang_open: bool = False
    """The handshake is never answered."""
    trouble: Literal["", "hang", "drop", "close", "error", "nonsense"] = ""
    at: Literal["start", "sound", "finalize", "finish"] = "sound"
    after_s: float = 0.0
    closing: tuple[int, str] = (1011, "out of order")
    error: Json = field(default_factory=dict)
    """For `trouble="error"`: what is sent."""
    delay_s: float = 0.0
    """Each answer comes so late."""
    answers_finalize: bool = True
    idle_s: float = 20.0
    """A stream in which nothing comes for so long is ended."""
    streams: int = 0
    """How many connections were let in."""
    asked: list[Json] = field(default_factory=list)
    """What was sent to begin streams."""
    messages: list[str] = field(default_factory=list)
    """The control messages of all streams, by name."""
    heard_s: float = 0.0
    """Sound of all streams."""


class Ended(Exception):
    """The server is done with a connection."""


class Ear:
    """Hears a stream: what is said, again with every second of new sound, and what is final. Long speech is
    cut at its quietest spot."""

    def __init__(self, engine: SpeechToText) -> None:
        self._engine = engine
        self._sound = np.zeros(0, np.float32)
        self._looked = 0
        self.base = 0.0
        """Up to here all is final, s."""
        self.sent = 0.0

    def feed(self, pcm: bytes) -> None:
        """The next sound, 16-bit at 16 kHz."""
        self._sound = np.concatenate([self._sound, np.frombuffer(pcm, "<i2").astype(np.float32) / 32768])
        self.sent += len(pcm) / 2 / SAMPLE_RATE

    async def look(self) -> tuple[list[Word], list[Word]] | None:
        """Words that are final now, and others; None if there is too little new sound."""
        if len(self._sound) - self._looked < SAMPLE_RATE:
            return None
        final = await self._words(self._quietest()) if len(self._sound) > 9 * SAMPLE_RATE else []
        words = await self._recognise(self._sound)
        self._looked = len(self._sound)
        return final, words

    async def firm(self) -> list[Word]:
        """The final words of all that was sent."""
        return await self._words(len(self._sound))

    async def _words(self, until: int) -> list[Word]:
        words = await self._recognise(self._sound[:until])
        self._sound = self._sound[until:]
        self._looked = 0
        self.base += until / SAMPLE_RATE
        return words

    async def _recognise(self, sound: Samples) -> list[Word]:
        if len(sound) < SAMPLE_RATE // 4 or float(np.sqrt(np.mean(sound**2))) < 0.002:
            return []
        found = await self._engine.transcribe(sound, SttOptions("en"), Job("provider"))
        return [replace(w, start=self.base + w.start, end=self.base + w.end) for w in found.words]

    def _quietest(self) -> int:
        frame = SAMPLE_RATE // 5
        levels = [
            float(np.mean(self._sound[at : at + frame] ** 2))
            for at in range(4 * SAMPLE_RATE, len(self._sound) - SAMPLE_RATE, frame)
        ]
        return 4 * SAMPLE_RATE + frame * int(np.argmin(levels)) + frame // 2


async def misbehave(
    connection: ServerConnection,
    behaviour: Behaviour,
    at: str,
    sent_s: float,
    fail: Callable[[Json], Awaitable[None]],
) -> None:
    """Do what goes wrong now, if anything does. `fail` sends an error and ends the connection."""
    if not behaviour.trouble or at != behaviour.at or (at == "sound" and sent_s < behaviour.after_s):
        return
    match behaviour.trouble:
        case "hang":
            async for _ in connection:
                pass
        case "drop":
            connection.transport.abort()
        case "close":
            await connection.close(*behaviour.closing)
        case "error":
            await fail(behaviour.error)
        case "nonsense":
            await connection.send('{"tokens": [{"text": ')
            await connection.wait_closed()
    raise Ended


@contextlib.asynccontextmanager
async def listening(
    behaviour: Behaviour, path: str, scheme: str | None, handle: Callable[[ServerConnection], Awaitable[None]]
) -> AsyncIterator[str]:
    """A WebSocket server on loopback; gives its URL without `path`. `scheme`: of the header that holds the
    key, which is checked here; None: nothing is."""

    closing = asyncio.Event()

    async def door(connection: ServerConnection, request: Request) -> Response | None:
        if behaviour.hang_open:
            await closing.wait()
        if behaviour.refuse:
            return connection.respond(HTTPStatus(behaviour.refuse), "no\n")
        if request.path.partition("?")[0] != path:
            return connection.respond(HTTPStatus.NOT_FOUND, "no\n")
        if scheme and request.headers.get("Authorization") != f"{scheme} {behaviour.key}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n")
        return None

    async def talk(connection: ServerConnection) -> None:
        behaviour.streams += 1
        with contextlib.suppress(Ended):
            await handle(connection)

    async with serve(
        talk, "127.0.0.1", 0, process_request=door, close_timeout=0.2, open_timeout=90
    ) as server:
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            closing.set()
