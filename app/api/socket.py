"""`/ws/{session_id}`: the session WebSocket. Messages: `api.messages`.

A connection comes and goes, the session stays. One task reads and one follows the session's
events; whatever a client does wrong is answered with an `error` and the session lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ValidationError
from starlette.websockets import WebSocketDisconnect

from app.api.closing import close
from app.api.context import Context, context_of
from app.api.ears import Ears
from app.api.errors import from_validation
from app.api.health import roles_of
from app.api.messages import (
    AudioChunkIn,
    Commit,
    Configure,
    Interrupt,
    Loading,
    Ping,
    PingOut,
    Playback,
    Pong,
    PongOut,
    Queued,
    Resume,
    RoleProgress,
    SessionReady,
    SetTtsMode,
    TextIn,
    client_message,
)
from app.api.opening import configured, find_session
from app.api.sessions import check_formats, check_voice
from app.api.wire import Mouth
from app.dialogue.events import Event, Notice
from app.dialogue.outbox import FellBehind
from app.dialogue.session import Session
from app.observability.logs import bind
from app.roles import BadInput, ColloquyError, NotAllowed, NotFound, TooLarge
from app.stores.shared import Unavailable

log = logging.getLogger(__name__)
router = APIRouter()

MAX_MESSAGE = 1 << 20
"""Largest message taken, bytes: 30 s of PCM16 at 16 kHz. Larger ones are refused and the session
lives; past the server's own limit (16 times this) the connection is closed with 1009."""
_RESUME_WAIT_S = 1.0
_SEND_TIMEOUT_S = 20.0
_LOOK_S = 0.25
_UNCOUNTED = (AudioChunkIn, Ping, Pong, Playback, Resume)
"""Not in `received_messages`: sound has its own count, the rest is not worth sending again."""

CLOSE_TRY_LATER = 1013
CLOSE_NO_SESSION = 4404
CLOSE_DISPLACED = 4409
CLOSE_FELL_BEHIND = 4408
CLOSE_SILENT = 4410


@router.websocket("/ws/{session_id}")
async def session_socket(socket: WebSocket, session_id: str, token: str = "") -> None:
    """See the module. Closes: 4404 no such session, 4408 too slow a reader, 4409 another
    connection took over, 4410 three heartbeats unanswered."""
    context = context_of(socket)
    try:
        context.access.check_origin(socket.headers)
        owner = context.access.session_owner(token, session_id)
    except NotAllowed as error:
        log.info("refused a socket: %s", error.message)
        await socket.close(1008, error.message)  # before accept: the client sees HTTP 403
        return
    connection = Connection(socket, context)
    try:
        session = await find_session(context, session_id, owner, connection)
    except (NotFound, Unavailable) as error:
        await socket.accept()
        code = CLOSE_NO_SESSION if isinstance(error, NotFound) else CLOSE_TRY_LATER
        await socket.close(code, error.message[:120])
        return
    await socket.accept()
    context.metrics.websocket_connections_active.inc()
    try:
        with bind(session_id=session_id):
            await connection.serve(session, context.ears[session_id])
    finally:
        context.metrics.websocket_connections_active.dec()
        context.sessions.detach(session_id, connection)


