"""Learning a person's voice from recordings of people, and knowing them by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import corpus
from app.dialogue.enrolment import Voice, learnt, spoken, together
from app.dialogue.speakers import Person, Speakers
from app.dialogue.who import Change, Named, Who
from app.engines.campplus import CamPlusPlus
from app.engines.silero import Silero
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, BadAudio, Job, Samples


@pytest.fixture(scope="module")
def silero(model_dir: Callable[[str], Path]) -> Silero:
    return Silero(model_dir("silero-vad"))


@pytest.fixture(scope="module")
def campplus(model_dir: Callable[[str], Path]) -> Iterator[CamPlusPlus]:
    pool = Workers(2)
    yield CamPlusPlus(model_dir("campplus-zh-en"), pool)
    pool.close()


def read(*names: str) -> Samples:
    """Recordings one after the other."""
    found = {r.id: r for r in corpus.recordings()}
    silence = np.zeros(SAMPLE_RATE // 2, np.float32)
    return np.concatenate([part for name in names for part in (corpus.load(found[name]), silence)])


AUSTEN, CITIES = read("austen-880", "austen-920"), read("cities-1", "cities-2", "cities-3")
NOD = corpus.load(next(r for r in corpus.recordings() if r.kind == "one_word" and r.seconds > 0.6))


async def enrol(silero: Silero, campplus: CamPlusPlus, audio: Samples) -> Voice:
    return await learnt(campplus, await spoken(silero, audio), Speakers(), Job())


async def test_readers_are_known_by_what_they_read_before(silero: Silero, campplus: CamPlusPlus) -> None:
    me, other = await enrol(silero, campplus, AUSTEN), await enrol(silero, campplus, CITIES)
    assert 6 < me.seconds < len(AUSTEN) / SAMPLE_RATE
    speakers = Speakers()
    speakers.enrol("me", "Me", [me.vector])
    speakers.enrol("other", "Other", [other.vector])
    for name, who in (("austen-870", "me"), ("cities-8", "other")):
        audio = read(name)
        found = speakers.identify(await campplus.embed(audio, Job()), len(audio) / SAMPLE_RATE)
        assert found is not None and found.id == who
    stranger = await campplus.embed(read("call-4", "call-2"), Job())
    assert speakers.identify(stranger, 9.0) is None
    both = together(me, await enrol(silero, campplus, read("austen-870")))
    assert both.seconds > me.seconds and float(both.vector @ me.vector) > 0.8


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (np.zeros(8 * SAMPLE_RATE, np.float32), "0.0 s of speech"),
        (read("cities-1")[: 2 * SAMPLE_RATE], "s of speech"),
        (np.random.default_rng(1).normal(0, 0.05, 8 * SAMPLE_RATE).astype(np.float32), "s of speech"),
        (np.clip(CITIES * 40, -1, 1), "overdriven"),
        (CITIES * np.float32(10 ** (-50 / 20)), "soft|of speech"),
        (np.concatenate([AUSTEN, CITIES]), "more than one"),
    ],
)
async def test_what_will_not_do_says_why(
    silero: Silero, campplus: CamPlusPlus, audio: Samples, reason: str
) -> None:
    with pytest.raises(BadAudio, match=reason) as failed:
        await enrol(silero, campplus, audio)
    assert failed.value.field == "file"


async def test_nods_and_two_at_once_are_nobody_new(campplus: CamPlusPlus) -> None:
    async def voices() -> CamPlusPlus:
        return campplus

    speakers = Speakers()
    who = Who(voices, speakers, "test")
    one, two = read("austen-920"), read("cities-8")[: len(read("austen-920"))]
    first, second = (await who.label(one)).label, (await who.label(two)).label
    assert [first, second] == ["SPEAKER_00", "SPEAKER_01"]
    random = np.random.default_rng(3)
    for n in range(8):
        at = int(random.integers(0, SAMPLE_RATE))
        length = int(random.uniform(1.6, 3) * SAMPLE_RATE)
        level = np.float32(random.uniform(0.5, 2))
        await who.label(one[at : at + length] + level * two[at : at + length])
        await who.label(NOD)
        await who.label(
            read("cities-3", "austen-930")[n * 4000 :][: int(random.uniform(0.5, 1) * SAMPLE_RATE)]
        )
    assert speakers.labels == [0, 1]
    assert (await who.label(read("cities-4"))).label == second
    assert (await who.label(read("austen-870"))).label == first


async def test_people_are_looked_up_once_and_named_in_hindsight(
    silero: Silero, campplus: CamPlusPlus
) -> None:
    asked: list[str] = []
    vector = (await enrol(silero, campplus, CITIES)).vector

    async def voices() -> CamPlusPlus:
        return campplus

    async def known(engine: object) -> list[Person]:
        asked.append("people")
        return [Person("ada", "Ada", vector)]

    changes: list[Change] = []
    who = Who(voices, Speakers(), "test", known)
    who.on_change = changes.append
    assert (await who.label(read("cities-4"))).person is None, "four seconds are too little"
    assert (await who.label(read("cities-5"))).person == Named("ada", "Ada")
    assert (await who.label(read("austen-870"))).person is None
    assert changes == [Change(named=((0, None, Named("ada", "Ada")),))]
    # What another process goes on with has the same labels, and says nothing anew.
    there = Who(voices, Speakers(), "test", known)
    there.on_change = changes.append
    there.restore(who.state())
    told = await there.label(read("cities-7"))
    assert (told.label, told.person) == ("SPEAKER_00", Named("ada", "Ada"))
    assert len(changes) == 1 and asked == ["people"] * 2
    there.forget("ada")
    assert changes[1:] == [Change(named=((0, Named("ada", "Ada"), None),))]
