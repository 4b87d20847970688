"""What benchmarks of voices hold results against, and how errors are counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.roles import SpeakerSpan
from benchmarks.common.der import best_pairing, diarization_errors
from benchmarks.common.truth import spans, spoken


def span(speaker: str, start: float, end: float) -> SpeakerSpan:
    return SpeakerSpan(start, end, speaker)


TALK = [span("a", 0, 4), span("b", 4, 8), span("a", 7, 10)]


def test_names_do_not_matter() -> None:
    same = [span("x", 0, 4), span("y", 4, 8), span("x", 7, 10)]
    assert diarization_errors(TALK, same, 12).rate == 0
    assert diarization_errors(TALK, [], 12).missed == pytest.approx(11)


def test_each_kind_of_error() -> None:
    # b is never heard, a second of silence is; of the second in which both speak one is missed.
    found = diarization_errors(TALK, [span("x", 0, 11)], 12)
    assert found.speech == pytest.approx(11)
    assert found.missed == pytest.approx(1)
    assert found.false == pytest.approx(1)
    assert found.confused == pytest.approx(3)
    assert found.rate == pytest.approx(5 / 11)


def test_within_the_collar_nothing_counts() -> None:
    late = [span("x", 0.2, 4.2), span("y", 4.2, 8.2), span("x", 7.2, 10.2)]
    assert diarization_errors(TALK, late, 12).rate > 0.05
    assert diarization_errors(TALK, late, 12, collar=0.25).rate == 0
    # Of 11 s are left: 0.25-3.75, 4.25-6.75 and 7.25-7.75 twice, 8.25-9.75.
    assert diarization_errors(TALK, [], 12, collar=0.25).missed == pytest.approx(8.5)


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_pairing_is_the_best_there_is(rows: list[list[int]]) -> None:
    gain = np.array(rows)
    tall = gain if gain.shape[0] >= 3 else gain.T
    every = itertools.permutations(range(tall.shape[0]), tall.shape[1])
    assert best_pairing(gain) == max(sum(int(tall[r, c]) for c, r in enumerate(p)) for p in every)


def test_speech_is_what_is_loud_enough_long_enough() -> None:
    sound = np.full(3 * 16_000, 1e-4, np.float32)
    tone = 0.1 * np.sin(np.arange(16_000)).astype(np.float32)
    sound[4_800:12_800] = tone[:8000]
    sound[15_200:20_000] = tone[:4800]  # after 150 ms
    sound[32_000:40_000] = tone[:8000]  # after 750 ms
    sound[44_000:44_160] = tone[:160]  # a click
    assert spans(spoken(sound)) == [(30, 125), (200, 250)]
    assert spans(spoken(sound, pause_s=0.1)) == [(30, 80), (95, 125), (200, 250)]
    assert spans(spoken(np.zeros(100, np.float32))) == []
