"""The life of conversations: they begin with words, go on across connections, end in silence, and are kept.

What is said is in the diary as soon as it is firm, so any process can go on with a conversation, or end it:
the diary gives each to one of them. Here is only what the connections of this process need to agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from weakref import WeakSet

from app.api.wearable.segments import Json, Segment, segment_json, whose
from app.api.wearable.shapes import conversation_json, of_record, to_record
from app.dialogue.who import Change
from app.roles import BadInput, Busy, ColloquyError
from app.stores.diary import ConversationRecord, Diary, SegmentRecord

log = logging.getLogger(__name__)

_SWEEP_S = 20.0
_GRACE_S = 30.0
"""A conversation whose connection is in another process is ended by that one, unless it is so late."""
_STALE_S = 900.0
"""Who has claimed a conversation for so long has died over it."""
_LEAVE_S = 10.0
_RESENT = 20
"""Segments told again to who comes back: the connection may have broken before they arrived."""


class Structure(Protocol):
    """Makes something of conversations."""

    async def __call__(
        self, record: ConversationRecord, segments: Sequence[SegmentRecord]
    ) -> ConversationRecord | None:
        """Make something of a conversation and complete it in the diary; None if there was nothing in it."""

    async def again(
        self, record: ConversationRecord, segments: Sequence[SegmentRecord]
    ) -> ConversationRecord:
        """Make something else of one that is completed. Raises why nothing was: then all stays as it was."""


@dataclass(slots=True, eq=False)
class Current:
    """A conversation in progress. Times are Unix times in s; `last_at` is where its last words end, `sent_to`
    where the sound ends in which there may be more."""

    owner: str
    started_at: float
    last_at: float
    timeout_s: int
    language: str | None = None
    source: str | None = None
    id: str = ""
    stored: bool = False
    sent_to: float = 0.0
    voices: Json | None = None
    """What the process that last stored it knew of the speakers, until somebody goes on with that."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while stored segments are changed."""

    def record(self, voices: Json | None = None) -> ConversationRecord:
        """As it is kept."""
        return ConversationRecord(
            id=self.id,
            owner=self.owner,
            started_at=_instant(self.started_at),
            finished_at=_instant(self.last_at),
            touched_at=datetime.now(UTC),
            ends_at=_instant(self.last_at + self.timeout_s),
            language=self.language,
            source=self.source,
            voices=voices,
        )


class Listener(Protocol):
    """A connection of an owner."""

    def tell(self, event: Json) -> None:
        """Send an event."""

    def show(self, segments: Iterable[Json], deleted: Iterable[str]) -> None:
        """Send segments that are new or changed, soon."""

    def over(self, current: Current) -> None:
        """That conversation has ended: what comes next is another's."""

    async def settle(self) -> None:
        """Store what is firm."""

    def learnt(self, change: Change) -> None:
        """More is known of whose voices there are: change what is not stored yet."""

    @property
    def live(self) -> set[str]:
        """Segments whose text may still change."""


