"""When speech starts and when it is over.

A state machine over the speech probability of 32 ms frames:

    silence → maybe speech → (held `start_ms`) speech → maybe end → (held the end wait) silence

It counts audio, not wall time, so a recording fed faster than real time gives the same turns.
The end wait adapts to the words so far: a finished sentence ends sooner, a trailing "and"
waits longer (`end_wait_ms`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from app.dialogue.agreement import split_words
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


# --- how long to wait ---------------------------------------------------------------------------

# What the words are worth where no language model weighs them: log10 of how likely they are all.
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
_TRAILS_OFF = re.compile(r"(\.\.\.|…|-|—)$")
_COMMA = re.compile(r"[,，、]$")
_DICTATED = re.compile(
    r"(\d[\d\s.,-]*|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|oh))[.,]?$", re.I
)

# A logistic fit to 707 pauses in recordings of people, 478 of them in mid-sentence, most put there. Tested
# on recordings that were left out, each with its likes: a language model's opinion of the words is most of
# it (area under the curve 0.89; the voice alone 0.78, both 0.90). The rest is set by hand.
_BIAS, _WORDS, _VOICE = 1.6, 1.5, 0.65
_SHORT = 0.7
"""One or two words, from nowhere, are likelier to be all than a language model thinks."""
_LEAST = -4.0
_EAGERNESS = {"low": 1.7, "medium": 1.0, "high": 0.75}
_SHORTEST, _LONGEST, _STEEP = 0.7, 2.6, 3.0
"""Waits, of `end_ms`: the shortest outlasts most pauses between two sentences of one turn."""
_ASKED, _SURELY = 0.5, 0.3
"""The wait after a question that is surely over: who asks, waits."""
_DIGITS = 1.6
"""Between the groups of a number."""
_BOUNDS_MS = 200.0, 2000.0


def end_wait_ms(
    text: str, config: TurnConfig, over: float | None = None, complete: float | None = None
) -> float:
    """How long a silence ends the utterance whose words so far are `text`, in ms.

    It is `config.end_ms` scaled by how much the voice sounded as if it were done (`over`, 0–1), by how
    likely the words are all that is said (`complete`, 0–1, see `roles.Completeness`), each None where
    nobody knows, and by how eager the session is to answer: from 0.5, or 0.7 where nothing was asked, to
    2.6 after words that visibly go on.
    """
    if not config.adaptive:
        return config.end_ms
    wait = config.end_ms * _EAGERNESS[config.eagerness] * (_openness(text, over, complete) if text else 1.0)
    least, most = _BOUNDS_MS
    return min(max(wait, min(least, config.end_ms)), max(most, config.end_ms))


def _openness(text: str, over: float | None, complete: float | None) -> float:
    """From `_ASKED`, surely over, to `_LONGEST`, surely not."""
    words = split_words(text)
    asked = text.endswith(("?", "？"))
    if len(words) > 2 and not asked and _DICTATED.search(text):
        return _DIGITS
    weight = _guess(text) if complete is None else math.log10(max(complete, 10**_LEAST))
    if complete is not None and len(words) <= 2:
        weight = min(max(weight + _SHORT, _guess(text) - _SHORT / 2), -0.5)
    if _TRAILS_OFF.search(text):
        weight = min(weight, -3.0)
    score = _BIAS + _WORDS * weight
    if over is not None:
        sure = min(max(over, 0.02), 0.98)
        score += _VOICE * math.log10(sure / (1 - sure))
    if asked and score >= _SURELY:
        return _ASKED
    return _SHORTEST + (_LONGEST - _SHORTEST) / (1 + math.exp(_STEEP * score))


def _guess(text: str) -> float:
    """log10 of how likely the words are all, by the last one and what the recogniser put behind it."""
    bare = re.sub(r"[^\w'\s-]", "", text.lower()).split()
    asked = text.endswith(("?", "？"))
    last = bare[-1] if bare and not asked else ""
    if last in _GOES_ON:
        return _LEAST
    if last in _MAY_GO_ON:
        return -2.5
    if _COMMA.search(text):
        return -1.2
    # A recogniser closes every sentence that is cut off: its full stop says nothing.
    return -0.5 if asked else -0.65
