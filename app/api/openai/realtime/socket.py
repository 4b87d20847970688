"""`/v1/realtime`: OpenAI's realtime protocol (GA names) over a WebSocket.

A connection comes and goes, the conversation stays for a while: `session.created` shows a `resume_token`,
and who connects with `?resume=TOKEN` goes on, with `&last_event_id=event_N` from behind that event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from app.api.closing import HANG_UP_S, close
from app.api.context import Context, context_of
from app.api.openai.errors import error_body
from app.api.openai.realtime.client import parsed
from app.api.openai.realtime.conversation import Conversation
from app.api.openai.realtime.requests import Requests
from app.api.openai.realtime.wishes import Wishes
from app.dialogue.outbox import FellBehind
from app.dialogue.session import Session
from app.observability.logs import bind
from app.roles import BadInput, Busy, ColloquyError, NotAllowed, NotFound, TooLarge
from app.stores.interfaces import SessionRecord
from app.tools import Caller

log = logging.getLogger(__name__)
router = APIRouter()

MAX_EVENT = 4 << 20
"""Largest event taken, bytes of JSON: a minute of PCM16. Larger ones are refused and the session lives; past
the server's own limit (four times this) the connection is closed with 1009."""
_SUBPROTOCOL, _KEY = "realtime", "openai-insecure-api-key."
_SEND_TIMEOUT_S = 20.0
_LEFT = (1000, 1001)
"""Who closes with these will not come back."""
CLOSE_REFUSED, CLOSE_RESTART, CLOSE_TRY_LATER = 1008, 1012, 1013
CLOSE_DISPLACED = 4409


@dataclass(slots=True)
class Talk:
    """What a session keeps from one connection to the next."""

    conversation: Conversation
    requests: Requests


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """See the module. Closes: 1008 no key, or a resume token that opens nothing; 1013 full; 1012 the server
    stops; 1013 also when events are read too slowly; 4409 another connection took over."""
    context = context_of(socket)
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(_SUBPROTOCOL if _SUBPROTOCOL in offered else None)
    connection = object()
    try:
        talk = await _open(context, _headers(socket, offered), socket.query_params, connection)
    except ColloquyError as error:
        await _refuse(socket, error)
        return
    session = talk.conversation.session
    context.metrics.websocket_connections_active.inc()
    left = False
    try:
        with bind(session_id=session.id):
            left = await _Wire(socket, context, talk, connection).serve()
    finally:
        context.metrics.websocket_connections_active.dec()
        context.sessions.detach(session.id, connection)
        if left:
            await context.sessions.end(session.id)


def _headers(socket: WebSocket, offered: list[str]) -> Mapping[str, str]:
    """The request's headers, with the key that browsers offer as a subprotocol."""
    key = next((p.removeprefix(_KEY) for p in offered if p.startswith(_KEY)), None)
    headers = dict(socket.headers)
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return headers


async def _refuse(socket: WebSocket, error: ColloquyError) -> None:
    code = CLOSE_TRY_LATER if isinstance(error, Busy) else CLOSE_REFUSED
    body = {**error_body(error)["error"], "event_id": None}
    event = {"type": "error", "event_id": "event_0", "error": body}
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_json(event)
        await socket.close(code, error.message[:120])


