"""What a session has said, in order, for whoever listens now or comes back later.

Events are numbered once and kept for a while; a connection reads them at its own pace from any
number on. There is no queue per connection, so a slow or absent reader costs nothing beyond the
one bounded log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from itertools import islice

from app.dialogue.events import Event, ReplyAudio


class FellBehind(Exception):
    """The reader asked for events that are no longer kept."""


class Outbox:
    """A log of at most `max_seconds` of reply sound and `max_events` events; the oldest go first."""

    def __init__(self, max_events: int = 4000, max_seconds: float = 90.0) -> None:
        self.last_seq = 0
        self._log: deque[tuple[int, Event]] = deque()
        self._seconds = 0.0
        self._max_events = max_events
        self._max_seconds = max_seconds
        self._news = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Number and keep `event`, and wake the readers."""
        self.last_seq += 1
        self._log.append((self.last_seq, event))
        self._seconds += _seconds(event)
        while len(self._log) > self._max_events or self._seconds > self._max_seconds:
            self._seconds -= _seconds(self._log.popleft()[1])
        self._wake()

    def close(self) -> None:
        """No more events come; readers end after the last."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def has(self, seq: int) -> bool:
        """Whether everything after `seq` can still be read."""
        return seq >= self.last_seq or bool(self._log and self._log[0][0] <= seq + 1)

    async def follow(self, after: int) -> AsyncGenerator[tuple[int, Event], None]:
        """The events after number `after`, then new ones as they come, until `close`.

        Raises `FellBehind` if the next event is no longer kept.
        """
        while True:
            for seq, event in self.since(after):
                after = seq
                yield seq, event
            if after < self.last_seq:
                continue  # more came while the reader was busy
            if self._closed:
                return
            await self._news.wait()

    def since(self, after: int) -> list[tuple[int, Event]]:
        """The events after number `after` that there are. Raises `FellBehind` as `follow` does."""
        if after >= self.last_seq:
            return []
        if not self.has(after):
            raise FellBehind
        return list(islice(self._log, after + 1 - self._log[0][0], None))


def _seconds(event: Event) -> float:
    return event.duration_ms / 1000 if isinstance(event, ReplyAudio) else 0.0
