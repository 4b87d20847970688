"""What a client says: what still has to be sent, and what was sent but may not have arrived.

The server tells how much it has taken in: of sound in ms, of other messages how many. What it has
not is sent again, in order, when a broken connection is back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_SAMPLE_S = 0.5 / 48000
"""Half a sample: the server's figure is rounded."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One frame. `seconds` of sound, 0 for a message; `counts`: the server counts it, so that it can
    be sent again if it was lost."""

    frame: str | bytes
    seconds: float = 0.0
    counts: bool = True


class Outgoing:
    """Keeps at most `limit_s` of sound that is unsent, and as much that is on its way; the oldest
    goes first. Messages stay."""

    def __init__(self, limit_s: float) -> None:
        self.waiting_s = 0.0
        self.lost_s = 0.0
        self._limit_s = limit_s
        self._waiting: deque[Parcel] = deque()
        self._sent: deque[Parcel] = deque()
        self._sent_s = 0.0
        # What the server has, or is taken to have, of all before `_sent`.
        self._done_s = 0.0
        self._done = 0

    def put(self, parcel: Parcel) -> None:
        """The next to be sent. Sound that there is no room for is lost, the oldest first."""
        self._waiting.append(parcel)
        self.waiting_s += parcel.seconds
        while self.waiting_s > self._limit_s + _SAMPLE_S:
            gone = _oldest_sound(self._waiting)
            self.waiting_s -= gone
            self.lost_s += gone

    def next(self) -> str | bytes | None:
        """The frame to send now; it counts as on its way from here on."""
        if not self._waiting:
            return None
        parcel = self._waiting.popleft()
        self.waiting_s -= parcel.seconds
        if parcel.counts:
            self._sent.append(parcel)
            self._sent_s += parcel.seconds
            while self._sent_s > self._limit_s:
                gone = _oldest_sound(self._sent)
                self._sent_s -= gone
                self._done_s += gone
        return parcel.frame

    def received(self, ms: float, messages: int) -> None:
        """So much has arrived in all."""
        seconds = ms / 1000 + _SAMPLE_S
        while self._sent:
            head = self._sent[0]
            if head.seconds and self._done_s + head.seconds > seconds:
                return
            if not head.seconds and self._done >= messages:
                return
            self._sent.popleft()
            self._sent_s -= head.seconds
            self._done_s += head.seconds
            self._done += not head.seconds

    def again(self, ms: float, messages: int) -> None:
        """The connection is back, and so much had arrived: what else was on its way is to be sent
        first."""
        self.received(ms, messages)
        if (gap := self._done_s - ms / 1000) > _SAMPLE_S:
            self.lost_s += gap
        self._done_s, self._done = ms / 1000, messages
        self._waiting.extendleft(reversed(self._sent))
        self.waiting_s += self._sent_s
        self._sent.clear()
        self._sent_s = 0.0


def _oldest_sound(parcels: deque[Parcel]) -> float:
    """Take the oldest sound out; gives its seconds."""
    for index, parcel in enumerate(parcels):
        if parcel.seconds:
            del parcels[index]
            return parcel.seconds
    return 0.0