class Conversations:
    """The conversations of this process's connections. `start` before use."""

    def __init__(self, diary: Diary, structure: Structure) -> None:
        self._diary = diary
        self._structure = structure
        self._current: dict[str, Current] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._joining = asyncio.Lock()
        # Connections that are about to be told what is stored, and what they were told meanwhile.
        self._joins: dict[Listener, set[str]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self._unwanted: WeakSet[Listener] = WeakSet()
        self._again: set[str] = set()
        self._id = uuid.uuid4().hex

    def start(self) -> None:
        """Begin to look for conversations that nobody ended."""
        self._sweeping = asyncio.create_task(self._sweep(), name="sweep-conversations")

    async def close(self) -> None:
        """Wait until the connections have stored what they heard; leave to another process, or another day,
        what is being made of conversations."""
        try:
            async with asyncio.timeout(_LEAVE_S):
                while any(self._listeners.values()):
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            log.warning("a connection did not end in time")
        for task in (*self._tasks, *([self._sweeping] if self._sweeping else ())):
            task.cancel()
            await asyncio.wait([task])

    # --- connections -----------------------------------------------------------------------------

    async def join(self, listener: Listener, owner: str, timeout_s: int) -> Segment | None:
        """A connection of `owner` begins. It is shown the end of the conversation that goes on, if one does;
        gives the last segment of it, unless another connection may be about to change that."""
        async with self._joining:
            kept = await self._diary.conversations(owner, ("in_progress",), 10)
            current = self._current.get(owner)
            if current is not None and current.stored and current.id not in {r.id for r in kept}:
                self._forget(current)
                current = None
            for record in kept:
                if current is not None and record.id == current.id:
                    current.last_at = max(current.last_at, record.finished_at.timestamp())
                    current.voices = record.voices
                    continue
                if current is None and record.ends_at > datetime.now(UTC):
                    current = self._current[owner] = _resumed(record)
                else:
                    self._spawn(self._finish(record))
            if current is not None:
                current.timeout_s = timeout_s
            others = list(self._listeners.setdefault(owner, []))
            self._listeners[owner].append(listener)
        newer = self._joins[listener] = set()
        try:
            # What they have shown is stored before it is read here; what they show from now on, we are shown.
            for other in others:
                with contextlib.suppress(ColloquyError):
                    await other.settle()
            if current is None or not current.stored:
                return None
            last = (await self._diary.segments([current.id], _RESENT))[current.id]
        finally:
            del self._joins[listener]
        listener.show([segment_json(of_record(s)) for s in last if s.id not in newer], ())
        return of_record(last[-1]) if last and not others else None

    def leave(self, listener: Listener, owner: str) -> None:
        """A connection has ended; the conversation waits for another one. Idempotent."""
        others = self._listeners.get(owner, [])
        if listener in others:
            others.remove(listener)
        if not others:
            self._listeners.pop(owner, None)
            current = self._current.get(owner)
            if current is not None and not current.stored:
                del self._current[owner]
        self._left.set()

    async def forget(self, owner: str) -> int:
        """Nothing is to be known of `owner` any more: wait until their connections are gone; how many."""
        if (current := self._current.get(owner)) is not None:
            self._forget(current)
        found = list(self._listeners.get(owner, ()))
        self._unwanted.update(found)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                while any(listener in self._listeners.get(owner, ()) for listener in found):
                    self._left.clear()
                    await self._left.wait()
        self._current.pop(owner, None)
        return len(found)

    def unwanted(self, listener: Listener) -> bool:
        """Whether this connection is to end."""
        return listener in self._unwanted

    def show(self, owner: str, segments: Sequence[Json], deleted: Sequence[str]) -> None:
        """Show all of `owner`'s connections what is new."""
        if segments or deleted:
            for listener in self._listeners.get(owner, ()):
                listener.show(segments, deleted)
                if (newer := self._joins.get(listener)) is not None:
                    newer.update(s["id"] for s in segments)

    def tell(self, owner: str, event: Json) -> None:
        """Tell all of `owner`'s connections."""
        for listener in self._listeners.get(owner, ()):
            listener.tell(event)

    # --- a conversation --------------------------------------------------------------------------

    def current(self, owner: str) -> Current | None:
        """`owner`'s conversation in progress, if this process knows of one."""
        return self._current.get(owner)

    def begin(
        self, owner: str, at: float, timeout_s: int, *, language: str | None, source: str | None
    ) -> Current:
        """A conversation begins `at`. It is kept once it holds words."""
        current = Current(owner, at, at, timeout_s, language, source, str(uuid.uuid4()))
        self._current[owner] = current
        return current

    async def keep(self, current: Current, segments: Sequence[Segment], voices: Json | None = None) -> None:
        """Store segments of a conversation, and what is known of its speakers if that changed. If somebody
        has ended it, the next words begin another."""
        records = [to_record(s, current.id) for s in segments]
        known = None if voices is None else {"by": self._id, "who": voices}
        going_on = await self._diary.keep(current.record(known), records)
        current.stored = True
        if not going_on:
            self._forget(current)

    def voices_elsewhere(self, current: Current, *, fresh: bool) -> Json | None:
        """What another process learnt last of the speakers of a conversation that goes on here; `fresh`: here
        nothing is known of them."""
        kept, current.voices = current.voices, None
        if kept is None or (kept["by"] == self._id and not fresh):
            return None
        voices: Json = kept["who"]
        return voices

    def learnt(self, owner: str, change: Change) -> None:
        """More is known of whose voices those around `owner` are: segments of the conversation that goes on
        are changed, and shown again."""
        if (current := self._current.get(owner)) is not None:
            for listener in self._listeners.get(owner, ()):
                listener.learnt(change)
            self.background(self._retell(current, change))

    async def _retell(self, current: Current, change: Change) -> None:
        owner = current.owner
        async with current.changing:
            live = self._live(owner)
            for listener in list(self._listeners.get(owner, ())):
                await listener.settle()
            found: dict[str, SegmentRecord] = {}
            for gone, kept in change.merged:
                found |= {s.id: s for s in await self._diary.relabel(current.id, gone, kept)}
            for number, was, now in change.named:
                before, after = (
                    (who.is_user, who.person_id) for who in (whose(number, was), whose(number, now))
                )
                renamed = await self._diary.relabel(current.id, number, number, before, after)
                found |= {s.id: s for s in renamed}
            # What still changes has been shown as it is now.
            live |= self._live(owner)
            self.show(owner, [segment_json(of_record(s)) for s in found.values() if s.id not in live], ())

    def _live(self, owner: str) -> set[str]:
        return set().union(*(listener.live for listener in self._listeners.get(owner, ())))

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it, and do not wait for it."""
        self._spawn(work)

    def end_soon(self, owner: str) -> asyncio.Task[ConversationRecord | None] | None:
        """`owner`'s conversation ends here; what is made of it is told when it is. None if there is none."""
        current = self._current.get(owner)
        if current is None:
            return None
        self._forget(current)
        return self._spawn(self._end(current))

    async def end(self, owner: str) -> ConversationRecord | None:
        """The same, and waits; also for one of another process. None if there was none, or nothing in it."""
        if (task := self.end_soon(owner)) is not None:
            return await asyncio.shield(task)
        kept = await self._diary.conversations(owner, ("in_progress",), 1)
        return await asyncio.shield(self._spawn(self._finish(kept[0]))) if kept else None

    async def again(self, owner: str, conversation_id: str) -> ConversationRecord:
        """Make something of a conversation once more: the language model may have failed, or be another."""
        record = await self._diary.conversation(owner, conversation_id)
        if record.status != "completed":
            raise BadInput("this conversation is not completed yet", field="conversation_id")
        if record.id in self._again:
            raise Busy("something is being made of this conversation already", retry_after=10)
        self._again.add(record.id)
        try:
            return await self._structure.again(record, (await self._diary.segments([record.id]))[record.id])
        finally:
            self._again.discard(record.id)

    def drop(self, owner: str, conversation_id: str) -> None:
        """The user deletes a conversation: if it goes on, what comes next is another's."""
        current = self._current.get(owner)
        if current is not None and current.id == conversation_id:
            self._forget(current)

    def _forget(self, current: Current) -> None:
        if self._current.get(current.owner) is current:
            del self._current[current.owner]
        for listener in self._listeners.get(current.owner, ()):
            listener.over(current)

    async def _end(self, current: Current) -> ConversationRecord | None:
        for listener in list(self._listeners.get(current.owner, ())):
            await listener.settle()
        return await self._finish(current.record()) if current.stored else None

    async def _finish(self, record: ConversationRecord) -> ConversationRecord | None:
        """Make something of a conversation, if nobody else does."""
        again = record.touched_at if record.status == "processing" else None
        if not await self._diary.claim(record.id, again):
            return None
        # As it is stored: the silence that ended it may have been noticed before its last words were.
        record = await self._diary.conversation(record.owner, record.id)
        segments = (await self._diary.segments([record.id]))[record.id]
        if any(s.text.strip() for s in segments):
            self._announce("memory_processing_started", record, segments)
        made = await self._structure(record, segments)
        if made is not None:
            self._announce("memory_created", made, segments)
        return made

    def _announce(self, kind: str, record: ConversationRecord, segments: Sequence[SegmentRecord]) -> None:
        told = {"type": kind, "memory": conversation_json(record, segments), "messages": []}
        self.tell(record.owner, told)

    async def _sweep(self) -> None:
        """End what silence has ended, and take up what died."""
        while True:
            try:
                now = datetime.now(UTC)
                ended, stale = now - timedelta(seconds=_GRACE_S), now - timedelta(seconds=_STALE_S)
                for record in await self._diary.overdue(ended, stale):
                    current = self._current.get(record.owner)
                    if current is None or current.id != record.id:
                        await self._finish(record)
                    elif not self._listeners.get(record.owner):
                        await self.end(record.owner)
            except ColloquyError as error:
                log.warning("conversations were not looked through: %s", error.message)
            except Exception:
                log.exception("conversations were not looked through")
            await asyncio.sleep(_SWEEP_S)

    def _spawn(
        self, work: Coroutine[Any, Any, ConversationRecord | None]
    ) -> asyncio.Task[ConversationRecord | None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what was to be done with a conversation failed", exc_info=error)


def _resumed(record: ConversationRecord) -> Current:
    last_at = record.finished_at.timestamp()
    return Current(
        record.owner,
        record.started_at.timestamp(),
        last_at,
        int(record.ends_at.timestamp() - last_at),
        record.language,
        record.source,
        record.id,
        stored=True,
        voices=record.voices,
    )


def _instant(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)