async def _open(
    context: Context, headers: Mapping[str, str], query: Mapping[str, str], connection: object
) -> Talk:
    """A new conversation, or the one that is to go on. Raises `NotAllowed`, `NotFound` and `Busy`."""
    if (token := query.get("resume")) is not None:
        # The token is enough; who shows a key as well may come from the page of another site.
        check = context.access.owner if "authorization" in headers else context.access.check_origin
        check(headers)
        session_id, owner = context.access.opened(token)
        talk: Talk | None = context.talks.get(session_id)
        if talk is None:
            raise NotFound("that session has ended: connect without `resume` for a new one")
        context.sessions.attach(session_id, owner, connection)
        if (seen := query.get("last_event_id")) is not None:
            talk.conversation.sent = _number(seen)
        return talk
    owner = context.access.owner(headers)
    kind = "transcription" if query.get("intent") == "transcription" else "realtime"
    model = query.get("model") or "gpt-realtime"
    base = context.default_config()
    wishes = Wishes("", model, kind, base, await _default_voice(context))

    def make(session_id: str) -> Session:
        return Session(
            session_id,
            wishes.config,
            roles=context.runtime.roles,
            on_turn=context.keep(owner),
            on_event=context.count,
            on_speculation=context.count_speculation,
            who=context.who(session_id, owner).label,
            functions=context.tools.of(Caller(owner, session_id)),
        )

    session = context.sessions.create(owner, make)
    if context.sessions.position(session.id):
        # Nothing in the protocol tells of a queue.
        await context.sessions.end(session.id)
        raise Busy("all sessions are in use; try again in a few seconds", retry_after=5)
    wishes.shown["id"] = f"sess_{uuid.UUID(session.id).hex}"
    context.sessions.attach(session.id, owner, connection)
    conversation = Conversation(session, wishes, on_end=lambda: context.talks.pop(session.id, None))
    talk = context.talks[session.id] = Talk(conversation, Requests(context, owner, conversation))
    record = SessionRecord(session.id, owner, datetime.now(UTC), None, base.language, {"door": "realtime"})
    await context.note(record)
    token = context.access.session_token(session.id, owner)
    conversation.emit("session.created", session={**wishes.shown, "resume_token": token})
    return talk


async def _default_voice(context: Context) -> str:
    if not context.runtime.ready:
        return "alloy"
    return str((await context.runtime.role("tts")).voices()[0].name)


def _number(event_id: str) -> int:
    try:
        return max(0, int(event_id.rpartition("_")[2]))
    except ValueError:
        raise NotAllowed("last_event_id is the event_id of one of our events") from None


class _Close(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _Wire:
    """One socket of one conversation."""

    def __init__(self, socket: WebSocket, context: Context, talk: Talk, connection: object) -> None:
        self._socket, self._context, self._connection = socket, context, connection
        self._conversation, self._requests = talk.conversation, talk.requests
        self._session = talk.conversation.session

    async def serve(self) -> bool:
        """Talk until either side leaves; whether the client has left for good."""
        reading = asyncio.create_task(self._read())
        tasks = [reading, asyncio.create_task(self._send())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except _Close as end:
            await close(self._socket, end.code, end.reason)
        except (FellBehind, TimeoutError):
            await close(self._socket, CLOSE_TRY_LATER, "events were read too slowly: connect again to resume")
        except (WebSocketDisconnect, RuntimeError) as gone:
            # Starlette reports a peer that vanished while we were sending as RuntimeError. How it left is
            # what the reader is told.
            log.debug("connection lost: %r", gone)
            await asyncio.wait([reading], timeout=HANG_UP_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await close(self._socket, CLOSE_RESTART, "the session has ended: connect again")
        left = None if reading.cancelled() else reading.exception()
        return isinstance(left, WebSocketDisconnect) and left.code in _LEFT

    def _check_displaced(self) -> None:
        if self._context.sessions.is_displaced(self._session.id, self._connection):
            raise _Close(CLOSE_DISPLACED, "another connection took over this session")

    async def _send(self) -> None:
        conversation = self._conversation
        while True:
            news = conversation.log.news
            for number, frame in conversation.log.since(conversation.sent):
                self._check_displaced()
                async with asyncio.timeout(_SEND_TIMEOUT_S):
                    await self._socket.send({"type": "websocket.send", "text": frame})
                conversation.sent = number
            if conversation.sent < conversation.log.last:
                continue
            if conversation.ended:
                return
            await news.wait()

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            self._check_displaced()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            event_id: str | None = None
            try:
                data = message.get("text")
                if data is None:
                    raise BadInput("events are JSON text, sound is base64 in them", field="type")
                if len(data) > MAX_EVENT:
                    raise TooLarge(f"an event may have {MAX_EVENT} bytes: send sound in smaller pieces")
                event_id = _event_id(data)
                event = parsed(data)
                # What is said while models load is kept by the socket, and its sender slowed.
                await self._session.ready()
                await self._requests.do(event)
            except ColloquyError as error:
                self._conversation.fail(error, event_id)


def _event_id(data: str) -> str | None:
    """The client's own id of an event that may be wrong otherwise."""
    if '"event_id"' not in data:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    event_id = found.get("event_id") if isinstance(found, dict) else None
    return event_id if isinstance(event_id, str) else None
