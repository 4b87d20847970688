"""Word errors of a long text, piece by piece, and how sure an error rate is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from corpus import normalise

_DRAWS = 2000
_SEED = 3


@dataclass(frozen=True, slots=True)
class UnitErrors:
    """Words that were heard as others, not heard, and heard though nobody said them, of `words`."""

    substituted: int = 0
    missing: int = 0
    inserted: int = 0
    words: int = 0

    def __add__(self, other: UnitErrors) -> UnitErrors:
        return UnitErrors(
            self.substituted + other.substituted,
            self.missing + other.missing,
            self.inserted + other.inserted,
            self.words + other.words,
        )

    @property
    def errors(self) -> int:
        """All of them."""
        return self.substituted + self.missing + self.inserted

    @property
    def rate(self) -> float:
        """The word error rate."""
        return self.errors / max(self.words, 1)


def unit_errors(said: Sequence[str], heard: str) -> list[UnitErrors]:
    """Of each piece of what was `said`, one after the other, what is wrong in `heard`, which is of all of
    it. What was inserted counts with the piece that it comes before or is in."""
    units = [normalise(text).split() for text in said]
    reference = [word for words in units for word in words]
    counts = [[0, 0, 0, len(words)] for words in units]
    unit_of = [number for number, words in enumerate(units) for _ in words]
    if not reference:
        raise ValueError("nothing was said")
    found = jiwer.process_words(" ".join(reference), normalise(heard))
    for chunk in found.alignments[0]:
        if chunk.type == "insert":
            at = unit_of[min(chunk.ref_start_idx, len(unit_of) - 1)]
            counts[at][2] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            for index in range(chunk.ref_start_idx, chunk.ref_end_idx):
                counts[unit_of[index]][0 if chunk.type == "substitute" else 1] += 1
    return [UnitErrors(*count) for count in counts]


def between(errors: Sequence[UnitErrors]) -> tuple[float, float]:
    """The 95 % interval of the error rate, by drawing as many pieces again and again."""
    random = np.random.default_rng(_SEED)
    wrong, words = np.array([e.errors for e in errors]), np.array([e.words for e in errors])
    drawn = random.integers(len(errors), size=(_DRAWS, len(errors)))
    rates = wrong[drawn].sum(axis=1) / np.maximum(words[drawn].sum(axis=1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
