"""Rewriting a text without losing sight of where it came from."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engines.traced import Traced

PATTERNS = [
    (re.compile(pattern), said)
    for pattern, said in (
        (r"a+", "b"),
        (r"(\w) (\w)", r"\2-\1"),
        (r"\b", "|"),
        (r"\s*", ""),
        (r"[(]([^)]*)[)]", r"\1\1"),
        (r"x?", lambda m: "yy" if m[0] else ""),
    )
]


@given(st.text(alphabet="ab x()", max_size=40), st.lists(st.sampled_from(PATTERNS), max_size=4))
def test_it_rewrites_like_re(text: str, steps: list[tuple[re.Pattern[str], str]]) -> None:
    traced, plain = Traced(text), text
    for pattern, said in steps:
        traced, plain = traced.sub(pattern, said), pattern.sub(said, plain)
    assert traced.text == plain
    assert len(traced.at) == len(plain)
    assert list(traced.at) == sorted(traced.at)
    assert all(0 <= at < max(1, len(text)) for at in traced.at)


def test_what_is_kept_stays_where_it_was() -> None:
    link = Traced("see [the docs](http://a/the) now").sub(re.compile(r"\[(.*?)\]\(.*?\)"), r"\1")
    assert link.text == "see the docs now"
    assert list(link.at) == [0, 1, 2, 3, *range(5, 13), *range(28, 32)]


def test_what_is_new_counts_to_what_it_replaces_or_follows() -> None:
    plus = Traced("2+2").sub(re.compile(r"\+"), " plus ")
    assert [plus.at[i] for i in (0, 3, 7)] == [0, 1, 2]
    spaced = Traced("ab1").sub(re.compile(r"(?<=[a-z])(?=\d)"), " ")
    assert (spaced.text, list(spaced.at)) == ("ab 1", [0, 1, 1, 2])


@pytest.mark.parametrize(("old", "new"), [("abc", ""), ("", "abc"), ("a" * 900, "b" * 900 + "c")])
def test_the_whole_text(old: str, new: str) -> None:
    traced = Traced(old).rewritten(new)
    assert traced.text == new
    assert len(traced.at) == len(new)
    assert list(traced.at) == sorted(traced.at)
    assert all(0 <= at < max(1, len(old)) for at in traced.at)


def test_a_part_and_a_row_of_parts() -> None:
    text = Traced("one two")
    row = Traced.join([text[4:], Traced("", []), text[6:]], " ")
    assert (row.text, list(row.at)) == ("two  o", [4, 5, 6, 6, 6, 6])
