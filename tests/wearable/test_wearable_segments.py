"""Segments as the app merges them: what is shown, what is firm, and that nothing is doubled or lost."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.wearable.clock import StreamClock
from app.api.wearable.segments import SOMEBODY, Segments, Who, join
from app.api.wearable.transcript import Transcript
from app.dialogue.events import Final, Partial, SpeechStarted, SpeechStopped, TurnDropped
from app.roles import Word

ADA, BOB = Who("SPEAKER_00"), Who("SPEAKER_01", person_id="b")


class Screen:
    """What the app shows."""

    def __init__(self) -> None:
        self.shown: dict[str, dict[str, Any]] = {}

    def take(self, segments: Segments) -> None:
        changed, deleted = segments.take()
        for segment in json.loads(json.dumps(changed)):
            self.shown[segment["id"]] = segment
        for id_ in deleted:
            self.shown.pop(id_, None)

    @property
    def text(self) -> list[str]:
        return [s["text"] for s in sorted(self.shown.values(), key=lambda s: float(s["start"]))]


def test_one_person_goes_on_in_one_segment() -> None:
    segments, screen = Segments(), Screen()
    segments.show("Good", 1.0, 1.2, ADA)
    screen.take(segments)
    (first,) = screen.shown
    segments.fix("Good morning.", 1.0, 2.0, ADA)
    segments.fix("How are you?", 31.9, 33.0, ADA)
    screen.take(segments)
    assert list(screen.shown) == [first] and screen.text == ["Good morning. How are you?"]
    assert (screen.shown[first]["start"], screen.shown[first]["end"]) == (1.0, 33.0)
    segments.fix("Still there?", 63.0, 64.0, ADA)
    screen.take(segments)
    assert screen.text == ["Good morning. How are you?", "Still there?"]


def test_who_turns_out_to_be_another_gets_a_segment_and_the_first_is_as_before() -> None:
    segments, screen = Segments(), Screen()
    segments.fix("Good morning.", 0.0, 1.0, ADA)
    segments.show("and to", 2.0, 2.5, segments.last_who)
    screen.take(segments)
    assert screen.text == ["Good morning. and to"]
    segments.fix("And to you.", 2.0, 3.0, BOB)
    screen.take(segments)
    assert screen.text == ["Good morning.", "And to you."]
    assert [s["person_id"] for s in screen.shown.values()] == [None, "b"]


def test_words_that_nobody_said_are_taken_back() -> None:
    segments, screen = Segments(), Screen()
    segments.show("Hm", 0.0, 0.3, ADA)
    screen.take(segments)
    assert screen.text == ["Hm"]
    segments.fix("", 0.0, 0.0, SOMEBODY)
    screen.take(segments)
    assert screen.text == [] and not segments.firm
    segments.fix("Yes.", 1.0, 2.0, ADA)
    segments.show("Er", 2.5, 2.6, ADA)
    segments.fix("", 0.0, 0.0, SOMEBODY)
    screen.take(segments)
    assert screen.text == ["Yes."]


def test_a_long_utterance_is_whose_it_turns_out_to_be() -> None:
    """Its first words are firm before anybody knows the voice: they are not put to who spoke before."""
    segments, screen = Segments(), Screen()
    segments.fix("I am Ada.", 0, 1, ADA)
    segments.show("and I talk", 2, 4, ADA)
    segments.fix("And I talk and talk,", 2, 20, None)
    screen.take(segments)
    (_, early) = sorted(screen.shown.values(), key=lambda s: float(s["start"]))
    segments.show("and do not", 20, 22, ADA)
    segments.fix("and do not stop,", 20, 40, None)
    segments.fix("until now.", 40, 41, BOB)
    screen.take(segments)
    assert screen.text == ["I am Ada.", "And I talk and talk, and do not stop, until now."]
    late = screen.shown[early["id"]]
    assert (late["speaker_id"], late["person_id"], late["start"]) == (1, "b", 2)
    assert {s.who for s in segments.firm.values()} == {ADA, BOB}
    segments.fix("Oh.", 42, 43, ADA)
    screen.take(segments)
    assert screen.text[-1] == "Oh." and len(screen.shown) == 3


@pytest.mark.parametrize("rest", ["", "more"])
def test_a_long_utterance_of_many_segments(rest: str) -> None:
    """All of it is theirs, also if no words are left when that is known."""
    segments, screen = Segments(), Screen()
    segments.fix("Well.", 0, 1, ADA)
    for n in range(4):
        segments.fix("word " * 130, 2 + n * 20, 21 + n * 20, None)
    segments.fix(rest, 82, 83, BOB)
    screen.take(segments)
    by_time = sorted(screen.shown.values(), key=lambda s: float(s["start"]))
    assert len(by_time) > 3 and [s["speaker_id"] for s in by_time] == [0, *[1] * (len(by_time) - 1)]


def test_a_lecture_is_many_segments() -> None:
    segments, screen = Segments(), Screen()
    for n in range(400):
        segments.fix("A sentence of the lecture.", n * 2.0, n * 2.0 + 1.9, ADA)
        screen.take(segments)
    assert max(len(text) for text in screen.text) < 700
    assert len(segments.firm) == len(screen.shown) > 10


@pytest.mark.parametrize(
    ("a", "b", "both"), [("你好。", "你好", "你好。你好"), ("a", "b", "a b"), ("", "b", "b")]
)
def test_texts_are_joined_as_their_script_is(a: str, b: str, both: str) -> None:
    assert join(a, b) == both


@dataclass
class Said:
    """What an utterance came to."""

    partials: list[str] = field(default_factory=list)
    final: str = ""
    who: Who = ADA
    gap: float = 0.0


utterances = st.lists(
    st.builds(
        Said,
        st.lists(st.text("abc ", max_size=8).map(str.strip), max_size=3),
        st.text("xyz", max_size=5),
        st.sampled_from([ADA, BOB, SOMEBODY]),
        st.floats(0, 60),
    ),
    max_size=12,
)


@given(utterances, st.lists(st.booleans(), min_size=1, max_size=9))
def test_the_app_ends_with_what_was_said(said: list[Said], looks: list[bool]) -> None:
    """Whatever was shown meanwhile, and whenever the app was told."""
    segments, screen = Segments(), Screen()
    now, step = 0.0, 0
    known: dict[str, float] = {}
    for utterance in said:
        now += utterance.gap
        for text in utterance.partials:
            segments.show(text, now, now + 1, segments.last_who)
            step += 1
            if looks[step % len(looks)]:
                screen.take(segments)
            for id_, segment in screen.shown.items():
                assert known.setdefault(id_, segment["start"]) == segment["start"]
        segments.fix(utterance.final, now, now + 2, utterance.who)
        now += 2
    screen.take(segments)
    assert " ".join(screen.text).split() == [s.final for s in said if s.final]
    speakers = [
        (s["speaker_id"], s["text"].split()) for s in sorted(screen.shown.values(), key=lambda s: s["start"])
    ]
    assert [(n, word) for n, text in speakers for word in text] == [
        (s.who.number, s.final) for s in said if s.final
    ]


def word(text: str, start: float) -> Word:
    return Word(text, start, start + 0.5, 0.9)


class Told(list[tuple[str, float, float, bool]]):
    def __call__(self, text: str, start: float, end: float, label: str | None, *, firm: bool) -> None:
        self.append((text, start, end, firm))


def final(turn: str, text: str, start: float) -> Final:
    words = tuple(word(w, n * 0.5) for n, w in enumerate(text.split()))
    return Final(turn, "t", text, words, "en", 0.9, False, start=start)


def test_chunks_of_a_long_utterance_are_firm_at_once() -> None:
    told = Told()
    transcript = Transcript(told)
    transcript.take(SpeechStarted("a", 1.0))
    transcript.take(Partial("a", "one two", "", 0.9, 0.7, 2.0))
    closed = (word("one", 0.3), word("two", 0.8))
    transcript.take(Partial("a", "one two three", "", 0.9, 0.7, 3.0, closed))
    transcript.take(SpeechStopped("a", 3.5))
    transcript.take(
        Final("a", "t", "one two three", (*closed, word("three", 1.4)), "en", 0.9, False, start=0.7)
    )
    assert [(t, firm) for t, _, _, firm in told] == [
        ("one two", False),
        ("one two", True),
        ("three", False),
        ("three", True),
    ]
    assert transcript.behind == 0
    assert all(start <= end for _, start, end, _ in told)
    starts = [start for _, start, _, firm in told if firm]
    assert starts == pytest.approx([1.0, 2.1])


def test_what_is_known_too_early_waits_its_turn() -> None:
    told = Told()
    transcript = Transcript(told)
    transcript.take(SpeechStarted("a", 1.0))
    transcript.take(SpeechStarted("b", 5.0))
    transcript.take(Partial("b", "second", "", 0.9, 5.0, 6.0))
    assert told == []
    transcript.take(final("a", "first", 1.0))
    transcript.take(TurnDropped("b", "nothing"))
    assert [(t, firm) for t, _, _, firm in told] == [("first", True), ("second", False), ("", True)]


def test_a_clock_knows_of_gaps_and_of_hurry() -> None:
    clock = StreamClock(not_before=900.0)
    clock.arrives(0.0, 1000.0)
    clock.arrives(1.0, 1001.5)
    assert clock.at(1.0) == 1001.0
    clock.arrives(2.0, 1062.0)  # a minute without sound
    assert (clock.at(1.5), clock.at(2.5)) == (1001.5, 1062.5)
    clock.arrives(600.0, 1063.0)  # a recording is sent at once
    assert clock.at(600.0) == 1660.0
    later = StreamClock(not_before=2000.0)
    later.arrives(0.0, 1100.0)
    assert later.at(1.0) == 2001.0
    for n in range(2000):
        later.arrives(float(n), 5000.0 + 10 * n)
    assert len(later._streams) < 300
