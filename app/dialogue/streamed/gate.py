"""Which sound a paid recogniser gets, and where what it was sent lies in the session's sound.

Silence is not sent. A voice opens the gate, with a little of the sound before it; it closes some seconds
after the last one. If nobody can say whether there is a voice, everything passes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from app.roles import SAMPLE_RATE

_THRESHOLD = 0.65
_PRE_ROLL = int(0.3 * SAMPLE_RATE)
_HANG_OVER = 4 * SAMPLE_RATE
_FINALIZE = int(0.3 * SAMPLE_RATE)
_MOST = 256


class Gate:
    """Give it the frames of a session in order. Positions are samples of the session's sound."""

    def __init__(self, begin: int = 0) -> None:
        self._passed = begin
        self._open_to = begin
        self._voice_end: int | None = None

    def feed(self, begin: int, end: int, probability: float | None, needed: bool) -> int | None:
        """The frame [`begin`, `end`) holds speech with `probability` (None: nobody knows); `needed`: whatever
        it holds, it belongs to what somebody says. Gives the position from which on sound is to be sent, up
        to `end`; None if it is not."""
        voice = probability is None or probability >= _THRESHOLD
        if voice:
            self._voice_end = end
        if voice or needed:
            first = begin if begin < self._open_to else begin - _PRE_ROLL
            self._open_to = end + _HANG_OVER
        elif begin < self._open_to:
            first = begin
        else:
            return None
        first = max(first, self._passed)
        self._passed = end
        return first

    def pauses(self, end: int) -> bool:
        """Whether with the frame that ends at `end` a pause is long enough to ask for final words; once a
        pause."""
        if self._voice_end is None or end - self._voice_end < _FINALIZE:
            return False
        self._voice_end = None
        return True


class Times:
    """Maps seconds of the sound that was sent on a stream to seconds of the session's."""

    def __init__(self) -> None:
        self._sent = 0
        self._streams: list[int] = []
        self._places: list[int] = []

    def send(self, begin: int, samples: int) -> None:
        """The next sound sent is `samples` long and begins at `begin` of the session's."""
        if not self._streams or self._places[-1] + self._sent - self._streams[-1] != begin:
            self._streams.append(self._sent)
            self._places.append(begin)
            # Of what was long ago no more words come.
            del self._streams[:-_MOST], self._places[:-_MOST]
        self._sent += samples

    def begin(self, seconds: float) -> float:
        """Where what begins there on the stream begins in the session."""
        return self._at(bisect_right(self._streams, round(seconds * SAMPLE_RATE)) - 1, seconds)

    def end(self, seconds: float) -> float:
        """Where what ends there on the stream ends in the session: before a gap, not behind it."""
        return self._at(bisect_left(self._streams, round(seconds * SAMPLE_RATE)) - 1, seconds)

    def _at(self, index: int, seconds: float) -> float:
        if not self._streams:
            return seconds
        index = max(0, index)
        return seconds + (self._places[index] - self._streams[index]) / SAMPLE_RATE
