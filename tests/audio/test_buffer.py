"""The utterance buffer, against a plain list of everything that was ever appended."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audio.buffer import AudioBuffer

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 30_000)),
        st.tuples(st.just("drop"), st.floats(-0.1, 1.1)),
        st.tuples(st.just("view"), st.tuples(st.floats(0, 1), st.floats(0, 1))),
    ),
    max_size=40,
)


def numbers(start, count):
    """float32 values that name their own position (exact up to 2^24)."""
    return np.arange(start, start + count, dtype=np.float32)


@settings(deadline=None, max_examples=100)
@given(STEPS, st.sampled_from([0, 5, 100_000]))
def test_positions_hold_and_views_never_change(steps, origin):
    buffer = AudioBuffer(origin)
    start = end = origin
    kept = []
    for step, value in steps:
        if step == "append":
            buffer.append(numbers(end, value))
            end += value
        elif step == "drop":
            at = round(start + value * (end - start))
            buffer.drop_before(at)
            start = max(start, min(at, end))
        else:
            low, high = (round(start + part * (end - start)) for part in sorted(value))
            kept.append((low, high, buffer.view(low, high)))
        assert (buffer.start, buffer.end, len(buffer)) == (start, end, end - start)
        assert np.array_equal(buffer.view(), numbers(start, end - start))
    for low, high, view in kept:
        assert np.array_equal(view, numbers(low, high - low))


@pytest.mark.parametrize(("start", "end"), [(9, 20), (10, 31), (20, 15), (0, 5), (31, 31)])
def test_what_is_not_held_cannot_be_seen(start, end):
    buffer = AudioBuffer()
    buffer.append(numbers(0, 30))
    buffer.drop_before(10)
    with pytest.raises(ValueError, match="not within the held"):
        buffer.view(start, end)


def test_a_view_shares_memory_and_is_read_only():
    buffer = AudioBuffer()
    buffer.append(numbers(0, 1000))
    view = buffer.view(100, 200)
    assert np.shares_memory(view, buffer.view(150, 160))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_what_is_appended_is_copied():
    buffer = AudioBuffer()
    sound = numbers(0, 10)
    buffer.append(sound)
    sound[:] = 99
    assert np.array_equal(buffer.view(), numbers(0, 10))


def test_an_endless_stream_with_a_pre_roll_takes_no_more_memory():
    buffer = AudioBuffer()
    frame = numbers(0, 512)
    tracemalloc.start()
    try:
        for _ in range(5000):  # 160 s
            buffer.append(frame)
            buffer.drop_before(buffer.end - 16_000)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert buffer.end == 5000 * 512
    assert len(buffer) == 16_000
    assert held < 4 * 16_000 * 4 + 50_000
    assert peak < 8 * 16_000 * 4 + 50_000


def test_memory_of_a_long_utterance_is_given_back():
    buffer = AudioBuffer()
    tracemalloc.start()
    try:
        buffer.append(numbers(0, 2_000_000))
        long = tracemalloc.get_traced_memory()[0]
        buffer.drop_before(buffer.end - 100)
        assert tracemalloc.get_traced_memory()[0] < long / 50
    finally:
        tracemalloc.stop()
    assert np.array_equal(buffer.view(), numbers(1_999_900, 100))


def test_appending_is_cheap_however_much_is_held(monkeypatch):
    copied = 0
    move = AudioBuffer._move

    def counted(self, extra):
        nonlocal copied
        copied += len(self)
        move(self, extra)

    monkeypatch.setattr(AudioBuffer, "_move", counted)
    buffer = AudioBuffer()
    for _ in range(4000):
        buffer.append(numbers(0, 512))
    assert copied < 2 * len(buffer)
