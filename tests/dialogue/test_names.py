"""Who introduces themselves, and who only sounds like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import corpus
from app.dialogue.names import name_said


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My name is Ada.", "Ada"),
        ("Hello, my name is Ada Lovelace, and I write programs.", "Ada Lovelace"),
        ("Well, my name's Jean-Luc.", "Jean-Luc"),
        ("My full name is Ludwig van Beethoven.", "Ludwig van Beethoven"),
        ("my name is Siobhan O'Neill", "Siobhan O'Neill"),
        ("My name is April.", "April"),
        ("This is Bob speaking.", "Bob"),
        ("Hi, this is Bob.", "Bob"),
        ("Good morning, this is Maria from accounting.", "Maria"),
        ("It's Tom here, can you hear me?", "Tom"),
        ("I'm Carol.", "Carol"),
        ("I’m Carol, nice to meet you.", "Carol"),
        ("Hi, I am Ravi and I work with Sue.", "Ravi"),
        ("I'm Dr. Lee.", "Lee"),
        ("Everybody calls me a fool. You can call me Ishmael.", "Ishmael"),
        ("Please call me José.", "José"),
        ("I'm called Zoë.", "Zoë"),
    ],
)
def test_an_introduction_gives_the_name(text: str, name: str) -> None:
    assert name_said(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry.",
        "I'm Sorry, could you say that again?",
        "I'm here.",
        "I'm fine, thanks.",
        "I'm going to London.",
        "I'm German.",
        "I'm Catholic and my wife is not.",
        "I am from Berlin.",
        "This is London.",
        "This is America, after all.",
        "This is great.",
        "It's Monday.",
        "It's Sunday here.",
        "My name is on the list.",
        "My name is not Bob.",
        "His name is Bob.",
        "What is your name?",
        "Is your name Ada?",
        "She said I'm Ada's sister.",
        "Call me tomorrow.",
        "Call me Monday.",
        "I'm CEO of this company.",
        "Bob, I'm at the station.",
        "Tell Bob I'm late.",
        "",
        "I'm",
        "my name is",
    ],
)
def test_what_is_no_introduction_gives_none(text: str) -> None:
    assert name_said(text) is None


def test_nobody_in_the_recordings_introduces_themselves() -> None:
    assert [r.text for r in corpus.recordings() if name_said(r.text)] == []


@given(st.text(max_size=200))
def test_any_text_is_fit(text: str) -> None:
    name = name_said(text)
    assert name is None or name in text
