"""What all in-process voices share: choosing one by name, and what is done to the sound of a
sentence (the silence around it cut, its level set, a pause after it); and when its words are heard."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from app.engines.speech_text import Piece
from app.roles import AudioChunk, NotFound, Samples, Voice, Word

_FRAME_S = 0.01
_AUDIBLE = 0.006
"""RMS of a 10 ms frame (-44 dBFS) above which something is heard."""
_LEAD_S, _TAIL_S = 0.03, 0.05
"""Kept before the first and after the last audible frame: soft consonants live there."""
_FADE_S = 0.005
_SENTENCE_PAUSE_S, _CLAUSE_PAUSE_S = 0.25, 0.12

Sound = tuple[int, float, float]
"""One phoneme in the raw sound of a piece: the character of the piece that it belongs to, and when
it begins and ends, in seconds."""


def find_voice(voices: Sequence[Voice], name: str | None) -> Voice:
    """The voice called `name`, or the first; `NotFound` tells the names there are."""
    for voice in voices:
        if name is None or voice.name == name:
            return voice
    known = ", ".join(v.name for v in voices)
    raise NotFound(f"There is no voice named {name!r}; choose one of: {known}.", field="voice")


def pause_after(text: str) -> float:
    """Seconds of silence that belong after `text`, by its last punctuation mark."""
    last = text.rstrip("\"'”’」』)）] ")[-1:]
    if last and last in ".!?。！？…":
        return _SENTENCE_PAUSE_S
    return _CLAUSE_PAUSE_S if last and last in ",;:，、；：—" else 0.0


def word_times(
    words: Sequence[str],
    first: int,
    piece: Piece,
    sounds: Sequence[Sound],
    cut: float,
    until: float = math.inf,
) -> tuple[Word, ...]:
    """The written words from `first` to the end of `piece`, with times after `cut` seconds were
    taken off the beginning of its sound; all ends by `until`. What is not spoken ends with the word
    before it."""
    spans: dict[int, tuple[float, float]] = {}
    for at, start, end in sounds:
        begin, _ = spans.get(piece.owner[at], (start, end))
        spans[piece.owner[at]] = (begin, end)
    timed: list[Word] = []
    done = 0.0
    for i in range(first, piece.until):
        start, end = spans.get(i, (cut, cut))
        start = min(until, max(done, start - cut))
        done = min(until, max(start, end - cut))
        timed.append(Word(words[i], round(start, 3), round(done, 3), 1.0))
    return tuple(timed)


def unsaid(words: Sequence[str], sample_rate: int) -> AudioChunk:
    """What follows the last sound when words without any are left, so that none is lost."""
    silent = tuple(Word(word, 0.0, 0.0, 1.0) for word in words)
    return AudioChunk(np.zeros(0, np.float32), sample_rate, silent)


def _limit(samples: Samples) -> Samples:
    """Round off peaks above 0.8 instead of cutting them at 1."""
    over = np.maximum(np.abs(samples) - np.float32(0.8), 0)
    limited: Samples = samples - np.sign(samples) * (over - np.float32(0.2) * np.tanh(5 * over))
    return limited


class SpeechShape:
    """Shapes one piece of speech that comes in parts, or all at once.

    `gain` is fixed for a voice and not taken from the piece, so that a whole reply has one level
    and the first part need not wait for the last.
    """

    def __init__(self, sample_rate: int, gain: float) -> None:
        self._rate = sample_rate
        self._gain = np.float32(gain)
        self._begun = False
        self.cut = 0
        """Raw samples that were left out before the first one that is played."""

    def part(self, raw: Samples, *, last: bool, pause: float = 0.0) -> Samples:
        """The samples to be played for the next `raw` ones; empty while nothing is heard. With
        `last` the end is cut and faded, and `pause` seconds of silence are added."""
        samples = _limit(raw * self._gain)
        start, end = self._audible(samples)
        fade = int(_FADE_S * self._rate)
        if not self._begun:
            if end == 0:
                self.cut += len(samples)
                return samples[:0]
            self._begun = True
            start = max(0, start - int(_LEAD_S * self._rate))
            self.cut += start
            samples[start : start + fade] *= np.linspace(0, 1, len(samples[start : start + fade]))
        else:
            start = 0
        if not last:
            return samples[start:]
        samples = samples[start : end + int(_TAIL_S * self._rate)]
        samples[-fade:] *= np.linspace(1, 0, len(samples[-fade:]))
        return np.concatenate([samples, np.zeros(int(pause * self._rate), np.float32)])

    def _audible(self, samples: Samples) -> tuple[int, int]:
        """Where the first audible frame starts and the last one ends; (0, 0) where all is silent."""
        size = int(_FRAME_S * self._rate)
        frames = samples[: len(samples) // size * size].reshape(-1, size)
        loud = np.flatnonzero(np.sqrt(np.mean(frames**2, axis=1)) > _AUDIBLE)
        return (int(loud[0]) * size, int(loud[-1] + 1) * size) if len(loud) else (0, 0)
