"""The clock of one turn: when each stage was reached, for metrics, traces and `turn_complete`."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum


class Stage(StrEnum):
    """Stages of a turn, in their usual order."""

    SPEECH_END = "speech_end"
    """The last sample that held speech."""
    ENDPOINT = "endpoint"
    """The turn was decided to be over; where a typed turn begins."""
    STT_FINAL = "stt_final"
    """The final transcript was there."""
    LLM_FIRST_TOKEN = "llm_first_token"
    """The language model's first piece of text came."""
    FIRST_SEGMENT = "first_segment"
    """The first speakable piece of the reply was complete."""
    TTS_FIRST_AUDIO = "tts_first_audio"
    """The voice's first sound came."""
    FIRST_AUDIO_SENT = "first_audio_sent"
    """The first sound was handed to the client's connection."""
    LLM_DONE = "llm_done"
    """The language model had written its last piece."""
    REPLY_DONE = "reply_done"
    """The last sound was sent, or the reply was stopped."""


class TurnClock:
    """Marks of one turn, all read from one monotonic clock, in seconds.

    Belongs to the event loop of its turn; not for several threads.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._marks: dict[str, float] = {}

    def mark(self, stage: str, at: float | None = None) -> None:
        """Note that `stage` was reached now, or at `at` (seconds on the same clock). Only the
        first mark of a stage counts."""
        if stage not in self._marks:
            self._marks[str(stage)] = self._now() if at is None else at

    def take(self, other: TurnClock) -> None:
        """Add the marks of `other`, a clock of the same `now`, for stages not yet marked here."""
        for stage, at in other._marks.items():
            self.mark(stage, at)

    def at(self, stage: str) -> float | None:
        """When `stage` was reached, in seconds of the clock; None if it was not."""
        return self._marks.get(stage)

    @property
    def stages(self) -> tuple[str, ...]:
        """The marked stages, earliest first."""
        return tuple(sorted(self._marks, key=self._marks.__getitem__))

    def ms_since(self, origin: str) -> dict[str, float]:
        """Milliseconds (to 0.1) from `origin` to each other marked stage, earliest first;
        negative for what came before it, empty when `origin` itself was never marked. The
        origin of a spoken turn is `speech_end`, of a typed one `endpoint`."""
        start = self._marks.get(origin)
        if start is None:
            return {}
        return {name: round((self._marks[name] - start) * 1000, 1) for name in self.stages if name != origin}
