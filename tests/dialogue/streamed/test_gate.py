"""What a paid recogniser is sent, and where that lies in the session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialogue.endpointing import FRAME
from app.dialogue.streamed.gate import Gate, Times
from app.roles import SAMPLE_RATE


def sent(gate: Gate, *probabilities: float | None, needed: bool = False) -> list[int]:
    """The samples that pass, as positions, for these frames."""
    passed: list[int] = []
    for i, probability in enumerate(probabilities):
        first = gate.feed(i * FRAME, (i + 1) * FRAME, probability, needed)
        if first is not None:
            passed += range(first, (i + 1) * FRAME)
    return passed


def test_silence_does_not_pass_and_a_voice_brings_the_sound_before_it() -> None:
    frames = SAMPLE_RATE // FRAME + 1
    assert sent(Gate(), *[0.1] * frames) == []
    passed = sent(Gate(), *[0.1] * frames, 0.9)
    assert passed[0] == frames * FRAME - int(0.3 * SAMPLE_RATE)
    assert passed[-1] == (frames + 1) * FRAME - 1


def test_it_stays_open_for_four_seconds() -> None:
    frames = 10 * SAMPLE_RATE // FRAME
    passed = sent(Gate(), 0.9, *[0.0] * frames)
    assert passed[-1] / SAMPLE_RATE == pytest.approx(4, abs=0.1)


def test_what_belongs_to_an_utterance_passes_however_soft_it_is() -> None:
    assert len(sent(Gate(), *[0.1] * 10, needed=True)) == 10 * FRAME


def test_everything_passes_if_nobody_knows() -> None:
    assert sent(Gate(), *[None] * 20) == list(range(20 * FRAME))


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=400))
def test_what_passes_is_in_order_and_once_and_holds_every_voice(probabilities: list[float | None]) -> None:
    passed = sent(Gate(), *probabilities)
    assert passed == sorted(set(passed))
    for i, probability in enumerate(probabilities):
        if probability is None or probability >= 0.65:
            assert i * FRAME in passed


def test_a_pause_is_told_once() -> None:
    gate, told = Gate(), []
    for i, probability in enumerate([0.9] * 5 + [0.0] * 30 + [0.9] + [0.0] * 30):
        gate.feed(i * FRAME, (i + 1) * FRAME, probability, False)
        if gate.pauses((i + 1) * FRAME):
            told.append(i + 1)
    assert told == [5 + 10, 36 + 10]  # 10 frames are 320 ms


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 50_000)), min_size=1, max_size=30))
def test_times_on_the_stream_are_times_of_the_session(parts: list[tuple[int, int]]) -> None:
    """Parts: a gap in which nothing is sent, and how much is sent after it."""
    times, place, on_stream = Times(), 0, 0
    whole = []
    for gap, samples in parts:
        place += gap
        times.send(place, samples)
        whole.append((on_stream, place, samples))
        on_stream += samples
        place += samples
    for begins, places, samples in whole:
        middle = begins + samples // 2
        assert times.begin(begins / SAMPLE_RATE) == pytest.approx(places / SAMPLE_RATE)
        assert times.begin(middle / SAMPLE_RATE) == pytest.approx((places + samples // 2) / SAMPLE_RATE)
        assert times.end((begins + samples) / SAMPLE_RATE) == pytest.approx((places + samples) / SAMPLE_RATE)
