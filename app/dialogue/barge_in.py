"""Is it somebody taking the turn, or nothing to stop for? Decided while a reply is heard.

Within 200 ms nobody can tell "mm-hm" from "wait". So the reply is held as soon as something like
a voice is heard, which can be taken back, and stopped for good once there are words that are more
than a nod. What cannot be a voice that wants the turn does not even hold it: the echo of our own
voice (`audio.echo`), a hum, somebody far from the microphone.
"""

from __future__ import annotations

import math
import re
from collections import deque
from difflib import SequenceMatcher
from typing import Literal

import numpy as np

from app.dialogue.agreement import split_words
from app.dialogue.answers import Answers
from app.dialogue.guards import nobody_said
from app.dialogue.turn import Turn
from app.roles import SAMPLE_RATE, Samples

ONSET_MS = 96.0
"""Voice held this long holds the reply."""
_NOISE_MS = 1200.0
"""Voice without a word for this long is none."""
_WORDS_MS, _ONE_WORD_MS = 500.0, 700.0
"""Voice after which words, or a single one, are believed before the utterance is over."""
_DISTANT_DB = 18.0
"""Below the person's usual level by this much, a voice is somebody else's or far away."""
_HUM_HZ = 900
_HUM_DB = -18.0
"""A hum has this little of its energy above `_HUM_HZ`: lips are closed on "mm-hm"."""

Verdict = Literal["words", "nod", "echo", "nothing"]

_NODS = frozenset(
    """
    mm mmm mhm mhmm mmhm mmhmm hm hmm hmmm uh huh uhhuh um ah aha oh ooh yeah yep yup ya right okay ok
    sure wow alright cool nice great good exactly true yes gotcha
    嗯 恩 哦 噢 啊 对 好 的 是 行 呃
    """.split()
)
_NOD_PHRASES = frozenset(
    ["i see", "got it", "go on", "of course", "uh huh", "mm hmm", "i know", "makes sense", "all right"]
)
_BARE = re.compile(r"[^\w\s]+")


def verdict(text: str, confidence: float, no_speech: float, voiced_ms: float, reply: str = "") -> Verdict:
    """What words said over `reply` (the end of what is being heard) amount to.

    "nod": a backchannel (Yngve 1970, "On getting a word in edgewise"), which asks to go on; "echo":
    our own words again; "nothing": not even words.
    """
    if nobody_said(text, confidence, no_speech, voiced_ms):
        return "nothing"
    words = [bare for w in split_words(text.replace("-", " ")) if (bare := _BARE.sub("", w.lower()))]
    if len(words) <= 4 and (all(w in _NODS for w in words) or " ".join(words) in _NOD_PHRASES):
        return "nod"
    return "echo" if _is_echo(words, reply) else "words"


def _is_echo(words: list[str], reply: str) -> bool:
    if len(words) < 3:
        return False
    said = [bare for w in split_words(reply) if (bare := _BARE.sub("", w.lower()))]
    matching = SequenceMatcher(None, said, words, autojunk=False).get_matching_blocks()
    return sum(block.size for block in matching) >= 0.7 * len(words)


class Onset:
    """Judges the first sound of a voice, frame by frame, and learns how loud the person is."""

    def __init__(self) -> None:
        self._usual_db: float | None = None
        self._recent: deque[tuple[float, bool]] = deque(maxlen=3)

    def hear(self, frame: Samples, voiced: bool) -> None:
        """The next frame (16 kHz), and whether it was held for voice."""
        if voiced:
            self._recent.append((level_db(frame), _hums(frame)))
        else:
            self._recent.clear()

    def learn(self, sound: Samples) -> None:
        """`sound` was the person, speaking to us."""
        level = level_db(sound)
        self._usual_db = level if self._usual_db is None else 0.7 * self._usual_db + 0.3 * level

    def wants_the_turn(self) -> bool:
        """Whether the last frames may be the person beginning to say something."""
        if len(self._recent) < 3 or all(hum for _, hum in self._recent):
            return False
        loudest = max(level for level, _ in self._recent)
        return self._usual_db is None or loudest > self._usual_db - _DISTANT_DB


class BargeIn:
    """Holds the reply that `answers` runs, and lets it go on. One a session.

    It never stops a reply: who calls it does, when `stops` says so.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._onset = Onset()
        # Whether the utterance that is being said was found to be nothing to hold the reply for.
        self._dismissed = False

    def hear(self, frame: Samples, *, voiced: bool, held_ms: float, speaking: bool) -> None:
        """The next frame: whether it held voice, for how long there has been voice (0: there is none
        now), and whether that is an utterance by now."""
        self._onset.hear(frame, voiced)
        answers = self._answers
        if not speaking and held_ms <= 0:
            answers.resume()
        elif answers.paused:
            if held_ms >= _NOISE_MS:
                self.dismiss()
        elif held_ms >= ONSET_MS and not self._dismissed and self._onset.wants_the_turn():
            answers.pause()

    def began(self, turn: Turn) -> None:
        """An utterance begins."""
        if self._answers.state == "speaking":
            turn.over = "end of reply" if self._answers.nearly_over else "reply"
        self._dismissed = False

    def learn(self, sound: Samples) -> None:
        """`sound` was the person, speaking to us."""
        self._onset.learn(sound)

    def dismiss(self) -> None:
        """The utterance is nothing to hold the reply for, so far."""
        self._dismissed = True
        self._answers.resume()

    def verdict(
        self, turn: Turn, text: str, confidence: float, no_speech: float, voiced_ms: float
    ) -> Verdict:
        """What `turn` amounts to, if these are its words. Only over a reply that goes on is a "yeah"
        a nod: at its end it is an answer."""
        reply = "" if turn.over == "silence" else self._answers.recent_text
        found = verdict(text, confidence, no_speech, voiced_ms, reply)
        return "words" if found == "nod" and turn.over != "reply" else found

    def stops(self, turn: Turn, text: str, confidence: float, voiced_ms: float) -> bool:
        """Whether the reply is to stop for a turn that is still being said, heard as `text` so far.
        The first pass over a nod makes words of it, and the reply is held meanwhile: no hurry."""
        if self.verdict(turn, text, confidence, 0.0, voiced_ms) != "words":
            return False
        return voiced_ms >= (_WORDS_MS if len(split_words(text)) > 1 else _ONE_WORD_MS)


def level_db(sound: Samples) -> float:
    """Mean level of `sound` in dBFS."""
    return 10 * math.log10(float(np.dot(sound, sound)) / max(1, len(sound)) + 1e-10)


def _hums(frame: Samples) -> bool:
    power = np.square(np.abs(np.fft.rfft(frame * np.hanning(len(frame)).astype(np.float32))))
    edge = int(_HUM_HZ * len(frame) / SAMPLE_RATE)
    return bool(10 * math.log10(float(power[edge:].sum()) / float(power.sum() + 1e-12) + 1e-12) < _HUM_DB)
