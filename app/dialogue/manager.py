"""All open sessions: how many there may be, and how long one waits for its client to return."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.dialogue.session import Session
from app.roles import Busy, ColloquyError, NotFound

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    session: Session
    owner: str
    connection: object | None = None
    leaving: asyncio.TimerHandle | None = None


class SessionManager:
    """At most `limit` sessions; one without a connection is closed after `keep_s` seconds.

    `on_count` is told how many there are, `on_end` is given each session once it is closed.
    """

    def __init__(
        self,
        limit: int,
        keep_s: float,
        *,
        on_count: Callable[[int], None],
        on_end: Callable[[Session], Awaitable[None]],
    ) -> None:
        self._limit = limit
        self._keep_s = keep_s
        self._on_count = on_count
        self._on_end = on_end
        self._entries: dict[str, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def create(self, owner: str, make: Callable[[str], Session]) -> Session:
        """A new session of `owner`, built by `make(session_id)`. Raises `Busy` when there are as
        many as may be.

        A session whose client has gone makes room for one whose client is here.
        """
        if len(self._entries) >= self._limit and not self._make_room():
            raise Busy(
                f"all {self._limit} sessions are in use; try again in a few seconds",
                retry_after=self._retry_after(),
            )
        session = make(str(uuid.uuid4()))
        entry = self._entries[session.id] = _Entry(session, owner)
        self._leave_later(entry)
        session.start()
        self._on_count(len(self._entries))
        return session

    def get(self, session_id: str, owner: str) -> Session:
        """`owner`'s open session, or `NotFound`."""
        entry = self._entries.get(session_id)
        if entry is None or entry.owner != owner:
            raise NotFound("there is no such session; it may have ended: create a new one")
        return entry.session

    def attach(self, session_id: str, owner: str, connection: object) -> Session:
        """`connection` now listens to the session. An earlier one is displaced: it must check
        `is_attached` and leave."""
        session = self.get(session_id, owner)
        entry = self._entries[session_id]
        if entry.leaving is not None:
            entry.leaving.cancel()
            entry.leaving = None
        entry.connection = connection
        return session

    def is_attached(self, session_id: str, connection: object) -> bool:
        """Whether `connection` is the one that the session listens to."""
        entry = self._entries.get(session_id)
        return entry is not None and entry.connection is connection

    def detach(self, session_id: str, connection: object) -> None:
        """`connection` is gone; the session waits for another."""
        entry = self._entries.get(session_id)
        if entry is not None and entry.connection is connection:
            entry.connection = None
            self._leave_later(entry)

    async def end(self, session_id: str) -> None:
        """Close the session now. No error if there is none."""
        entry = self._entries.pop(session_id, None)
        if entry is None:
            return
        if entry.leaving is not None:
            entry.leaving.cancel()
        self._on_count(len(self._entries))
        await entry.session.close()
        try:
            await self._on_end(entry.session)
        except ColloquyError as error:
            log.warning("the end of a session was not noted: %s", error.message)
        log.info("session ended", extra={"session_id": session_id})

    async def close(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(self.end(i) for i in list(self._entries)))
        while self._closing:
            await asyncio.wait(self._closing)

    def _make_room(self) -> bool:
        waiting = [e for e in self._entries.values() if e.leaving is not None]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda e: e.leaving.when() if e.leaving else 0.0)
        # Not one that has just been created and whose client is still on its way.
        if (
            oldest.leaving is None
            or oldest.leaving.when() - asyncio.get_running_loop().time() > self._keep_s - 10
        ):
            return False
        self._end_soon(oldest.session.id)
        return True

    def _retry_after(self) -> float:
        loop = asyncio.get_running_loop()
        waits = [e.leaving.when() - loop.time() for e in self._entries.values() if e.leaving is not None]
        return max(1.0, min(waits, default=10.0))

    def _leave_later(self, entry: _Entry) -> None:
        loop = asyncio.get_running_loop()
        entry.leaving = loop.call_later(self._keep_s, self._end_soon, entry.session.id)

    def _end_soon(self, session_id: str) -> None:
        task = asyncio.create_task(self.end(session_id))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