class _Close(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Connection:
    """One socket of one session."""

    def __init__(self, socket: WebSocket, context: Context) -> None:
        self._socket = socket
        self._context = context
        self._sending = asyncio.Lock()
        self._now = asyncio.get_running_loop().time
        self._handlers: dict[type[BaseModel], Callable[[Any], Awaitable[None]]] = {
            AudioChunkIn: self._on_audio,
            TextIn: self._on_text,
            SetTtsMode: self._on_tts_mode,
            Interrupt: self._on_interrupt,
            Playback: self._on_playback,
            Commit: self._on_commit,
            Configure: self._on_configure,
            Ping: self._on_ping,
            Resume: self._on_resume,
        }

    async def serve(self, session: Session, ears: Ears) -> None:
        """Talk until either side leaves."""
        self._session = session
        self._ears = ears
        self._mouth = Mouth(ears.wish)
        # Since when we have been waiting for the client; None while it waits for us.
        self._awaiting: float | None = self._now()
        returning = session.connected
        session.connected = True
        self._after = session.outbox.last_seq if returning else 0
        first = await self._first_message() if returning else None
        tasks = [
            asyncio.create_task(self._follow(resumed=isinstance(first, Resume))),
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._read(first)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except _Close as end:
            await close(self._socket, end.code, end.reason)
        except TimeoutError:
            log.info("a client does not read what it is sent")
            await close(self._socket, CLOSE_FELL_BEHIND, "nothing was read for too long: come back, resume")
        except (WebSocketDisconnect, RuntimeError) as gone:
            # Starlette reports a peer that vanished while we were sending as RuntimeError.
            log.debug("connection lost: %r", gone)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await close(self._socket, 1000, "session ended")

    def _check_displaced(self) -> None:
        if self._context.sessions.is_displaced(self._session.id, self):
            raise _Close(CLOSE_DISPLACED, "another connection took over this session")

    # --- to the client -------------------------------------------------------------------------

    async def _send(self, *frames: str | bytes) -> None:
        # One timeout for all frames, and no `wait_for`: that would make a task of each.
        async with self._sending, asyncio.timeout(_SEND_TIMEOUT_S):
            for frame in frames:
                kind = "text" if isinstance(frame, str) else "bytes"
                await self._socket.send({"type": "websocket.send", kind: frame})

    async def _follow(self, *, resumed: bool) -> None:
        try:
            await self._until_ready()
            await self._greet(resumed)
            async for seq, event in self._session.outbox.follow(self._after):
                self._check_displaced()
                await self._tell(seq, event)
            if self._session.moved:
                raise _Close(CLOSE_DISPLACED, "another server process took over this session")
        except FellBehind:
            raise _Close(
                CLOSE_FELL_BEHIND, "events were read too slowly to keep: create a new session"
            ) from None

    async def _tell(self, seq: int, event: Event) -> None:
        self._after = seq
        await self._send(*self._mouth.frames(seq, event))

    async def _greet(self, resumed: bool) -> None:
        await self._send(
            SessionReady(
                seq=self._after,
                session_id=self._session.id,
                resumed=resumed,
                settings=self._ears.wish,
                heartbeat_s=self._context.settings.heartbeat_s,
                received_ms=self._received[0],
                received_messages=self._received[1],
            ).model_dump_json()
        )

    async def _until_ready(self) -> None:
        """Until the session has a place and the models are there; meanwhile, say what it waits for."""
        sessions, told = self._context.sessions, None
        while True:
            position = sessions.position(self._session.id)
            if position == 0 and self._context.runtime.ready:
                return
            news = position or roles_of(self._context)
            if news != told:
                told = news
                await self._send(self._waiting_for(news).model_dump_json())
            for seq, event in self._session.outbox.since(self._after):
                await self._tell(seq, event)  # such as: a model cannot be had
            await asyncio.sleep(_LOOK_S)

    def _waiting_for(self, news: int | list[RoleProgress]) -> Queued | Loading:
        if isinstance(news, int):
            wait = round(self._context.sessions.retry_after(), 1)
            return Queued(seq=self._after, position=news, retry_after_s=wait)
        return Loading(seq=self._after, roles=news)

    @property
    def _received(self) -> tuple[float, int]:
        """How many ms of sound, and how many messages, the client need not send again."""
        ms, messages = self._ears.received_ms, self._ears.received_messages
        if (safe := self._session.safe) is not None:
            # What only this process knows would be lost with it.
            ms, messages = min(ms, safe[0]), safe[1].get("messages", 0)
        return round(ms, 3), messages

    async def _beat(self) -> None:
        period = self._context.settings.heartbeat_s
        while True:
            await asyncio.sleep(period)
            self._check_displaced()
            if self._awaiting is not None and self._now() - self._awaiting > 3 * period:
                raise _Close(CLOSE_SILENT, "nothing came for three heartbeats")
            ping = PingOut(
                seq=self._after,
                received_ms=self._received[0],
                received_messages=self._received[1],
            )
            await self._send(ping.model_dump_json())

    # --- from the client -----------------------------------------------------------------------

    async def _receive(self) -> str | bytes:
        self._awaiting = self._now()
        message = await self._socket.receive()
        self._awaiting = None
        # From here on another connection is told what was received: nothing more is taken of this one.
        self._check_displaced()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data: str | bytes | None = message.get("bytes")
        return message["text"] if data is None else data

    async def _first_message(self) -> BaseModel | bytes | None:
        """A client that comes back says where it was; one that does not, hears what comes."""
        try:
            async with asyncio.timeout(_RESUME_WAIT_S):
                received = await self._receive()
            message: BaseModel | bytes = self._parse(received)
        except TimeoutError:
            return None
        except ColloquyError as error:
            self._session.report(error)
            return None
        if isinstance(message, Resume):
            if not self._session.outbox.has(message.last_seq):
                self._session.outbox.put(
                    Notice("EVENTS_LOST", "You were away too long to repeat everything: read the turns back.")
                )
            else:
                self._after = min(message.last_seq, self._session.outbox.last_seq)
        return message

    async def _read(self, first: BaseModel | bytes | None) -> None:
        message: BaseModel | bytes | None = None if isinstance(first, Resume) else first
        ears, newcomer = self._ears, first is None
        while True:
            await ears.pass_on(self._session.hear)
            try:
                if message is None:
                    message = self._parse(await self._receive())
                if isinstance(message, bytes):
                    ears.binary(message)
                elif isinstance(message, Resume) and newcomer and message.last_seq == 0:
                    pass  # of an earlier connection that broke before we saw it
                elif handler := self._handlers.get(type(message)):
                    await handler(message)
            except ColloquyError as error:
                self._session.report(error)
            if isinstance(message, BaseModel) and not isinstance(message, _UNCOUNTED):
                ears.received_messages += 1
                self._session.at_door = {
                    "messages": ears.received_messages,
                    "wish": ears.wish.model_dump(exclude_unset=True),
                }
            message, newcomer = None, False

    def _parse(self, frame: str | bytes) -> Any:
        if len(frame) > MAX_MESSAGE:
            raise TooLarge(
                f"a message may have {MAX_MESSAGE} bytes, not {len(frame)}: send sound in smaller pieces",
                field="message",
            )
        if isinstance(frame, bytes):
            return frame
        try:
            return client_message.validate_json(frame)
        except ValidationError as error:
            raise from_validation(error.errors()) from None

    async def _on_audio(self, message: AudioChunkIn) -> None:
        self._ears.json(message)

    async def _on_text(self, message: TextIn) -> None:
        self._session.say(message.text, stream=message.streaming)

    async def _on_tts_mode(self, message: SetTtsMode) -> None:
        if message.mode == "hq":
            self._session.outbox.put(
                Notice("HQ_UNAVAILABLE", "There is no high-quality voice here: the fast one speaks.")
            )

    async def _on_interrupt(self, message: Interrupt) -> None:
        self._session.interrupt("client")

    async def _on_playback(self, message: Playback) -> None:
        self._session.played(message.turn_id, message.played_ms)

    async def _on_commit(self, message: Commit) -> None:
        self._session.commit()

    async def _on_configure(self, message: Configure) -> None:
        given = message.settings.model_fields_set
        wish = self._ears.wish.model_copy(update={name: getattr(message.settings, name) for name in given})
        check_formats(wish)
        await check_voice(self._context, message.settings)
        self._session.configure(configured(self._context, message.settings, self._session.config))
        self._ears.use(wish)
        if "audio_out" in given:
            self._mouth = Mouth(wish)

    async def _on_ping(self, message: Ping) -> None:
        await self._send(PongOut(seq=self._after, timestamp=message.timestamp).model_dump_json())

    async def _on_resume(self, message: Resume) -> None:
        raise BadInput("resume is only for the first message after a reconnect", field="type")
