"""When speech starts and when it is over.

A state machine over the speech probability of 32 ms frames:

    silence → maybe speech → (held `start_ms`) speech → maybe end → (held the end wait) silence

It counts audio, not wall time, so a recording fed faster than real time gives the same turns.
The end wait adapts to the words so far: a finished sentence ends sooner, a trailing "and"
waits longer (`end_wait_ms`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from app.dialogue.config import TurnConfig
from app.roles import SAMPLE_RATE

FRAME = 512
"""Samples a frame; the VAD's own size."""
_HYSTERESIS = 0.15
"""Once there is speech, a frame must fall this far below the threshold to count as silence."""
_CLOSING_MS = 96
"""Silence after which the final pass may begin: most pauses between words are shorter."""


class Signal(Enum):
    """What `TurnDetector.feed` noticed with a frame."""

    STARTED = auto()
    CLOSING = auto()
    """Silence has lasted long enough that the utterance may be over."""
    RESUMED = auto()
    """It was not."""
    ENDED = auto()


@dataclass(slots=True)
class TurnDetector:
    """Feed it one probability a frame; positions are samples since the session began.

    `started_at` is the first sample of the current (or last) speech, `ended_at` the end of its
    last speech frame, `voiced_ms` how much of it was speech. `end_wait` is asked, while silence
    lasts, for how many ms of it end the utterance.
    """

    config: TurnConfig
    end_wait: Callable[[], float]
    position: int = 0
    speaking: bool = False
    started_at: int = 0
    ended_at: int = 0
    voiced_ms: float = 0.0
    _candidate: int | None = None
    _held: float = 0.0
    _quiet: float = 0.0
    _closing: bool = False

    @property
    def calm_to(self) -> int:
        """Sample up to which nothing is speech, or may become it; only while none is going on."""
        return self.position if self._candidate is None else self._candidate

    @property
    def held_ms(self) -> float:
        """How much voice there has been of the speech that goes on or may be beginning; 0 if there
        is none."""
        if self.speaking:
            return self.voiced_ms
        return self._held if self._candidate is not None else 0.0

    def feed(self, probability: float) -> Signal | None:
        """Take the next frame's speech probability."""
        begin = self.position
        self.position += FRAME
        frame_ms = FRAME / SAMPLE_RATE * 1000
        if not self.speaking:
            return self._feed_silence(probability, begin, frame_ms)
        if probability >= self.config.threshold - _HYSTERESIS:
            self.voiced_ms += frame_ms
            self.ended_at = self.position
            self._quiet = 0.0
            if self._closing:
                self._closing = False
                return Signal.RESUMED
            return None
        self._quiet += frame_ms
        if self._quiet >= self.end_wait():
            return self.end()
        if self._quiet >= _CLOSING_MS and not self._closing:
            self._closing = True
            return Signal.CLOSING
        return None

    def _feed_silence(self, probability: float, begin: int, frame_ms: float) -> Signal | None:
        if probability >= self.config.threshold:
            if self._candidate is None:
                self._candidate = begin
                self._held = 0.0
            self._held += frame_ms
            if self._held >= self.config.start_ms:
                self.speaking = True
                self.started_at = self._candidate
                self.ended_at = self.position
                self.voiced_ms = self._held
                self._candidate = None
                self._quiet = 0.0
                self._closing = False
                return Signal.STARTED
        elif self._candidate is not None:
            # A dip does not undo what was held, it eats it: "y-es" starts like "yes".
            self._held -= frame_ms
            if self._held <= 0:
                self._candidate = None
        return None

    def end(self) -> Signal:
        """End the utterance now (also used for push-to-talk)."""
        self.speaking = False
        self._candidate = None
        self._closing = False
        return Signal.ENDED


# Words after which nobody is done, and words after which few are ("than he was" may well be all).
# Not those that often end a sentence: "turn it on", "I think so", "thank you".
_GOES_ON = frozenset(
    """
    a an the and or but because if when while whose my your our their um uh er plus minus times dot dash
    """.split()
)
_MAY_GO_ON = frozenset(
    """
    as of to at by from with into between like i we they he she i'm you're we're they're
    is are was were would could should
    """.split()
)
_FINISHED = re.compile(r"[.?!。？！…]['\"”’)]*$")
_TRAILS_OFF = re.compile(r"(\.\.\.|…|-|—)$")
_COMMA = re.compile(r"[,，、]$")
_DICTATED = re.compile(
    r"(\d[\d\s.,-]*|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|oh))[.,]?$", re.I
)


_SURE, _LIKELY, _DOUBTFUL = 0.7, 0.4, 0.15


_EAGERNESS = {"low": 1.7, "medium": 1.0, "high": 0.75}


def end_wait_ms(text: str, config: TurnConfig, over: float | None = None) -> float:
    """How long a silence ends the utterance whose words so far are `text`, in ms.

    It is `config.end_ms` scaled by what the words look like, by how much the voice sounded as
    if it were done (`over`, 0–1, None where nobody listens for that), and by how eager the session
    is to answer: from 0.4 when words and voice say so to 2.4 after words that visibly go on.
    """
    if not config.adaptive:
        return config.end_ms
    return config.end_ms * _EAGERNESS[config.eagerness] * (_openness(text, over) if text else 1.0)


def _openness(text: str, over: float | None) -> float:
    """From 0.4, surely over, to 2.4, surely not."""
    if _TRAILS_OFF.search(text):
        return 2.4
    bare = re.sub(r"[^\w'\s-]", "", text.lower()).split()
    asked = text.endswith(("?", "？"))
    last = bare[-1] if bare and not asked else ""
    sure = over is not None and over >= _SURE
    if last in _GOES_ON or (last in _MAY_GO_ON and not sure):
        return 2.4
    if len(bare) > 2 and _DICTATED.search(text) and not asked:
        return 1.6
    if _COMMA.search(text):
        # Recognisers put one at the end of many a whole sentence: the voice knows better.
        return 1.0 if sure else 2.4
    finished = bool(_FINISHED.search(text))
    if over is None:
        return 0.6 if finished else 1.0
    if sure:
        return 0.4 if finished else 0.6
    if over >= _LIKELY:
        return 0.6 if finished else 1.0
    return 1.2 if over >= _DOUBTFUL else 1.6
