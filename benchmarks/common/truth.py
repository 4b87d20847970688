"""Where somebody speaks in a clean recording, by its level alone: what voice detection is held against."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from app.roles import SAMPLE_RATE, Samples

BLOCK_S = 0.01
_BLOCK = round(BLOCK_S * SAMPLE_RATE)
_BELOW_LOUD_DB = 30.0
_SHORTEST = 3
Blocks = npt.NDArray[np.bool_]


def spoken(samples: Samples, pause_s: float = 0.3) -> Blocks:
    """For each 10 ms whether it is speech: not more than 30 dB below what a tenth of a second in all is
    louder than, for 30 ms at least; pauses shorter than `pause_s` count as speech."""
    whole = len(samples) // _BLOCK * _BLOCK
    power = np.square(samples[:whole].reshape(-1, _BLOCK)).mean(axis=1, dtype=np.float64)
    if not len(power):
        return np.zeros(0, np.bool_)
    loud = np.sort(power)[-min(10, len(power))]
    blocks: Blocks = power >= max(loud * 10 ** (-_BELOW_LOUD_DB / 10), 1e-9)
    for begin, end in spans(blocks):
        if end - begin < _SHORTEST:
            blocks[begin:end] = False
    found = spans(blocks)
    for (_, end), (begin, _) in pairwise(found):
        if (begin - end) * BLOCK_S < pause_s:
            blocks[end:begin] = True
    return blocks


def spans(blocks: Blocks) -> list[tuple[int, int]]:
    """Where runs of True begin, and what comes after them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], blocks, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
