"""Speech faster or slower than a voice can speak, at the same pitch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.audio.resample import bounded
from app.roles import Samples

if TYPE_CHECKING:
    from av.filter import Graph


class Tempo:
    """Plays a mono stream at `sample_rate` Hz `factor` times as fast (0.5–2), with FFmpeg's `atempo`.
    It holds back some hundredths of a second until `flush`."""

    def __init__(self, sample_rate: int, factor: float) -> None:
        from av.filter import Graph

        self._rate = sample_rate
        self._at = 0
        self._graph: Graph = Graph()
        source = self._graph.add_abuffer(sample_rate=sample_rate, format="flt", layout="mono")
        tempo = self._graph.add("atempo", f"{factor:.4f}")
        sink = self._graph.add("abuffersink")
        source.link_to(tempo)
        tempo.link_to(sink)
        self._graph.configure()

    def push(self, samples: Samples) -> Samples:
        """Take float32[n]; give what is ready."""
        if not len(samples):
            return samples
        from av import AudioFrame

        frame = AudioFrame.from_ndarray(samples[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = self._rate
        frame.pts = self._at
        self._at += len(samples)
        self._graph.push(frame)
        return self._ready()

    def flush(self) -> Samples:
        """What was held back. Nothing can be pushed any more."""
        self._graph.push(None)
        return self._ready()

    def _ready(self) -> Samples:
        from av.error import BlockingIOError, EOFError

        pieces = []
        while True:
            try:
                pieces.append(self._graph.pull().to_ndarray()[0])
            except (BlockingIOError, EOFError):
                return bounded(np.concatenate(pieces)) if pieces else np.empty(0, np.float32)
