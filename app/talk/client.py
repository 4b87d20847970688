"""A client of one session: sound and text in, events out, over connections that come and go.

    async with connect("http://127.0.0.1:8710", {"language": "en"}) as talk:
        await talk.text("Good morning!")
        async for message in talk:
            ...

When the connection breaks it is made again, with waits that grow; nothing is heard twice, and
what was said meanwhile, or was on its way, is sent then. A `Notice` tells of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from app.api.messages import (
    AudioChunkOut,
    Commit,
    Configure,
    Interrupt,
    Loading,
    Notice,
    PingOut,
    Playback,
    Pong,
    PongOut,
    Queued,
    Resume,
    ServerMessage,
    SessionReady,
    SessionSettings,
    TextIn,
    server_message,
)
from app.roles import ColloquyError, NotAllowed, NotFound
from app.talk.outgoing import Outgoing, Parcel
from app.talk.rest import NoServer, base_url, create_session, health, on_this_machine, rest

__all__ = ["NoServer", "Sound", "Talk", "connect", "health"]

KEPT_S = 60.0
"""How much sound waits for a connection; as long as the server keeps the session."""
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 5.0
_OPEN_S = 10.0
_UNREAD = 10_000
"""Events that wait for a slow reader. Then nothing more is taken from the connection, and the
server, in time, closes it."""

_FINAL = frozenset({1000, 1008, 1009, 4404, 4408, 4409})
"""Close codes after which coming back is no use; the server's reason says why."""


class Sound(AudioChunkOut):
    """An `audio_chunk` with its sound, however it travelled: `packets` as `codec` has them."""

    packets: tuple[bytes, ...] = ()


