from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from corpus import load
from corpus.conversation import SAMPLE_RATE, conversation


def test_the_same_seed_is_the_same_conversation() -> None:
    one, same, other = conversation(1, 300), conversation(1, 300), conversation(2, 300)
    assert one == same != other
    assert np.array_equal(one.sound(100, 103), same.sound(100, 103))


def test_people_take_turns_with_pauses_and_overlaps() -> None:
    talk = conversation(3, 1800)
    assert len({t.speaker for t in talk.turns}) >= 3
    assert all(t.text and t.start < t.end <= talk.seconds for t in talk.turns)
    assert [t.start for t in talk.turns] == sorted(t.start for t in talk.turns)
    gaps = [b.start - a.end for a, b in pairwise(talk.turns)]
    assert 0.03 < np.mean([gap < 0 for gap in gaps]) < 0.2
    assert all(a.speaker != b.speaker for a, b in pairwise(talk.turns) if b.start < a.end)
    assert 3 < max(gaps) < 12 and np.median(gaps) < 1.5
    assert talk.text().split()[: len(talk.turns[0].text.split())] == talk.turns[0].text.split()
    half = talk.text(0, 900) + " " + talk.text(900)
    assert half == talk.text()


def test_the_sound_is_the_recordings_in_a_quiet_room() -> None:
    talk = conversation(4, 120)
    sound = talk.sound()
    assert sound.dtype == np.float32 and len(sound) == 120 * SAMPLE_RATE and np.abs(sound).max() <= 1
    alone = next(
        b
        for a, b, c in zip(talk.turns, talk.turns[1:], talk.turns[2:], strict=False)
        if a.end < b.start and b.end < c.start
    )
    at, spoken = round(alone.start * SAMPLE_RATE), load(alone.recording)
    assert np.abs(sound[at : at + len(spoken)] - spoken).max() < 0.02
    pieces = [talk.sound(at, at + 30) for at in (0, 30, 60, 90)]
    assert np.array_equal(np.concatenate(pieces), sound)


def test_who_takes_part_can_be_said() -> None:
    talk = conversation(1, 60, ["cities-reader", "caller-90"])
    assert {t.speaker for t in talk.turns} == {"cities-reader", "caller-90"}
    with pytest.raises(ValueError, match="nobody-at-all"):
        conversation(1, 60, ["nobody-at-all"])
