from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialogue.segmenter import Segmenter


def cut(text: str, size: int = 1) -> list[str]:
    """The pieces of `text`, fed `size` characters at a time."""
    segmenter = Segmenter()
    pieces = [p for i in range(0, len(text), size) for p in segmenter.feed(text[i : i + size])]
    return pieces + list(segmenter.finish())


def test_the_first_piece_is_a_clause_and_the_rest_are_sentences() -> None:
    assert cut(
        "Well, to boil an egg, bring water to a boil. Put the egg in for seven minutes, then cool it."
    ) == [
        "Well, to boil an egg,",
        "bring water to a boil. Put the egg in for seven minutes, then cool it.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Lee met Mr. Smith 3.14 p.m. yesterday",
        "It costs 1,299.50 dollars www.example.com today",
        "J. S. Bach wrote it",
        "e.g. this one",
    ],
)
def test_a_dot_that_ends_no_sentence_cuts_nothing(text: str) -> None:
    assert cut(text) == [text]


def test_chinese_is_cut_at_its_own_marks() -> None:
    assert cut("你好，我是一个人工智能助手。今天天气很好！") == [
        "你好，我是一个人工智能助手。",
        "今天天气很好！",
    ]


def test_a_short_first_sentence_is_spoken_at_once() -> None:
    segmenter = Segmenter()
    assert list(segmenter.feed("Yes. ")) == ["Yes."]


def test_quotes_stay_with_their_sentence() -> None:
    assert cut('He said "stop." Then he left the room and went home.')[0] == 'He said "stop."'


def test_text_without_marks_is_cut_at_spaces() -> None:
    pieces = cut("word " * 200)
    assert len(pieces) > 3
    assert all(len(p) <= 220 and not p.startswith(" ") for p in pieces)
    assert " ".join(pieces).split() == ["word"] * 200


@given(st.text(alphabet="ab .,!?;:\n。，1\"'”)-", max_size=300), st.integers(1, 50))
def test_nothing_is_lost_or_added(text: str, size: int) -> None:
    assert "".join("".join(cut(text, size)).split()) == "".join(text.split())


@given(st.text(alphabet="abc. ,!?。，\n", max_size=300), st.integers(2, 50))
def test_no_way_of_coming_makes_longer_pieces(text: str, size: int) -> None:
    # What comes a letter at a time is cut as early as can be; in one go no earlier than that.
    early, late = cut(text, 1), cut(text, size)
    assert all(late)
    ends = [len("".join("".join(early[: i + 1]).split())) for i in range(len(early))]
    for i in range(len(late)):
        assert len("".join("".join(late[: i + 1]).split())) in ends


def test_a_long_first_clause_is_cut_at_a_phrase() -> None:
    text = "It is quite likely to him that the river was named after a general. It is long."
    assert cut(text) == [
        "It is quite likely",
        "to him that the river was named after a general.",
        "It is long.",
    ]
    # A comma that comes in time is the better place.
    assert cut("It is quite likely, that the river was named so.")[0] == "It is quite likely,"
