"""Several people in one utterance: whose words are whose, on real voices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.dialogue.speakers import Speakers
from app.dialogue.who import Who
from app.engines.campplus import CamPlusPlus
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, NotFound, SpeakerEmbedding, Word
from corpus import load, recordings


def heard(seconds: float, count: int) -> tuple[Word, ...]:
    """`count` words, evenly over so many seconds."""
    each = seconds / count
    return tuple(Word(str(i), i * each, (i + 1) * each, 0.9) for i in range(count))


def reader(name: str, seconds: float) -> np.ndarray:
    sound = load(next(r for r in recordings() if r.id == name))
    return sound[: int(seconds * SAMPLE_RATE)]


async def test_who_takes_over_without_a_pause_gets_their_words(
    model_dir: Callable[[str], Path], workers: Workers
) -> None:
    engine = CamPlusPlus(model_dir("campplus-zh-en"), workers)

    async def voices() -> SpeakerEmbedding:
        return engine

    who = Who(voices, Speakers(), "somebody")
    one, other = reader("austen-870", 5.0), reader("prompt-dir-intro", 5.0)
    alone = await who.parts(one, heard(5.0, 10))
    assert [(p.first, p.speaker) for p in alone] == [(0, "SPEAKER_00")]
    both = await who.parts(np.concatenate([one, other]), heard(10.0, 20))
    assert [p.speaker for p in both] == ["SPEAKER_00", "SPEAKER_01"]
    assert both[0].first == 0 and 8 <= both[1].first <= 12
    silent = await who.parts(np.concatenate([one, other]), ())
    assert len(silent) == 1


async def test_without_a_model_all_is_one_persons() -> None:
    async def voices() -> SpeakerEmbedding:
        raise NotFound("this server has no speaker model")

    parts = await Who(voices, Speakers(), "somebody").parts(np.zeros(64000, np.float32), heard(4.0, 8))
    assert [(p.first, p.speaker) for p in parts] == [(0, "SPEAKER_00")]
