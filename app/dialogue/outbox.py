"""What a session has said, in order, for whoever listens now or comes back later.

Events are numbered once and kept for a while; a connection reads them at its own pace from any
number on. There is no queue per connection, so a slow or absent reader costs nothing beyond the
one bounded log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import islice

from app.dialogue.events import Event, ReplyAudio


class FellBehind(Exception):
    """The reader asked for events that are no longer kept."""


class Outbox:
    """A log of at most `max_seconds` of reply sound and `max_events` events; the oldest go first.

    With a `gate`, an event is read only once it is released: what a client has been told must be
    known to whoever takes the session over. An event that is put with `hold`, and those behind it, wait until
    it is let go.
    """

    def __init__(
        self,
        max_events: int = 4000,
        max_seconds: float = 90.0,
        *,
        gate: Callable[[int, Event], None] | None = None,
    ) -> None:
        self.last_seq = 0
        self._passed = 0
        self._held: set[int] = set()
        self._gate = gate
        self._log: deque[tuple[int, Event]] = deque()
        self._seconds = 0.0
        self._max_events = max_events
        self._max_seconds = max_seconds
        self._news = asyncio.Event()
        self._closed = False

    @property
    def released(self) -> int:
        """Number of the last event that may be read."""
        return min(self._passed, min(self._held) - 1) if self._held else self._passed

    def put(self, event: Event, *, hold: bool = False) -> int:
        """Number and keep `event`, and wake the readers; gives the number."""
        self._keep(self.last_seq + 1, event)
        if hold:
            self._held.add(self.last_seq)
        if self._gate is not None:
            self._gate(self.last_seq, event)
        else:
            self.release(self.last_seq)
        return self.last_seq

    def let_go(self, seq: int) -> None:
        """The event of that number was held for long enough. Idempotent."""
        self._held.discard(seq)
        self._wake()

    def refill(self, events: Iterable[tuple[int, Event]]) -> None:
        """Take over the log of another outbox."""
        for seq, event in events:
            self._keep(seq, event)
        self._passed = self.last_seq

    def release(self, seq: int) -> None:
        """Events up to number `seq` may be read."""
        self._passed = max(self._passed, seq)
        self._wake()

    def _keep(self, seq: int, event: Event) -> None:
        self.last_seq = seq
        self._log.append((seq, event))
        self._seconds += _seconds(event)
        while len(self._log) > self._max_events or self._seconds > self._max_seconds:
            self._seconds -= _seconds(self._log.popleft()[1])

    def close(self) -> None:
        """No more events come; readers end after the last."""
        self._closed = True
        self._passed = self.last_seq
        self._held.clear()
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @property
    def first_seq(self) -> int:
        """Number of the oldest event that is kept."""
        return self._log[0][0] if self._log else self.last_seq + 1

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
            if after < self.released:
                continue  # more came while the reader was busy
            if self._closed:
                return
            await self._news.wait()

    def since(self, after: int) -> list[tuple[int, Event]]:
        """The events after number `after` that there are. Raises `FellBehind` as `follow` does."""
        if after >= self.released:
            return []
        if not self.has(after):
            raise FellBehind
        first = self._log[0][0]
        return list(islice(self._log, after + 1 - first, self.released + 1 - first))


def _seconds(event: Event) -> float:
    return event.duration_ms / 1000 if isinstance(event, ReplyAudio) else 0.0
