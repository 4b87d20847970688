"""All open sessions: how many there may be, who waits for a place, and how long a session waits for
its client to return."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from app.dialogue.session import Session
from app.roles import Busy, ColloquyError, NotFound

log = logging.getLogger(__name__)

_COMING_S = 10.0
"""A client is on its way for so long, after its session was made or its connection broke."""
_LOOK_S = 0.5


@dataclass(slots=True)
class _Entry:
    session: Session
    owner: str
    admitted: bool = False
    connection: object | None = None
    leaving: asyncio.TimerHandle | None = None


class SessionManager:
    """At most `limit` sessions are served and `max_waiting` wait for a place, in order of arrival. A
    session without a connection is closed after `keep_s` seconds; one that waits and has never had
    one, after ten.

    `on_count` is told how many are served, `on_end` is given each session once it is closed.
    `may_admit` gives a reason to hold newcomers although there are places (overload), or None.
    """

    def __init__(
        self,
        limit: int,
        keep_s: float,
        *,
        on_count: Callable[[int], None],
        on_end: Callable[[Session], Awaitable[None]],
        max_waiting: int = 10,
        may_admit: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._limit = limit
        self._keep_s = keep_s
        self._on_count = on_count
        self._on_end = on_end
        self._max_waiting = max_waiting
        self._may_admit = may_admit
        # In order of arrival: those that wait are a queue.
        self._entries: dict[str, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many are served."""
        return sum(e.admitted for e in self._entries.values())

    def create(self, owner: str, make: Callable[[str], Session]) -> Session:
        """A new session of `owner`, built by `make(session_id)`; see `position` for whether it waits.
        Raises `Busy` when as many wait as may.

        A session whose client has gone makes room for one whose client is here.
        """
        self._admit()
        # If there still is a place, who waits is not here, and is overtaken.
        waiting, reason = self._waiting(), self._no_place()
        if reason is not None and len(waiting) >= self._max_waiting:
            raise Busy(
                f"{reason}, and {len(waiting)} wait already; try again in a few seconds",
                retry_after=self.retry_after(),
                position=len(waiting),
            )
        session = make(str(uuid.uuid4()))
        entry = self._entries[session.id] = _Entry(session, owner)
        if reason is None:
            self._let_in(entry)
        else:
            log.info("a session waits: %s", reason, extra={"session_id": session.id})
            self._leave_later(entry, _COMING_S)
            self._look_later()
        return session

    def adopt(self, owner: str, session: Session) -> None:
        """Serve a session that another process had. It goes on, however many there are."""
        entry = self._entries[session.id] = _Entry(session, owner)
        self._let_in(entry)

    def release(self, session_id: str) -> None:
        """Another process has the session."""
        entry = self._entries.pop(session_id, None)
        if entry is not None:
            if entry.leaving is not None:
                entry.leaving.cancel()
            self._on_count(len(self))
            self._soon(entry.session.abandon())
            self._admit()

    def get(self, session_id: str, owner: str) -> Session:
        """`owner`'s open session, or `NotFound`."""
        entry = self._entries.get(session_id)
        if entry is None or entry.owner != owner:
            raise NotFound("there is no such session; it may have ended: create a new one")
        return entry.session

    def position(self, session_id: str) -> int:
        """The session's place in the queue: 1 is the next, 0 does not wait."""
        waiting = [e.session.id for e in self._waiting()]
        return waiting.index(session_id) + 1 if session_id in waiting else 0

    def retry_after(self) -> float:
        """A guess at how many seconds it takes until a place is free."""
        loop = asyncio.get_running_loop()
        waits = [e.leaving.when() - loop.time() for e in self._entries.values() if e.leaving is not None]
        return max(1.0, min(waits, default=10.0))

    def attach(self, session_id: str, owner: str, connection: object) -> Session:
        """`connection` now listens to the session. An earlier one is displaced: it must check
        `is_displaced` before it takes anything more for the session, and leave."""
        session = self.get(session_id, owner)
        entry = self._entries[session_id]
        if entry.leaving is not None:
            entry.leaving.cancel()
            entry.leaving = None
        entry.connection = connection
        self._admit()
        return session

    def is_displaced(self, session_id: str, connection: object) -> bool:
        """Whether the session listens to another connection."""
        entry = self._entries.get(session_id)
        return entry is not None and entry.connection is not connection

    def detach(self, session_id: str, connection: object) -> None:
        """`connection` is gone; the session waits for another."""
        entry = self._entries.get(session_id)
        if entry is not None and entry.connection is connection:
            entry.connection = None
            self._leave_later(entry, self._keep_s)

    async def end(self, session_id: str) -> None:
        """Close the session now. No error if there is none."""
        entry = self._entries.pop(session_id, None)
        if entry is not None:
            self._on_count(len(self))
            self._admit()
            await self._close(entry)

    async def end_all(self, owner: str) -> int:
        """Close all sessions of `owner` now; how many there were."""
        mine = [id_ for id_, entry in self._entries.items() if entry.owner == owner]
        await asyncio.gather(*map(self.end, mine))
        return len(mine)

    async def _close(self, entry: _Entry) -> None:
        if entry.leaving is not None:
            entry.leaving.cancel()
        await entry.session.close()
        try:
            await self._on_end(entry.session)
        except ColloquyError as error:
            log.warning("the end of a session was not noted: %s", error.message)
        log.info("session ended", extra={"session_id": entry.session.id})

    async def close(self) -> None:
        """End all sessions, or leave them to other processes where there may be some, and let no
        other in."""
        self._closed = True
        await asyncio.gather(*(self._leave(e) for e in list(self._entries.values())))
        if self._look is not None:
            self._look.cancel()
        while self._closing:
            await asyncio.wait(self._closing)

    async def _leave(self, entry: _Entry) -> None:
        if await entry.session.hand_over():
            self.release(entry.session.id)
        else:
            await self.end(entry.session.id)

    # --- places --------------------------------------------------------------------------------

    def _waiting(self) -> list[_Entry]:
        return [e for e in self._entries.values() if not e.admitted]

    def _no_place(self) -> str | None:
        """Why nobody can be let in now; None if somebody can."""
        if self._closed:
            return "the server is stopping"
        if (reason := self._may_admit()) is not None:
            return reason
        if len(self) < self._limit or self._make_room():
            return None
        return f"all {self._limit} sessions are in use"

    def _admit(self) -> None:
        """Let in who waits and is here, in order, while there is a place."""
        for entry in self._waiting():
            if entry.connection is not None:
                if self._no_place() is not None:
                    break
                self._let_in(entry)
        self._look_later()

    def _let_in(self, entry: _Entry) -> None:
        entry.admitted = True
        if entry.connection is None:
            self._leave_later(entry, self._keep_s)
        entry.session.start()
        self._on_count(len(self))

    def _look_later(self) -> None:
        """While somebody waits, look now and then: overload passes, and clients leave."""
        if self._look is not None:
            self._look.cancel()
        waits = bool(self._waiting()) and not self._closed
        self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._admit) if waits else None

    def _make_room(self) -> bool:
        """End the session whose client has been gone for longest, but not one whose client may be
        on its way."""
        gone = [e for e in self._entries.values() if e.admitted and e.leaving is not None]
        if not gone:
            return False
        oldest = min(gone, key=_leaves_at)
        if _leaves_at(oldest) - asyncio.get_running_loop().time() > self._keep_s - _COMING_S:
            return False
        # Its place is free at once, though it takes a while to close.
        self._soon(self._close(self._entries.pop(oldest.session.id)))
        return True

    def _leave_later(self, entry: _Entry, seconds: float) -> None:
        if entry.leaving is not None:
            entry.leaving.cancel()
        loop = asyncio.get_running_loop()
        entry.leaving = loop.call_later(seconds, self._end_soon, entry.session.id)

    def _end_soon(self, session_id: str) -> None:
        self._soon(self.end(session_id))

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _leaves_at(entry: _Entry) -> float:
    return entry.leaving.when() if entry.leaving is not None else 0.0
