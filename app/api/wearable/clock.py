"""When it was that a sample was said: a stream's own time and the time of day."""

from __future__ import annotations

from bisect import bisect_right

_LATE_S = 3.0
"""Sound that comes so much later than the sound before it explains was not sent for a while."""
_MOST = 256


class StreamClock:
    """Maps seconds of the stream's sound to the time of day (Unix time, s). The sound may have gaps, in which
    nothing was sent, and may come faster than it was spoken: then its time runs ahead."""

    def __init__(self, not_before: float = 0.0) -> None:
        """`not_before`: what comes was said after that."""
        self._not_before = not_before
        self._streams: list[float] = []
        self._walls: list[float] = []

    def arrives(self, stream_s: float, now: float) -> None:
        """Sound that begins at `stream_s` arrives `now`."""
        if not self._streams:
            self._add(0.0, max(now, self._not_before))
        elif now - self.at(stream_s) > _LATE_S:
            self._add(stream_s, now)

    def at(self, stream_s: float) -> float:
        """When it was."""
        if not self._streams:
            return self._not_before + stream_s
        index = max(0, bisect_right(self._streams, stream_s) - 1)
        return self._walls[index] + stream_s - self._streams[index]

    def _add(self, stream_s: float, wall: float) -> None:
        self._streams.append(stream_s)
        self._walls.append(wall)
        # What was long ago is not asked for any more.
        del self._streams[:-_MOST], self._walls[:-_MOST]
