"""Samples of one utterance, addressed by their place in the session's sound."""

from __future__ import annotations

import numpy as np

from app.roles import Samples

_SMALLEST = 16_000


class AudioBuffer:
    """A growing stretch of mono samples with absolute positions.

    Positions count samples from the start of the stream and never shift: the sample appended as
    number k stays at k, however much before it has been dropped.

    Invariants:
        * `start` <= `end`; exactly the samples [start, end) are held.
        * `end` rises only by `append`; `start` rises only by `drop_before`.
        * A view is read-only and its content never changes, even after later appends and drops:
          samples are written only past `end`, and memory is moved only by copying what is held
          to a fresh array. So a view may be handed to a worker thread. It keeps the array it
          looks into alive.
        * Between calls, capacity is at most about four times what is held (or one second).

    `append` and `drop_before` cost amortised O(1) a sample. Not for use by several threads at once.
    """

    def __init__(self, start: int = 0) -> None:
        """An empty buffer whose first sample will be at position `start`."""
        self._data = np.empty(_SMALLEST, np.float32)
        self._base = start  # position of _data[0]
        self._start = start
        self._end = start

    def __len__(self) -> int:
        """How many samples are held."""
        return self._end - self._start

    @property
    def start(self) -> int:
        """Position of the first sample still held."""
        return self._start

    @property
    def end(self) -> int:
        """Position after the last sample: the absolute count of samples so far."""
        return self._end

    def append(self, samples: Samples) -> None:
        """Copy `samples` (float32[n]) to the end."""
        if self._end - self._base + len(samples) > len(self._data):
            self._move(len(samples))
        at = self._end - self._base
        self._data[at : at + len(samples)] = samples
        self._end += len(samples)

    def view(self, start: int | None = None, end: int | None = None) -> Samples:
        """The samples [start, end) without copying, read-only; by default all that are held.

        Raises:
            ValueError: if a part of that is not held (dropped, or not there yet), or start > end.
        """
        start = self._start if start is None else start
        end = self._end if end is None else end
        if not self._start <= start <= end <= self._end:
            raise ValueError(f"[{start}, {end}) is not within the held [{self._start}, {self._end})")
        view = self._data[start - self._base : end - self._base]
        view.flags.writeable = False
        return view

    def drop_before(self, sample: int) -> None:
        """Forget everything before position `sample`; a position past `end` empties the buffer."""
        self._start = max(self._start, min(sample, self._end))
        if len(self._data) > max(_SMALLEST, 4 * len(self)):
            self._move(0)

    def _move(self, extra: int) -> None:
        """Copy what is held to a fresh array with room for `extra` samples and as much again."""
        fresh = np.empty(max(_SMALLEST, 2 * (len(self) + extra)), np.float32)
        fresh[: len(self)] = self._data[self._start - self._base : self._end - self._base]
        self._data = fresh
        self._base = self._start
