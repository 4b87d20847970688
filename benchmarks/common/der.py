"""Diarization error rate, to 10 ms, as NIST defines it: overlapping speech counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.roles import SpeakerSpan

_STEP_S = 0.01
_MOST = 12


@dataclass(frozen=True, slots=True)
class Errors:
    """Seconds: of `speech` (two at once count twice) nothing was told of `missed`, and the wrong speaker of
    `confused`; `false` was told where nobody spoke, or more voices than there were."""

    speech: float = 0.0
    missed: float = 0.0
    false: float = 0.0
    confused: float = 0.0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.speech + other.speech,
            self.missed + other.missed,
            self.false + other.false,
            self.confused + other.confused,
        )

    @property
    def rate(self) -> float:
        """All errors, of the speech there was; more than 1 is possible."""
        return (self.missed + self.false + self.confused) / max(self.speech, _STEP_S)


def diarization_errors(
    truth: Sequence[SpeakerSpan], told: Sequence[SpeakerSpan], seconds: float, collar: float = 0.0
) -> Errors:
    """Errors of `told` in a recording of `seconds`. Speakers are paired so that most is right. `collar`:
    so many seconds before and after each beginning and end in `truth` are not looked at."""
    count = round(seconds / _STEP_S)
    heeded = np.ones(count, np.bool_)
    if collar:
        for span in truth:
            for edge in (span.start, span.end):
                heeded[max(0, _at(edge - collar)) : _at(edge + collar)] = False
    right, found = _speakers(truth, count, heeded), _speakers(told, count, heeded)
    spoken, said = right.sum(axis=0), found.sum(axis=0)
    together = right.astype(np.int64) @ found.T.astype(np.int64)
    matched = best_pairing(together)
    return Errors(
        float(spoken.sum()) * _STEP_S,
        float(np.maximum(spoken - said, 0).sum()) * _STEP_S,
        float(np.maximum(said - spoken, 0).sum()) * _STEP_S,
        float(np.minimum(spoken, said).sum() - matched) * _STEP_S,
    )


def _speakers(
    spans: Iterable[SpeakerSpan], count: int, heeded: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Who speaks in each step: int64[speakers, steps]; one who says something twice at once is one."""
    rows: dict[str, npt.NDArray[np.int64]] = {}
    for span in spans:
        row = rows.setdefault(span.speaker, np.zeros(count, np.int64))
        row[max(0, _at(span.start)) : max(0, _at(span.end))] = 1
    return np.array(list(rows.values())) * heeded if rows else np.zeros((0, count), np.int64)


def _at(seconds: float) -> int:
    return max(0, round(seconds / _STEP_S))


def best_pairing(gain: npt.NDArray[np.int64]) -> int:
    """The most that pairs of a row and a column, each used at most once, can add up to. Exact: a step for
    each row over all sets of columns."""
    if gain.shape[0] < gain.shape[1]:
        gain = gain.T
    # Sets are over the shorter side.
    if gain.shape[1] > _MOST:
        raise ValueError(f"more than {_MOST} speakers on both sides")
    best = {0: 0}
    for row in gain:
        after = dict(best)
        for used, total in best.items():
            for column, more in enumerate(row):
                bit = 1 << column
                if not used & bit and total + int(more) > after.get(used | bit, -1):
                    after[used | bit] = total + int(more)
        best = after
    return max(best.values())
