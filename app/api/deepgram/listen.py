"""`/v1/listen` as a WebSocket: sound in, results out. A session that answers nothing does the work.

Two tasks talk: one reads the client, one follows the session's events and tells them in Deepgram's
words. What was `is_final` never changes; results are in the order of the sound.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from app.api.context import Context, context_of
from app.api.deepgram.errors import refusal
from app.api.deepgram.options import Options, parse, session_config
from app.api.deepgram.results import Json, Request, in_order, spread
from app.api.deepgram.sound import StreamSound
from app.api.rest import ready
from app.dialogue.agreement import join_words
from app.dialogue.config import SessionConfig
from app.dialogue.endpointing import FRAME
from app.dialogue.events import (
    Event,
    Failed,
    Final,
    Notice,
    Partial,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
)
from app.dialogue.outbox import FellBehind
from app.dialogue.session import Session
from app.dialogue.turn import Turn
from app.observability.logs import bind
from app.roles import SAMPLE_RATE, BadAudio, Busy, ColloquyError, EngineInfo, Samples, Word

log = logging.getLogger(__name__)
router = APIRouter()

_IDLE_S = 10.0
_SEND_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 5.0
_LOOK_S = 0.1
_CALM_S = 4.0
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
        session = await _open(context, owner, config, socket)
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


async def _open(context: Context, owner: str, config: SessionConfig, connection: object) -> Session:
    """A session with a place: `Busy` if there is none. Only until a moment of overload is over it waits."""

    async def forget(session: Session, turn: Turn) -> None:
        """Nothing that is said here is kept."""

    session = context.sessions.create(
        owner,
        lambda id_: Session(id_, config, roles=context.runtime.roles, on_turn=forget, on_event=context.count),
    )
    context.sessions.attach(session.id, owner, connection)
    try:
        for _ in range(int(_CALM_S / _LOOK_S) if context.runtime.overloaded() else 0):
            if not context.sessions.position(session.id):
                break
            await asyncio.sleep(_LOOK_S)
    except BaseException:
        context.sessions.release(session.id)
        raise
    if context.sessions.position(session.id):
        context.sessions.release(session.id)
        raise Busy("all places are taken, try again later", retry_after=context.sessions.retry_after())
    return session


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
        # What the client wants to be told when all that it has sent is told: that it is flushed, or
        # (False) the end. In order; the session answers one by one.
        self._asked: deque[bool] = deque()
        self._ended = False
        # Those that began and have no final words yet, in order.
        self._turns: dict[str, _Told] = {}
        self._resolved = asyncio.Event()
        self._heard = 0
        self._seq = 0
        # Up to where results are final, in seconds; and where the last word of those ends.
        self._final_to = 0.0
        self._last_word_end: float | None = None

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
            if not self._ended:
                raise _Close(1012, "the server is stopping")
            await self._end_utterance(self._session.listened_s)
            metadata = self._request.metadata(self._digest.hexdigest(), self._heard / SAMPLE_RATE)
            await self._send({"type": "Metadata", **metadata})
            await self._close(1000, "")
        except _Close as close:
            await self._close(close.code, close.reason)
        except BadAudio as error:
            await self._close(1008, f"DATA-0000: {error.message}")
        except FellBehind:
            await self._close(1013, "results were read too slowly to keep")
        except TimeoutError:
            log.info("a client does not read what it is sent")
            await self._close(1013, "nothing was read for too long")
        except (WebSocketDisconnect, RuntimeError) as gone:
            # Starlette reports a peer that vanished while we were sending as RuntimeError.
            log.debug("connection lost: %r", gone)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._sound.close()
            await self._close(1011, "something failed inside")

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self._socket.close(code, reason.encode()[:120].decode(errors="ignore"))

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
        self._asked.append(False)
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
            self._asked.append(True)
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
        while len(self._turns) > _AHEAD:
            self._resolved.clear()
            await self._resolved.wait()
        self._heard += len(samples)
        await self._session.hear(samples)

    # --- to the client -------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Tell what the session tells, until all was told that was sent."""
        async for seq, event in self._session.outbox.follow(0):
            await self._tell(event)
            self._seq = seq
            if self._ended and not self._turns:
                return

    async def _tell(self, event: Event) -> None:
        match event:
            case SpeechStarted():
                if not self._turns:
                    await self._end_utterance(event.at)
                self._turns[event.turn_id] = _Told(event.at)
                if self._options.vad_events:
                    await self._send(
                        {"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(event.at, 3)}
                    )
            case SpeechStopped():
                turn = self._turns[event.turn_id]
                turn.stopped_at = event.at
                if event.forced:
                    await self._answer(turn)
            case Notice(code="NOTHING_HEARD"):
                # What was said before may have no final words yet.
                await self._answer(next(reversed(self._turns.values()), None))
            case Partial():
                turn = self._turns[event.turn_id]
                if turn is self._first:
                    await self._tell_partial(turn, event)
                else:
                    turn.later = event
            case Final():
                await self._tell_final(event)
            case TurnDropped():
                turn = self._turns.pop(event.turn_id)
                if turn.told or turn.flushes or self._options.interim_results or self._options.vad_events:
                    await self._final([], turn.stopped_at, 0.0, over=True, flushed=turn.flushes > 0)
                await self._resolve(turn)
            case Failed():
                await self._fail(event)

    async def _answer(self, turn: _Told | None) -> None:
        """The session has done what the client asked first: everything before is in `turn`, and told."""
        if not self._asked.popleft():
            self._ended = True
        elif turn is not None:
            turn.flushes += 1
        else:
            await self._final([], self._session.listened_s, 0.0, flushed=True)

    async def _resolve(self, over: _Told) -> None:
        """An utterance is told. It may be what more than one `Finalize` waited for."""
        self._resolved.set()
        for _ in range(over.flushes - 1):
            await self._final([], over.stopped_at, 0.0, flushed=True)
        if (turn := self._first) is not None:
            await self._end_utterance(turn.started_at)
            if turn.later is not None:
                await self._tell_partial(turn, turn.later)
                turn.later = None

    @property
    def _first(self) -> _Told | None:
        """The utterance that is told now: those after it wait for its final words."""
        return next(iter(self._turns.values()), None)

    async def _tell_partial(self, turn: _Told, event: Partial) -> None:
        closed = in_order(event.closed[turn.told :], event.start, self._final_to)
        if closed:
            turn.told = len(event.closed)
            turn.shown = ""
            confidence = sum(w.confidence for w in closed) / len(closed)
            await self._final(closed, closed[-1].end, confidence)
        if not self._options.interim_results:
            return
        text = event.text[len(join_words([w.text for w in event.closed])) :].strip()
        if text and text != turn.shown:
            turn.shown = text
            begin, end = max(turn.started_at, self._final_to), max(event.heard_to, self._final_to)
            words = spread(text, begin, end, event.confidence)
            await self._send(
                self._request.results(words, self._final_to, end, confidence=event.confidence, final=False)
            )

    async def _tell_final(self, event: Final) -> None:
        turn = self._turns.pop(event.turn_id)
        words = in_order(event.words[turn.told :], event.start, self._final_to)
        end = max(turn.stopped_at, words[-1].end if words else 0.0)
        speaker = _number(event.speaker)
        await self._final(words, end, event.confidence, over=True, flushed=turn.flushes > 0, speaker=speaker)
        await self._resolve(turn)

    async def _final(
        self,
        words: list[Word],
        end: float,
        confidence: float,
        *,
        over: bool = False,
        flushed: bool = False,
        speaker: int = 0,
    ) -> None:
        """Tell what will not change; `over`: and that speech ended there."""
        end = max(end, self._final_to)
        start, self._final_to = self._final_to, end
        if words:
            self._last_word_end = words[-1].end
        await self._send(
            self._request.results(
                words,
                start,
                end,
                confidence=confidence,
                final=True,
                over=over and self._options.endpointing is not False,
                flushed=flushed,
                speaker=speaker,
            )
        )

    async def _fail(self, event: Failed) -> None:
        if event.turn_id in self._turns:
            turn = self._turns.pop(event.turn_id)
            await self._final([], turn.stopped_at, 0.0, over=True, flushed=turn.flushes > 0)
            await self._resolve(turn)
        await self._send(
            {
                "type": "Error",
                "variant": event.code,
                "description": event.message,
                "message": "what was said here was not transcribed",
            }
        )

    # --- the end of an utterance ---------------------------------------------------------------

    async def _watch_gaps(self) -> None:
        """See when nothing has been said for long enough, by the sound's own time."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._turns and self._seq == self._session.outbox.last_seq:
                await self._end_utterance(self._session.listened_s)

    async def _end_utterance(self, now: float) -> None:
        gap, last = self._options.utterance_end, self._last_word_end
        if gap is not None and last is not None and now - last >= gap:
            self._last_word_end = None
            await self._send({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": round(last, 3)})


@dataclass(slots=True)
class _Told:
    """What was told of an utterance: so many words as final, and what was last shown beyond them.
    `flushes`: so often its end is the end of what the client wants flushed."""

    started_at: float
    stopped_at: float = 0.0
    told: int = 0
    shown: str = ""
    flushes: int = 0
    later: Partial | None = None
    """What is to be told of it when it is its turn."""


def _number(speaker: str) -> int:
    """The number of a label such as SPEAKER_00."""
    digits = speaker.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0
