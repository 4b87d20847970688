"""`/v1/listen` as a WebSocket: sound in, results out. A session that answers nothing does the work.

Two tasks talk: one reads the client, one follows the session's events and tells them (`telling`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from app.api.closing import close
from app.api.context import Context, context_of
from app.api.deepgram.errors import refusal
from app.api.deepgram.options import Options, parse, session_config
from app.api.deepgram.results import Json, Request
from app.api.deepgram.sound import StreamSound
from app.api.deepgram.telling import Teller
from app.api.opening import open_listener
from app.api.rest import ready
from app.dialogue.endpointing import FRAME
from app.dialogue.outbox import FellBehind
from app.dialogue.session import Session
from app.observability.logs import bind
from app.roles import SAMPLE_RATE, BadAudio, ColloquyError, EngineInfo, Samples

log = logging.getLogger(__name__)
router = APIRouter()

_IDLE_S = 10.0
_SEND_TIMEOUT_S = 20.0
_LOOK_S = 0.1
_AHEAD = 2
"""So many utterances may lack their final words before a client that sends faster than we hear waits: a
hurry of its own must not take the cores from people who talk."""
_LONGEST_TEXT = 1 << 16
_QUOTED = 200


@router.websocket("/v1/listen")
async def listen(socket: WebSocket) -> None:
    """Deepgram's live transcription. Refusals are HTTP answers before the upgrade. Closes: 1000 after
    `CloseStream`, 1008 DATA-0000 what was sent is no sound, 1011 NET-0001 nothing was sent for ten
    seconds, 1013 too slow a reader."""
    context = context_of(socket)
    options = Options()
    request = Request(options, EngineInfo("stt", ""))
    try:
        subprotocol, owner = _who(context, socket)
        options = parse(socket.query_params, live=True)
        config = session_config(context, options)
        request = replace(request, options=options, engine=(await ready(context)).stt.info)
        session = await open_listener(context, owner, config, socket)
    except ColloquyError as error:
        await socket.send_denial_response(refusal(context, error, request.id))
        return
    stream = Stream(socket, session, options, request)
    context.metrics.websocket_connections_active.inc()
    try:
        with bind(session_id=session.id, trace_id=request.id):
            await socket.accept(subprotocol, [(b"dg-request-id", request.id.encode())])
            await stream.serve()
    finally:
        context.metrics.websocket_connections_active.dec()
        # Nobody can come back to a stream, and nothing of it is kept: there are no last words to wait for.
        context.sessions.release(session.id)


def _who(context: Context, socket: WebSocket) -> tuple[str | None, str]:
    """The subprotocol to answer, and whose stream it is. Browsers cannot set headers: they offer the
    subprotocols `token` (or `bearer`) and their key. Raises `NotAllowed`."""
    headers = dict(socket.headers)
    offered: list[str] = socket.scope.get("subprotocols", [])
    subprotocol = None
    if len(offered) > 1 and offered[0].lower() in ("token", "bearer"):
        subprotocol = offered[0]
        headers["authorization"] = f"Token {offered[1]}"
    return subprotocol, context.access.owner(headers)


class _Close(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class Stream:
    """One connection."""

    def __init__(self, socket: WebSocket, session: Session, options: Options, request: Request) -> None:
        self._socket = socket
        self._session = session
        self._options = options
        self._request = request
        self._sound = StreamSound(options, self._hear)
        self._digest = hashlib.sha256()
        self._sending = asyncio.Lock()
        self._teller = Teller(request, self._send, lambda: session.listened_s)
        self._heard = 0
        self._seq = 0

    async def serve(self) -> None:
        """Until either side leaves."""
        follow = asyncio.create_task(self._follow())
        read = asyncio.create_task(self._read())
        tasks = [follow, read]
        if self._options.utterance_end is not None:
            tasks.append(asyncio.create_task(self._watch_gaps()))
        try:
            watched: set[asyncio.Future[None]] = {*tasks, self._sound.broken}
            while not follow.done():
                done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            if not self._teller.ended:
                raise _Close(1012, "the server is stopping")
            await self._teller.end_utterance(self._session.listened_s)
            metadata = self._request.metadata(self._digest.hexdigest(), self._heard / SAMPLE_RATE)
            await self._send({"type": "Metadata", **metadata})
            await close(self._socket, 1000, "")
        except _Close as end:
            await close(self._socket, end.code, end.reason)
        except BadAudio as error:
            await close(self._socket, 1008, f"DATA-0000: {error.message}")
        except FellBehind:
            await close(self._socket, 1013, "results were read too slowly to keep")
        except TimeoutError:
            log.info("a client does not read what it is sent")
            await close(self._socket, 1013, "nothing was read for too long")
        except (WebSocketDisconnect, RuntimeError) as gone:
            # Starlette reports a peer that vanished while we were sending as RuntimeError.
            log.debug("connection lost: %r", gone)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._sound.close()
            await close(self._socket, 1011, "something failed inside")

    async def _send(self, message: Json) -> None:
        text = json.dumps(message, ensure_ascii=False)
        async with self._sending, asyncio.timeout(_SEND_TIMEOUT_S):
            await self._socket.send({"type": "websocket.send", "text": text})

    # --- from the client -----------------------------------------------------------------------

    async def _read(self) -> None:
        """Until the client wants no more."""
        while True:
            try:
                async with asyncio.timeout(_IDLE_S):
                    message = await self._socket.receive()
            except TimeoutError:
                raise _Close(1011, "NET-0001: neither sound nor KeepAlive came for 10 seconds") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            data: bytes | None = message.get("bytes")
            if data:
                self._digest.update(data)
                await self._sound.take(data)
            elif data is not None or not await self._control(message["text"]):
                break
        await self._sound.end()
        # The last frame may be waiting for the rest of it.
        await self._session.hear(np.zeros(FRAME, np.float32))
        self._teller.asked.append(False)
        self._session.commit()

    async def _control(self, text: str) -> bool:
        """Do what a text message says; whether the stream goes on."""
        try:
            message: Any = json.loads(text) if len(text) <= _LONGEST_TEXT else None
        except (ValueError, RecursionError):
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "CloseStream":
            return False
        if kind == "Finalize":
            self._teller.asked.append(True)
            self._session.commit()
        elif kind == "Configure" and isinstance(message, dict):
            await self._configure(message, text)
        elif kind != "KeepAlive":
            await self._refuse(text, "it is no message with a type that is known here")
        return True

    async def _configure(self, message: Json, text: str) -> None:
        terms = message.get("keyterms")
        if terms is not None:
            if not isinstance(terms, list) or not all(isinstance(t, str) and len(t) <= 200 for t in terms):
                await self._refuse(text, "keyterms is a list of short texts")
                return
            vocabulary = tuple(terms[:500])
            self._session.configure(replace(self._session.config, vocabulary=vocabulary))
        told: Json = {"type": "ConfigureSuccess", "request_id": self._request.id}
        await self._send(told if terms is None else {**told, "keyterms": terms[:500]})

    async def _refuse(self, text: str, why: str) -> None:
        await self._send(
            {
                "type": "Error",
                "variant": "SchemaError",
                "description": f"a text message was not understood: {why}",
                "message": text[:_QUOTED],
            }
        )

    async def _hear(self, samples: Samples) -> None:
        while self._teller.behind > _AHEAD:
            self._teller.resolved.clear()
            await self._teller.resolved.wait()
        self._heard += len(samples)
        await self._session.hear(samples)

    # --- to the client -------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Tell what the session tells, until all was told that was sent."""
        async for seq, event in self._session.outbox.follow(0):
            await self._teller.tell(event)
            self._seq = seq
            if self._teller.ended:
                return

    async def _watch_gaps(self) -> None:
        """See when nothing has been said for long enough, by the sound's own time."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._teller.behind and self._seq == self._session.outbox.last_seq:
                await self._teller.end_utterance(self._session.listened_s)