class Talk:
    """One session. Iterate over it for what the server says, in order; it ends when the session does.

    `received_at` is when the message last given came, on the monotonic clock; `session_id` and
    `last_seq` are the protocol's; `lost_s` is sound, in seconds, that never reached the server
    because more than `KEPT_S` had to be kept.
    """

    def __init__(self, socket_url: str, session_id: str, rate: int) -> None:
        """Use `connect`. `rate`: Hz of the PCM16 that is sent."""
        self.session_id = session_id
        self.received_at = 0.0
        self.last_seq = 0
        self._url = socket_url
        self._rate = rate
        self._received: asyncio.Queue[tuple[float, ServerMessage] | Exception | None]
        self._received = asyncio.Queue(_UNREAD)
        self._out = Outgoing(KEPT_S)
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        # Whether what is said goes out now. A connection that comes back first hears what arrived.
        self._going = asyncio.Event()
        self._over = False

    # --- what the server says ------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[ServerMessage]:
        while (item := await self._received.get()) is not None:
            if isinstance(item, Exception):
                raise item
            self.received_at, message = item
            yield message

    async def ready(self) -> None:
        """Wait until the session can be spoken to; what came before is dropped (that its models load)."""
        async for message in self:
            if isinstance(message, SessionReady):
                return
        raise NoServer("the session ended before it was ready")

    # --- what is said to it --------------------------------------------------------------------

    async def send_audio(self, pcm16: bytes) -> None:
        """The next sound, in the session's `audio_in` format. While connected, waits when `KEPT_S`
        seconds have not been taken yet; without a connection the oldest sound goes."""
        seconds = len(pcm16) / 2 / self._rate
        while self._out.waiting_s + seconds > KEPT_S and self._going.is_set() and not self._over:
            self._room.clear()
            await self._room.wait()
        self._put(Parcel(pcm16, seconds))

    async def text(self, text: str, *, streaming: bool = True) -> None:
        """A typed turn."""
        self._say(TextIn(type="text", text=text, streaming=streaming))

    async def commit(self) -> None:
        """The utterance ends here (push-to-talk)."""
        self._say(Commit(type="commit"))

    async def interrupt(self) -> None:
        """Stop the reply."""
        self._say(Interrupt(type="interrupt"))

    async def playback(self, turn_id: str, played_ms: float) -> None:
        """So much of the reply has been heard."""
        self._say(Playback(type="playback", turn_id=turn_id, played_ms=played_ms))

    async def configure(self, settings: SessionSettings | dict[str, Any]) -> None:
        """Change the fields of the session's settings that are given."""
        if isinstance(settings, dict):
            settings = SessionSettings.model_validate(settings)
        if "audio_in" in settings.model_fields_set:
            self._rate = settings.audio_in.sample_rate
        self._say(Configure(type="configure", settings=settings))

    def _say(self, message: BaseModel) -> None:
        # How far a reply was played is soon told anew.
        counts = not isinstance(message, Playback)
        self._put(Parcel(message.model_dump_json(exclude_unset=True), counts=counts))

    def _put(self, parcel: Parcel) -> None:
        if not self._over:
            self._out.put(parcel)
            self._news.set()

    @property
    def lost_s(self) -> float:
        return self._out.lost_s

    # --- connections ---------------------------------------------------------------------------

    async def _run(self, first: asyncio.Future[None]) -> None:
        """Keep connected until the session is over. `first` is done with the first connection."""
        ending: Exception | None = None
        try:
            await self._stay(first)
        except Exception as error:  # noqa: BLE001 - raised again where messages are read
            ending = error
        finally:
            self._over = True
            self._going.clear()
            self._room.set()
        if not first.done():
            first.set_exception(ending or NoServer("the session ended at once"))
        else:
            await self._received.put(ending)

    async def _stay(self, first: asyncio.Future[None]) -> None:
        gone_at = time.monotonic()
        wait = _FIRST_WAIT_S
        while True:
            try:
                socket = await self._open()
            except NoServer as error:
                if not first.done():
                    raise
                if time.monotonic() - gone_at > KEPT_S:
                    raise NoServer(
                        f"the connection was lost and did not come back: {error.message}"
                    ) from error
                wait = await _pause(wait)
                continue
            async with socket:
                if first.done():
                    with contextlib.suppress(ConnectionClosed):
                        await socket.send(Resume(type="resume", last_seq=self.last_seq).model_dump_json())
                else:
                    self._going.set()
                    first.set_result(None)
                began = time.monotonic()
                await self._serve(socket)
            if socket.close_code in _FINAL:
                if socket.close_code != 1000:
                    raise _ended(socket.close_code, socket.close_reason or "")
                return
            gone_at = time.monotonic()
            lost = Notice(seq=self.last_seq, code="RECONNECTING", message="connection lost, coming back")
            await self._received.put((gone_at, lost))
            if gone_at - began > _LONGEST_WAIT_S:
                wait = _FIRST_WAIT_S
            wait = await _pause(wait)

    async def _open(self) -> ClientConnection:
        try:
            return await open_socket(
                self._url,
                compression=None,  # sound does not shrink, and it would cost time
                open_timeout=_OPEN_S,
                close_timeout=2,
                proxy=None if on_this_machine(self._url) else True,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (401, 403):
                raise NotAllowed("the server refused the session's token: create a new session") from error
            raise NoServer(f"the server answered HTTP {status} where its WebSocket should be") from error
        except (OSError, TimeoutError, InvalidHandshake, InvalidMessage, ConnectionClosed) as error:
            raise NoServer(f"no WebSocket at the server ({error or type(error).__name__})") from error

    async def _serve(self, socket: ClientConnection) -> None:
        """Read and write until the connection is closed."""
        sender = asyncio.create_task(self._send(socket))
        try:
            await self._read(socket)
        except ConnectionClosed:
            pass
        finally:
            self._going.clear()
            self._room.set()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._going.wait()
            while True:
                while (frame := self._out.next()) is not None:
                    self._room.set()
                    await socket.send(frame)
                self._news.clear()
                await self._news.wait()

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            frame = await socket.recv()
            came = time.monotonic()
            if isinstance(frame, bytes):
                continue  # of an event that was not understood
            try:
                message = server_message.validate_json(frame)
            except ValidationError:
                continue  # from a newer server
            if isinstance(message, PingOut):
                self._out.received(message.received_ms, message.received_messages)
                await socket.send(Pong(type="pong").model_dump_json())
                continue
            if isinstance(message, PongOut):
                continue
            packets: list[bytes] = []
            if isinstance(message, AudioChunkOut):
                # An event counts as received when its sound has come too: else it is asked for again.
                while len(packets) < message.frames:
                    packet = await socket.recv()
                    packets.append(packet if isinstance(packet, bytes) else packet.encode())
            if isinstance(message, SessionReady) and not self._going.is_set():
                self._out.again(message.received_ms, message.received_messages)
                self._going.set()
            if not isinstance(message, SessionReady | Loading | Queued):
                if message.seq <= self.last_seq:
                    continue
                self.last_seq = message.seq
            if isinstance(message, AudioChunkOut):
                if message.data:
                    packets.append(base64.b64decode(message.data))
                message = Sound.model_construct(**dict(message), packets=tuple(packets))
            await self._received.put((came, message))


async def _pause(wait: float) -> float:
    """Wait up to `wait` seconds and give the next wait. Jitter keeps all of a server's clients from
    coming back at the same moment."""
    await asyncio.sleep(wait * random.uniform(0.5, 1.0))
    return min(_LONGEST_WAIT_S, wait * 2)


def _ended(code: int, reason: str) -> ColloquyError:
    if code == 4404:
        return NotFound(reason or "the session has ended")
    return ColloquyError(f"the server closed the session: {reason or code}")


@asynccontextmanager
async def connect(
    url: str, settings: SessionSettings | dict[str, Any] | None = None, api_key: str | None = None
) -> AsyncIterator[Talk]:
    """A new session of the server at `url`, ended when the block is left.

    Raises `NoServer`, `Busy` (`retry_after` in seconds), `NotAllowed`, or `BadInput` for settings
    that the server refuses. Later troubles are raised where the messages are read.
    """
    url = base_url(url)
    async with rest(url, api_key) as http:
        created = await create_session(url, http, settings)
        # A path; with a full URL of its own the server may also name another host.
        where = created.ws_url if "://" in created.ws_url else url.replace("http", "ws", 1) + created.ws_url
        rate = SessionSettings.model_validate(settings or {}).audio_in.sample_rate
        mark = "&" if urlsplit(where).query else "?"
        talk = Talk(f"{where}{mark}token={created.token}", created.session_id, rate)
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        runner = asyncio.create_task(talk._run(first))
        try:
            await first
            yield talk
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
            # So that its place is free for the next one at once.
            with contextlib.suppress(httpx.TransportError):
                await http.delete(f"/api/v1/sessions/{created.session_id}", timeout=5)
