from __future__ import annotations

import pytest

from app.dialogue.guards import cleaned, doubtful, nobody_said
from app.roles import Transcript, Word


@pytest.mark.parametrize(
    ("text", "confidence", "no_speech", "voiced_ms"),
    [
        (" ... ", 0.9, 0.0, 2000),
        ("I'm sorry.", 0.5, 0.95, 900),
        ("I'm going to put the other side of the head.", 0.13, 0.8, 4000),
        ("Thank you for watching!", 0.4, 0.1, 900),
        ("one two three four five six seven eight", 0.9, 0.1, 500),
    ],
)
def test_what_nobody_said(text: str, confidence: float, no_speech: float, voiced_ms: float) -> None:
    assert nobody_said(text, confidence, no_speech, voiced_ms)


@pytest.mark.parametrize(
    ("text", "confidence", "no_speech", "voiced_ms"),
    [
        ("5 5.", 0.47, 0.65, 700),  # a person, over the telephone
        ("seven", 0.17, 0.21, 500),
        ("Thank you.", 0.9, 0.1, 600),
        ("yes", 0.6, 0.95, 200),
        ("one two three four five six seven eight", 0.9, 0.1, 2000),
    ],
)
def test_what_somebody_said(text: str, confidence: float, no_speech: float, voiced_ms: float) -> None:
    assert not nobody_said(text, confidence, no_speech, voiced_ms)


def test_tags_and_bare_punctuation_are_no_words() -> None:
    words = tuple(Word(t, i, i + 1, 0.9) for i, t in enumerate(["[Music]", "hello", "-", "there."]))
    heard = cleaned(Transcript("[Music] hello - there.", words))
    assert heard.text == "hello there."
    assert [w.text for w in heard.words] == ["hello", "there."]
    assert cleaned(Transcript("(laughs) hello … there")).text == "hello there"


def test_soft_speech_is_marked() -> None:
    assert doubtful(0.4, 0.1) and doubtful(0.9, 0.7)
    assert not doubtful(0.9, 0.1)
