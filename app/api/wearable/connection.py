"""The life of one connection of the app.

One task reads the phone, one opens the session and follows it, one shows segments, one pings, one watches
the clock. When the phone is gone, what it had sent is still heard to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Coroutine, Iterable
from typing import Any

import numpy as np
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from app.api.closing import close
from app.api.context import Context
from app.api.opening import open_listener
from app.api.wearable.clock import StreamClock
from app.api.wearable.conversations import Current
from app.api.wearable.hearing import listening
from app.api.wearable.introductions import Introductions
from app.api.wearable.limits import Limits, close_code
from app.api.wearable.query import Wish, heard_language
from app.api.wearable.segments import Json, Segment, Segments, Who, segment_json, whose
from app.api.wearable.shapes import of_record, to_record
from app.api.wearable.suggested import assignment, suggested
from app.api.wearable.transcript import Transcript
from app.audio.packets import packet_decoder
from app.dialogue.endpointing import FRAME
from app.dialogue.events import USER, Event, Failed, Final, Named, Notice, SpeechStopped
from app.dialogue.outbox import FellBehind
from app.dialogue.session import Session
from app.dialogue.who import Change
from app.roles import BadAudio, BadInput, Busy, ColloquyError, Misconfigured, Samples
from app.stores.landing import segments_entry

log = logging.getLogger(__name__)

_PING_S = 10.0
_SHOW_S = 0.6
_IDLE_S = 90.0
_TICK_S = 1.0
_SEND_TIMEOUT_S = 20.0
_LAST_WORDS_S = 60.0
_CALM_S = 20.0
"""For the last words while the phone still reads."""
_LONGEST_TEXT = 1 << 20
_ENGLISH_ONLY = "this server hears English only; started with LANGUAGE=auto it hears others too"
_KEEP_ALIVE = 2
"""Messages of no more bytes are no packets."""
_BAD_PACKETS = 50
_FAILURES = 3
_AT_ONCE = 100
"""Segments in an array: when a speaker is recognised, many change."""
_AHEAD = 2
"""So many utterances may lack their final words before a phone that sends faster than we hear waits."""
_UNREAD = 50
"""The same for events that were not looked at, while a database is slow."""


class Close(Exception):
    """The connection is to be closed, with this code and for this reason; `calmly` after what was sent is
    heard and shown."""

    def __init__(self, code: int, reason: str, *, calmly: bool = False) -> None:
        super().__init__(reason)
        self.code, self.reason, self.calmly = code, reason, calmly


class Dead(Exception):
    """Recognition does not work, or never will with what is sent."""

    def __init__(self, outcome: str, reason: str, *, retryable: bool, code: int = 1011) -> None:
        super().__init__(reason)
        self.outcome, self.reason, self.retryable, self.code = outcome, reason, retryable, code


class Connection:
    """A `Listener` of its owner's conversations."""

    def __init__(self, context: Context, socket: WebSocket, owner: str, wish: Wish, limits: Limits) -> None:
        self._context, self._days = context, context.days
        self._socket, self._owner, self._wish = socket, owner, wish
        self._limits = limits
        self._sending = asyncio.Lock()
        self._settling = asyncio.Lock()
        self._session: Session | None = None
        self._opened = asyncio.Event()
        self._transcript = Transcript(self._said)
        self._calm = asyncio.Event()
        self._committed = False
        self._drained = asyncio.Event()
        self._clock = StreamClock()
        self._provider = ""
        self._diarized = False
        self._followed_to = 0
        # The conversation that this stream's words go to, and those that hold words not stored yet.
        self._place: tuple[Current, Segments] | None = None
        self._unsettled: list[tuple[Current, Segments]] = []
        self._resumed: Segment | None = None
        self._around = context.who_heard(owner) if wish.custom_stt else context.who_around(owner)
        self._around.recognise_user = wish.include_speech_profile
        self._around.look_again()
        self._kept_voices = 0
        self._names = Introductions(self._around, context.diary, owner, self.tell)
        self._events: asyncio.Queue[Json] = asyncio.Queue()
        self._pending: dict[str, Json] = {}
        self._gone: list[str] = []
        self._news = asyncio.Event()
        self._arrived = time.monotonic()
        self._counts = {"packets": 0, "bad_packets": 0, "photos": 0, "ignored": 0}
        self._failures = 0

    async def serve(self) -> None:
        """Until either side leaves."""
        # The first to begin is the first to send.
        ping = asyncio.create_task(self._while_read(self._ping()))
        follow = asyncio.create_task(self._listen())
        senders = map(self._while_read, (self._show_news(), self._tell_events()))
        read = asyncio.create_task(self._read())
        tasks = [ping, follow, read, *map(asyncio.create_task, (self._watch(), *senders))]
        ending: tuple[int, str] = (1011, "something failed inside")
        try:
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                # Only the session ends by itself.
                ending = (1001, "the server is stopping")
            except Close as end:
                ending = (end.code, end.reason)
                if end.calmly:
                    await self._end_calmly(follow, read)
            except Dead as dead:
                await self._status("stt_failed", dead.reason, dead)
                ending = (dead.code, dead.reason)
            except ColloquyError as error:
                log.warning("a wearable cannot be served: %s", error.message)
                ending = (close_code(error, 1011), error.message)
            except FellBehind:
                ending = (1001, "it was read too slowly to keep")
            except TimeoutError:
                ending = (1001, "nothing was read for too long")
            except WebSocketDisconnect:
                ending = (0, "")
            if ending[0]:
                self._context.metrics.wearable_closes_total.labels(str(ending[0])).inc()
            for task in tasks:
                if task is not follow:
                    task.cancel()
            if ending[0]:
                await close(self._socket, *ending)
            await self._last_words(follow)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave()
            await close(self._socket, 1011, "something failed inside")
            log.info("a wearable's connection is over", extra=dict(self._counts))

    async def _while_read(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send until the phone is gone. Then there may still be something to read of it, up to its end."""
        try:
            await sending
        except (WebSocketDisconnect, RuntimeError) as gone:
            # Starlette reports a peer that vanished while we were sending as RuntimeError.
            log.debug("connection lost: %r", gone)
            await asyncio.Event().wait()

    async def _end_calmly(self, follow: asyncio.Task[None], read: asyncio.Task[None]) -> None:
        """Take nothing more, and show what was heard before the end comes."""
        read.cancel()
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(_CALM_S):
                await self._last_words(follow)
                while self._pending or self._gone:
                    await self._send_news()

    async def _last_words(self, follow: asyncio.Task[None]) -> None:
        """What was sent is heard to its end."""
        if self._session is None or follow.done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                # The last frame may be waiting for the rest of it.
                await self._session.hear(np.zeros(FRAME, np.float32))
                self._session.commit()
                drained = asyncio.create_task(self._drained.wait())
                await asyncio.wait([drained, follow], return_when=asyncio.FIRST_COMPLETED)
                drained.cancel()

    async def _leave(self) -> None:
        try:
            if self._place is not None:
                _, segments = self._place
                # Words that were still uncertain are not kept: nobody would ever correct them.
                segments.fix("", 0.0, 0.0, segments.last_who)
                self._days.show(self._owner, *segments.take())
            await self._settle_or_spool()
            await self._limits.end(self._heard_s)
        finally:
            self._days.leave(self, self._owner)
            if self._session is not None:
                self._context.sessions.release(self._session.id)

    # --- what is sent ----------------------------------------------------------------------------

    def tell(self, event: Json) -> None:
        """See `Listener`."""
        self._events.put_nowait(event)

    def learnt(self, change: Change) -> None:
        """See `Listener`."""
        if self._place is not None:
            self._place[1].learnt(change)
            self._days.show(self._owner, *self._place[1].take())

    @property
    def live(self) -> set[str]:
        """See `Listener`."""
        return self._place[1].live if self._place is not None else set()

    def show(self, segments: Iterable[Json], deleted: Iterable[str]) -> None:
        """See `Listener`."""
        for segment in segments:
            self._pending[segment["id"]] = segment
        for id_ in deleted:
            self._pending.pop(id_, None)
            self._gone.append(id_)
        self._news.set()

    async def _send(self, text: str) -> None:
        async with self._sending, asyncio.timeout(_SEND_TIMEOUT_S):
            await self._socket.send({"type": "websocket.send", "text": text})

    async def _send_json(self, message: Any) -> None:
        await self._send(json.dumps(message, ensure_ascii=False))

    async def _status(self, status: str, text: str, dead: Dead | None = None) -> None:
        told: Json = {"type": "service_status", "status": status, "status_text": text}
        if dead is not None:
            told |= {"outcome": dead.outcome, "retryable": dead.retryable, "reason": dead.reason}
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            await self._send_json(told)

    async def _ping(self) -> None:
        while True:
            await self._send("ping")
            await asyncio.sleep(_PING_S)

    async def _show_news(self) -> None:
        """Segments that are new or changed, not more often than the app can draw them."""
        while True:
            await self._news.wait()
            await self._send_news()
            await asyncio.sleep(_SHOW_S)

    async def _send_news(self) -> None:
        self._news.clear()
        if self._gone:
            gone, self._gone = self._gone, []
            await self._send_json({"type": "segments_deleted", "segment_ids": gone})
        if self._pending:
            shown = sorted(self._pending.values(), key=lambda s: float(s["start"]))[:_AT_ONCE]
            for segment in shown:
                del self._pending[segment["id"]]
            if self._pending:
                self._news.set()
            await self._send_json(shown)

    async def _tell_events(self) -> None:
        while True:
            await self._send_json(await self._events.get())

    # --- what comes ------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            decoder = await asyncio.to_thread(
                packet_decoder, self._wish.codec, self._wish.sample_rate, self._wish.channels
            )
        except (BadInput, Misconfigured) as error:
            raise Close(1008, error.message) from error
        packets = self._context.metrics.wearable_packets_total
        good = packets.labels(self._wish.codec, "ok")
        while True:
            message = await self._socket.receive()
            self._arrived = time.monotonic()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            if (data := message.get("bytes")) is None:
                await self._control(message.get("text") or "")
            elif len(data) <= _KEEP_ALIVE:
                packets.labels(self._wish.codec, "keep_alive").inc()
            else:
                self._counts["packets"] += 1
                try:
                    samples = decoder.decode(data)
                except BadAudio as error:
                    packets.labels(self._wish.codec, "bad").inc()
                    self._bad_packet(error)
                    continue
                good.inc()
                if not self._wish.custom_stt and len(samples):
                    await self._hear(samples)

    def _bad_packet(self, error: BadAudio) -> None:
        self._counts["bad_packets"] += 1
        if self._counts["bad_packets"] == self._counts["packets"] == _BAD_PACKETS:
            reason = f"nothing that was sent is {self._wish.codec}: {error.message}"
            raise Dead("invalid_input", reason, retryable=False, code=1008)

    async def _hear(self, samples: Samples) -> None:
        await self._opened.wait()
        assert self._session is not None
        self._arrived = math.inf  # while it is we who make the phone wait, it is there
        while self._transcript.behind > _AHEAD or self._unread > _UNREAD:
            self._calm.clear()
            await self._calm.wait()
        self._clock.arrives(self._session.heard_s, time.time())
        await self._session.hear(samples)
        if (current := self._days.current(self._owner)) is not None:
            current.sent_to = max(current.sent_to, self._clock.at(self._session.heard_s))
        self._arrived = time.monotonic()

    async def _control(self, text: str) -> None:
        try:
            message: Any = json.loads(text) if len(text) <= _LONGEST_TEXT else None
        except (ValueError, RecursionError):
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "image_chunk":
            self._counts["photos"] += 1
        elif kind == "speaker_assigned":
            try:
                await self._assign(message)
            except ColloquyError as error:
                log.warning("who speaks was not noted: %s", error.message)
        elif kind == "suggested_transcript" and self._wish.custom_stt:
            await self._suggested(message)
        else:
            self._counts["ignored"] += 1
            log.debug("a message of the app is ignored: %s", str(kind)[:40])

    async def _assign(self, message: Json) -> None:
        """The user says who it is that speaks."""
        people = {p.id: p.name for p in await self._context.diary.people(self._owner)}
        if (found := assignment(message, people)) is None:
            self._counts["ignored"] += 1
            return
        who, ids = found
        id_ = who.person_id or USER
        self._around.assign(who.number, Named(id_, people.get(id_, USER)))
        await self._settle()
        if self._place is not None:
            self._place[1].assign(ids, who)
            self._days.show(self._owner, *self._place[1].take())
        live = self.live
        changed = await self._context.diary.assign(self._owner, ids, who.person_id, who.is_user)
        told = [segment_json(of_record(s)) for s in changed if s.id not in live | self.live]
        self._days.show(self._owner, told, ())

    async def _suggested(self, message: Json) -> None:
        """What the app itself recognised."""
        await self._opened.wait()
        for said in suggested(message):
            began = self._clock.at(said.start)
            current, segments = self._at(began, said.provider)
            ended = max(began, self._clock.at(said.end))
            who = self._whose(said.who.label)
            segments.fix(said.text, began - current.started_at, ended - current.started_at, who)
            current.last_at = max(current.last_at, ended)
            self._days.show(self._owner, *segments.take())
        await self._settle_or_log()

    # --- hearing ---------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Open the session and follow it to its end."""
        await self._status("initiating", "Connecting")
        try:
            language = heard_language(self._context, self._wish)
            if language is not None and self._wish.language is None:
                self.tell({"type": "notice", "code": "ENGLISH_ONLY", "message": _ENGLISH_ONLY})
        except BadInput as error:
            raise Dead("config_error", error.message, retryable=False, code=1008) from error
        self._resumed = await self._days.join(self, self._owner, self._wish.timeout_s)
        current = self._days.current(self._owner)
        if current is not None and not self._wish.custom_stt and self._resumed is not None:
            if elsewhere := self._days.voices_elsewhere(current, fresh=not self._around.version):
                self._around.restore(elsewhere)
            self._kept_voices = self._around.version
        self._clock = StreamClock(max(current.last_at, current.sent_to) if current is not None else 0.0)
        await self._status("in_progress_conversations_processing", "Looking for conversations in progress")
        if done := await self._context.diary.conversations(self._owner, ("completed",), 1):
            self.tell({"type": "last_memory", "memory_id": done[0].id})
        await self._status("stt_initiating", "Starting recognition")
        if self._wish.custom_stt:
            self._clock.arrives(0.0, time.time())
            self._opened.set()
            await self._status("ready", "Ready")
            await asyncio.Event().wait()
        try:
            config = listening(self._context, language)
            self._diarized = config.diarize
            session = self._session = await open_listener(
                self._context, self._owner, config, self, self._around
            )
        except Busy as error:
            raise Dead("upstream_error", error.message, retryable=True) from error
        self._opened.set()
        ready = asyncio.create_task(self._ready(session))
        try:
            async for number, event in session.outbox.follow(0):
                self._take(event, ready=ready.done())
                await self._names.suggest()
                if self._place is not None and self._place[1].firm:
                    await self._settle_or_log()
                self._followed_to = number
                self._calm.set()
        finally:
            ready.cancel()
            await asyncio.wait([ready])

    async def _ready(self, session: Session) -> None:
        await session.ready()
        self._provider = (await self._context.runtime.roles()).stt.info.name
        await self._status("ready", "Ready")

    def _take(self, event: Event, *, ready: bool) -> None:
        self._transcript.take(event)
        self._calm.set()
        if isinstance(event, Failed):
            self._failures += 1
            if not ready or self._failures >= _FAILURES:
                outcome = "config_error" if event.code == Misconfigured.code else "upstream_error"
                raise Dead(outcome, event.message, retryable=outcome != "config_error")
        elif isinstance(event, Final):
            self._failures = 0
        elif isinstance(event, SpeechStopped):
            self._committed = self._committed or event.forced
        elif isinstance(event, Notice):
            self._committed = self._committed or event.code == "NOTHING_HEARD"
        if self._committed and not self._transcript.behind:
            self._drained.set()

    def _said(self, text: str, start: float, end: float, label: str | None, *, firm: bool) -> None:
        """Words of this stream: see `transcript.Told`."""
        began = self._clock.at(start)
        place = self._at(began, self._provider) if text else self._place
        if place is None:
            return
        current, segments = place
        ended = max(began, self._clock.at(end))
        who = segments.last_who
        if label is not None:
            who = self._whose(label)
        # The better recogniser may hear it begin before what was first shown of the conversation.
        start, end = max(0.0, began - current.started_at), max(0.0, ended - current.started_at)
        if firm:
            segments.fix(text, start, end, None if label is None and self._diarized else who)
        else:
            segments.show(text, start, end, who)
        if text:
            current.last_at = max(current.last_at, ended)
        if text and firm and not who.is_user and who.person_id is None:
            self._names.said(who.number, text, segments.last_id)
        self._days.show(self._owner, *segments.take())

    def _whose(self, label: str) -> Who:
        """A voice, and whose it is as far as that is known now."""
        number = self._around.current(Who(label).number)
        return whose(number, self._around.person(number))

    def _at(self, began: float, provider: str) -> tuple[Current, Segments]:
        """Where words go that began then: into the conversation that goes on, or a new one."""
        current = self._days.current(self._owner)
        if current is not None and began - current.last_at > current.timeout_s:
            self._days.end_soon(self._owner)
            current = None
        if current is None:
            current = self._days.begin(
                self._owner,
                began,
                self._wish.timeout_s,
                language=self._wish.language,
                source=self._wish.source,
            )
        if self._place is None or self._place[0] is not current:
            last, self._resumed = self._resumed, None
            self._place = current, Segments(last if current.stored else None, provider)
        return self._place

    def over(self, current: Current) -> None:
        """See `Listener`."""
        if self._place is not None and self._place[0] is current:
            self._unsettled.append(self._place)
            self._place = None
        self._resumed = None

    async def settle(self) -> None:
        """See `Listener`."""
        await self._settle()

    async def _settle(self) -> None:
        async with self._settling:
            for place in [*self._unsettled, *([self._place] if self._place is not None else [])]:
                current, segments = place
                firm, segments.firm = segments.firm, {}
                if firm:
                    version, voices = self._around.version, None
                    if version != self._kept_voices and not self._wish.custom_stt:
                        voices = self._around.state()
                    try:
                        await self._days.keep(current, list(firm.values()), voices)
                        self._kept_voices = version
                    except BaseException:
                        segments.firm = firm | segments.firm
                        raise
                if place in self._unsettled:
                    self._unsettled.remove(place)

    async def _settle_or_log(self) -> None:
        try:
            await self._settle()
        except ColloquyError as error:
            log.warning("what was heard is not stored yet: %s", error.message)

    async def _settle_or_spool(self) -> None:
        """The last chance: what the database does not take now waits on the disk for it."""
        try:
            await self._settle()
        except ColloquyError as error:
            log.warning("what was heard is stored later: %s", error.message)
            for current, segments in [*self._unsettled, *([self._place] if self._place is not None else [])]:
                firm = [to_record(s, current.id) for s in segments.firm.values()]
                if firm:
                    await self._context.keeper.keep(segments_entry(current.record(), firm))

    # --- the clock -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """See when a conversation is over, and when nobody is there."""
        while True:
            await asyncio.sleep(_TICK_S)
            if time.monotonic() - self._arrived > _IDLE_S:
                raise Close(1001, "nothing came for 90 seconds")
            if self._days.unwanted(self):
                raise Close(1001, "all that was kept of this user is erased")
            await self._settle_or_log()
            await self._limits.check(self._heard_s)
            if self._limits.time_is_up(speaking=bool(self._transcript.behind)):
                raise Close(1001, "a connection may be no longer than this here: come back", calmly=True)
            current = self._days.current(self._owner)
            if current is not None and self._now() - current.last_at > current.timeout_s:
                self._days.end_soon(self._owner)

    @property
    def _heard_s(self) -> float:
        return self._session.heard_s if self._session is not None else 0.0

    @property
    def _unread(self) -> int:
        """How many of the session's events were not looked at yet."""
        return self._session.outbox.last_seq - self._followed_to if self._session is not None else 0

    def _now(self) -> float:
        """What time it is for what is heard: not yet now while sound waits to be listened to."""
        session = self._session
        if session is None:
            return 0.0 if not self._wish.custom_stt else time.time()
        if self._transcript.behind or self._unread or session.heard_s - session.listened_s > _TICK_S:
            return 0.0
        return max(time.time(), self._clock.at(session.heard_s))
