"""Who said what: what holds for any pieces, and what comes of pieces of real speech."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voices import DIMENSIONS, person, piece

import corpus
from app.dialogue.speakers import KNOWN_S, SHORT_S, Assigned, Speakers, label_name
from app.engines.campplus import CamPlusPlus
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, Job, Samples, Vector

Piece = tuple[str, Vector, float]
"""Who says it, its vector and its seconds."""


def labelled(speakers: Speakers, pieces: Sequence[Piece]) -> list[tuple[str, int, float]]:
    """Whose each piece was taken for in the end: (who, label, seconds)."""
    told: list[tuple[str, int, float]] = []
    for who, vector, seconds in pieces:
        said = speakers.assign(vector, seconds)
        merged = dict(said.merged)
        told = [(w, merged.get(label, label), s) for w, label, s in told]
        told.append((who, said.speaker, seconds))
    return told


def purity(told: list[tuple[str, int, float]]) -> float:
    """The share of the time in which a label is that of the person whom it mostly is."""
    by_label: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for who, label, seconds in told:
        by_label[label][who] += seconds
    return sum(max(people.values()) for people in by_label.values()) / sum(s for *_, s in told)


# --- any pieces -----------------------------------------------------------------------------------

vectors = st.builds(
    lambda seed, axis, amount: piece(person(axis), amount, seed),
    st.integers(0, 1000),
    st.integers(0, 20),
    st.floats(0.1, 30),
)
any_pieces = st.lists(st.tuples(vectors, st.floats(0, 60)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(any_pieces, st.integers(1, 8))
def test_there_are_never_more_than_may_be_and_labels_stay(
    pieces: list[tuple[Vector, float]], most: int
) -> None:
    speakers = Speakers(most=most)
    seen: set[int] = set()
    for vector, seconds in pieces:
        before = set(speakers.labels)
        said = speakers.assign(vector, seconds)
        now = set(speakers.labels)
        gone = {old for old, _ in said.merged}
        # One label more at most, the next number; those that go are told, with who has theirs.
        new = (now | gone) - before
        assert new <= {len(seen)} and (not new or seconds >= SHORT_S or not before)
        seen |= new
        assert now == (before | new) - gone and len(now) <= most
        assert said.speaker in now and all(kept < old for old, kept in said.merged)
        assert speakers.labels == sorted(speakers.labels)
        voice = speakers.voice(said.speaker)
        assert voice is not None and np.linalg.norm(voice[0]) == pytest.approx(1, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(24)), st.integers(2, 6))
def test_the_order_of_plain_pieces_does_not_matter(order: list[int], people: int) -> None:
    """Who is told from whom is the same in any order; only the numbers follow who came first."""
    pieces = [(str(n % people), piece(person(n % people), 3.0, n), 3.0) for n in range(24)]
    speakers = Speakers()
    told = labelled(speakers, [pieces[n] for n in order])
    assert len(speakers) == people and purity(told) > 0.999
    labels = {who: label for who, label, _ in told}
    assert list(labels.values()) == list(range(people)), "in order of appearance"
    # Where a voice lies does not depend on it either.
    alone = np.sum([v for who, v, _ in pieces if who == "0"], axis=0)
    voice = speakers.voice(labels["0"])
    assert voice is not None and float(voice[0] @ alone) / np.linalg.norm(alone) == pytest.approx(1, abs=1e-4)


def test_short_pieces_make_nobody_new() -> None:
    speakers = Speakers()
    speakers.assign(piece(person(0), 5, 1), 5)
    for seed in range(30):
        speakers.assign(piece(person(9), 0.6, seed), 0.6)
    assert speakers.labels == [0]


def test_a_short_piece_goes_to_the_nearest_or_the_last() -> None:
    speakers = Speakers()
    for who in (0, 1):
        speakers.assign(piece(person(who), 6, who), 6)
    assert speakers.assign(piece(person(0), 1.0, 5), 1.0).speaker == 0
    unlike = np.zeros(DIMENSIONS, np.float32)
    assert speakers.assign(unlike, 0.5).speaker == 0
    speakers.assign(piece(person(1), 3, 6), 3)
    assert speakers.assign(unlike, 0.5).speaker == 1


def test_nothing_is_learnt_from_a_short_piece() -> None:
    speakers = Speakers()
    speakers.assign(piece(person(0), 5, 1), 5)
    before = speakers.voice(0)
    for seed in range(50):
        speakers.assign(piece(person(4), 1.0, seed), 1.0)
    after = speakers.voice(0)
    assert before is not None and after is not None
    np.testing.assert_array_equal(before[0], after[0])


def test_two_voices_at_once_make_nobody_new() -> None:
    speakers = Speakers()
    for who in (0, 1):
        for seed in range(3):
            speakers.assign(piece(person(who), 4, seed), 4)
    for seed in range(20):
        both = 0.8 * piece(person(0), 3, seed) + 0.6 * piece(person(1), 3, 100 + seed)
        assert speakers.assign(both, 3).speaker in (0, 1)
    assert speakers.labels == [0, 1]


def test_speakers_who_prove_the_same_keep_the_older_label() -> None:
    """Somebody turns away from the microphone and sounds like another; then the two meet."""
    far = np.float32(0.3) * person(0) + np.float32(0.95) * person(1)
    speakers = Speakers()
    speakers.assign(person(0), 6)
    speakers.assign(far, 6)
    assert speakers.labels == [0, 1]
    merged: list[tuple[int, int]] = []
    for step in np.linspace(0.1, 1, 30):
        way = np.float32(1 - step) * far + np.float32(step) * person(0)
        merged += speakers.assign(way, 6).merged
    assert merged == [(1, 0)] and speakers.labels == [0]
    # The next who comes gets a number that nobody had.
    assert speakers.assign(person(5), 4).speaker == 2


def test_when_all_places_are_taken_the_nearest_has_it() -> None:
    speakers = Speakers(most=2)
    speakers.assign(person(0), 5)
    speakers.assign(person(1), 5)
    near = np.float32(0.3) * person(1) + np.float32(0.95) * person(2)
    assert speakers.assign(near, 5).speaker == 1


def test_a_day_costs_no_more_than_an_hour() -> None:
    speakers = Speakers()
    for n in range(200):
        speakers.assign(piece(person(n % 8), 4, n), 4)
    early = len(json.dumps(speakers.state()))
    for n in range(200, 5000):
        speakers.assign(piece(person(n % 20), 4, n), 4)
    assert len(speakers) <= 8
    assert len(json.dumps(speakers.state())) < 1.2 * early


def test_it_goes_on_elsewhere() -> None:
    here, there = Speakers(), Speakers()
    for n in range(20):
        here.assign(piece(person(n % 3), 2.5, n), 2.5)
    there.enrol("a", "Ada", [piece(person(1), 10, 99)])
    there.restore(json.loads(json.dumps(here.state())))
    ada = there.person(1)
    assert ada is not None and ada.name == "Ada"
    for n in range(20, 40):
        vector = piece(person(n % 4), 2.5, n)
        assert there.assign(vector, 2.5).speaker == here.assign(vector, 2.5).speaker


# --- people who are enrolled ----------------------------------------------------------------------


def enrolled(*people: int) -> Speakers:
    speakers = Speakers()
    for who in people:
        speakers.enrol(f"id-{who}", f"name-{who}", [piece(person(who), 10, 50 + who)])
    return speakers


def names(said: Assigned) -> list[tuple[int, str | None]]:
    return [(label, who.name if who else None) for label, who in said.named]


def test_somebody_enrolled_is_recognised_after_enough_speech() -> None:
    speakers = enrolled(0, 1)
    heard = 0.0
    told: list[tuple[int, str | None]] = []
    for seed in range(6):
        told = names(speakers.assign(piece(person(1), 2, seed), 2))
        heard += 2
        assert bool(told) == (heard - 2 < KNOWN_S <= heard), "it is told once, and not before"
        if told:
            assert told == [(0, "name-1")]
    assert names(speakers.assign(piece(person(5), 10, 7), 10)) == []
    who = speakers.person(0)
    assert who is not None and who.id == "id-1" and speakers.person(1) is None


def test_two_alike_are_not_told_apart_by_a_hair() -> None:
    twin = piece(person(0), 40, 1)
    speakers = enrolled(0)
    speakers.enrol("twin", "Twin", [twin])
    assert names(speakers.assign(piece(person(0), 10, 3), 10)) == []
    assert [label for label, _ in speakers.forget("twin")] == [0]
    who = speakers.person(0)
    assert who is not None and who.id == "id-0"


def test_who_is_enrolled_later_is_recognised_at_once_and_forgotten_at_once() -> None:
    speakers = Speakers()
    for seed in range(4):
        speakers.assign(piece(person(2), 3, seed), 3)
    voice = speakers.voice(0)
    assert voice is not None
    [(label, who)] = speakers.enrol("x", "Xavier", [voice[0]])
    assert label == 0 and who is not None and who.name == "Xavier"
    assert speakers.forget("x") == ((0, None),)


@given(st.permutations(range(5)))
def test_the_order_of_enrolment_does_not_matter(order: list[int]) -> None:
    speakers = enrolled(*order)
    assert names(speakers.assign(piece(person(3), 8, 1), 8)) == [(0, "name-3")]


def test_two_speakers_who_are_one_person_become_one() -> None:
    other = np.float32(0.42) * person(0) + np.float32(0.91) * person(1)
    speakers = Speakers()
    speakers.assign(person(0), 6)
    speakers.assign(other, 6)
    told = speakers.enrol("a", "Ada", [person(0) + other])
    assert [(label, who.name) for label, who in told if who] == [(0, "Ada"), (1, "Ada")]
    said = speakers.assign(np.float32(0.2) * person(0) + other, 6)
    assert said.speaker == 0 and said.merged == ((1, 0),) and speakers.labels == [0]


# --- real speech ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(model_dir: Callable[[str], Path]) -> dict[str, list[tuple[Vector, float]]]:
    """Pieces of 1.6–4 s of four readers and speakers, as vectors."""
    return asyncio.run(_spoken(model_dir("campplus-zh-en")))


async def _spoken(model: Path) -> dict[str, list[tuple[Vector, float]]]:
    pool = Workers(2)
    voices = CamPlusPlus(model, pool)
    random = np.random.default_rng(5)
    found: dict[str, list[tuple[Vector, float]]] = {}
    for who, audio in people().items():
        at = 0
        found[who] = []
        while at + 1.6 * SAMPLE_RATE < len(audio) and len(found[who]) < 12:
            part = audio[at : at + int(random.uniform(1.6, 4) * SAMPLE_RATE)]
            at += len(part)
            if len(part) >= 1.6 * SAMPLE_RATE:
                found[who].append((await voices.embed(part, Job()), len(part) / SAMPLE_RATE))
        for _ in range(4):
            start = int(random.integers(0, len(audio) - SAMPLE_RATE))
            part = audio[start : start + int(random.uniform(0.5, 1.2) * SAMPLE_RATE)]
            found[who].append((await voices.embed(part, Job()), len(part) / SAMPLE_RATE))
    pool.close()
    return found


def people() -> dict[str, Samples]:
    by: dict[str, list[Samples]] = defaultdict(list)
    for r in corpus.recordings():
        prompt = r.speaker == "allison-smith" and r.kind == "long"
        if prompt or (r.speaker in ("austen-reader", "cities-reader", "caller-91") and r.id != "cities"):
            by[r.speaker].append(corpus.load(r))
    return {who: np.concatenate(parts) for who, parts in by.items()}


@pytest.mark.parametrize("seed", range(8))
def test_readers_who_take_turns_are_told_apart(
    spoken: dict[str, list[tuple[Vector, float]]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    chosen = random.permutation(sorted(spoken))[: 2 + seed % 3]
    pieces = [(str(who), vector, seconds) for who in chosen for vector, seconds in spoken[who]]
    pieces = [pieces[i] for i in random.permutation(len(pieces))]
    speakers = Speakers()
    told = labelled(speakers, pieces)
    assert len(speakers) == len(chosen)
    long = [t for t in told if t[2] >= SHORT_S]
    assert purity(long) > 0.999 and purity(told) > 0.9


def test_readers_who_are_enrolled_are_named(spoken: dict[str, list[tuple[Vector, float]]]) -> None:
    speakers = Speakers()
    for who, pieces in spoken.items():
        speakers.enrol(who, who, [vector for vector, _ in pieces[:2]])
    told = labelled(speakers, [(w, v, s) for w, pieces in spoken.items() for v, s in pieces[2:]])
    for who, label, seconds in told:
        found = speakers.person(label)
        if seconds >= SHORT_S and found is not None:
            assert found.id == who
    recognised = {found.id for label in speakers.labels if (found := speakers.person(label))}
    assert len(recognised) >= 3  # of one caller there is too little


def test_labels_have_the_form_that_clients_parse() -> None:
    assert [label_name(n) for n in (0, 7, 12)] == ["SPEAKER_00", "SPEAKER_07", "SPEAKER_12"]
