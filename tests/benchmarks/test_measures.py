"""The measures that the benchmarks are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.roles import Word
from benchmarks.common.live import Heard, Shown
from benchmarks.common.paced import Exchange, HeardTurn
from benchmarks.common.report import spread
from benchmarks.common.words import end_times, match_beginning, while_speaking

WORDS = st.lists(st.sampled_from("a b c".split()), max_size=8)


def test_a_beginning_has_no_errors() -> None:
    found = match_beginning("it was".split(), "it was the best of times it was".split())
    assert (found.errors, found.length, found.indexes) == (0, 2, (0, 1))


def test_errors_are_counted_where_the_words_fit_best() -> None:
    found = match_beginning("in sure the period".split(), "in short the period was so".split())
    assert (found.errors, found.length, found.indexes) == (1, 4, (0, None, 2, 3))
    missing = match_beginning("the period was".split(), "in short the period was so".split())
    assert (missing.errors, missing.length) == (2, 5)
    assert match_beginning([], "a b".split()).errors == 0
    assert match_beginning("a b".split(), []).errors == 2


@given(WORDS, WORDS)
def test_a_match_is_in_order_and_of_equal_words(words: list[str], whole: list[str]) -> None:
    found = match_beginning(words, whole)
    matched = [(i, j) for i, j in enumerate(found.indexes) if j is not None]
    assert all(words[i] == whole[j] for i, j in matched)
    assert [j for _, j in matched] == sorted({j for _, j in matched})
    assert all(j < found.length for _, j in matched)
    # No more errors than if nothing fitted, and no fewer than what stays unmatched.
    assert max(len(words), found.length) - len(matched) <= found.errors <= len(words)


def test_word_times_are_those_of_the_words_that_were_right() -> None:
    heard = [Word("In", 0.0, 0.2, 1.0), Word("shore,", 0.2, 0.6, 1.0), Word("33", 0.6, 1.0, 1.0)]
    assert end_times("in short 3 3".split(), heard) == {0: 0.2, 2: 1.0, 3: 1.0}


def test_what_was_shown_is_compared_with_what_was_said() -> None:
    shown = (
        Shown(1.0, "We live", ""),
        Shown(1.5, "We love the", "We"),
        Shown(2.0, "We love these", "We love"),
    )
    heard = Heard(shown, "We love the sea.", "We love the sea.", 3.0, 3)
    found = while_speaking("we love the sea".split(), {0: 0.4, 1: 0.8, 2: 1.2, 3: 1.8}, heard)
    assert (found["partial_errors"], found["partial_words"]) == (2, 8)
    assert (found["committed_errors"], found["committed_unlike_final_pass"]) == (0, 0)
    assert (found["changed_words"], found["final_words"]) == (3, 4)
    assert found["shown_delays_s"] == pytest.approx([0.6, 0.7, 0.3, 1.2])
    assert found["firm_delays_s"] == pytest.approx([1.1, 1.2, 1.8, 1.2])
    assert (found["shown_early"], found["firm_early"], found["right_words"]) == (3, 2, 4)


RATE = 24_000


def pcm(*levels: float) -> bytes:
    return (np.repeat(levels, 2400) * 32767).astype("<i2").tobytes()


def test_silence_before_the_voice_is_no_answer_yet() -> None:
    turn = HeardTurn()
    turn.hear(pcm(0.0), 10.0, RATE)
    assert turn.first_sound == 10.0
    assert turn.first_audible is None and turn.heard_at is None
    turn.hear(pcm(0.005, 0.3), 10.02, RATE)
    turn.hear(pcm(0.3), 10.5, RATE)
    assert turn.first_audible == 10.02
    # A player is still at the 200 ms of silence when the voice arrives.
    assert turn.heard_at == pytest.approx(10.2)
    # It had played the first 300 ms when the last 100 came.
    assert turn.received_s == pytest.approx(0.4)
    assert turn.played_until == pytest.approx(10.6)


def test_an_answer_into_the_question_is_premature() -> None:
    early, late = HeardTurn(), HeardTurn()
    early.hear(pcm(0.3), 9.0, RATE)
    late.hear(pcm(0.3), 11.0, RATE)
    both = Exchange(10.0, 0.0, (early, late), ())
    assert both.premature and both.answer is late
    assert Exchange(10.0, 0.0, (early,), ()).answer is None
    assert not Exchange(10.0, 0.0, (late,), ()).premature


def test_spread() -> None:
    assert spread([]) == {"n": 0}
    found = spread(range(101))
    assert (found["n"], found["p50"], found["p95"], found["max"]) == (101, 50, 95, 100)
