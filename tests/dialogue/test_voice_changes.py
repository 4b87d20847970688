"""An utterance of several people is cut where the voice changes, one person's is left whole."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from voices import person

import corpus
from app.dialogue.voice_changes import PART_S, voice_changes
from app.engines.campplus import CamPlusPlus
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, EngineInfo, Job, Samples, Vector


class ByLevel:
    """Hears whose voice it is by how loud it is: 0.1 is person 1, 0.2 person 2."""

    info = EngineInfo("speaker", "level")
    dimensions = len(person(0))

    def __init__(self) -> None:
        self.passes = 0

    async def embed(self, audio: Samples, job: Job) -> Vector:
        self.passes += 1
        shares = [float(np.mean(np.isclose(audio, 0.1 * n))) for n in range(1, 4)]
        voice = np.sum([share * person(n) for n, share in enumerate(shares, 1)], axis=0)
        return (voice / np.linalg.norm(voice)).astype(np.float32)

    async def close(self) -> None: ...


def said(*parts: tuple[int, float]) -> Samples:
    """Who, and for how many seconds."""
    return np.concatenate([np.full(round(s * SAMPLE_RATE), 0.1 * who, np.float32) for who, s in parts])


@pytest.mark.parametrize(
    "parts", [[(1, 4.0), (2, 3.0)], [(1, 3.0), (2, 3.0), (1, 3.0)], [(3, 6.0), (1, 2.5), (2, 5.0), (3, 4.0)]]
)
async def test_it_is_cut_where_somebody_else_goes_on(parts: list[tuple[int, float]]) -> None:
    cuts = await voice_changes(ByLevel(), said(*parts), Job())
    edges = np.cumsum([seconds for _, seconds in parts])[:-1]
    assert len(cuts) == len(edges)
    assert np.abs(np.array(cuts) / SAMPLE_RATE - edges).max() <= 0.5


@pytest.mark.parametrize("parts", [[(1, 20.0)], [(1, 1.5), (2, 1.0)], [(1, 8.0), (2, 0.4), (1, 8.0)]])
async def test_what_is_one_persons_or_too_short_is_left_whole(parts: list[tuple[int, float]]) -> None:
    assert await voice_changes(ByLevel(), said(*parts), Job()) == []


async def test_what_it_costs_grows_with_the_length_only() -> None:
    engine = ByLevel()
    await voice_changes(engine, said((1, 2 * PART_S - 0.1)), Job())
    assert engine.passes == 0
    await voice_changes(engine, said((1, 20.0)), Job())
    assert engine.passes == 37


async def test_readers_without_a_pause_between_them(model_dir) -> None:  # type: ignore[no-untyped-def]
    by: dict[str, list[Samples]] = defaultdict(list)
    for recording in corpus.recordings("reading"):
        by[recording.speaker].append(corpus.load(recording))
    one, other = (np.concatenate(parts)[: 5 * SAMPLE_RATE] for parts in list(by.values())[:2])
    workers = Workers(1)
    try:
        engine = CamPlusPlus(model_dir("campplus-zh-en"), workers)
        assert await voice_changes(engine, one, Job()) == []
        cuts = await voice_changes(engine, np.concatenate([one, other]), Job())
        assert 1 <= len(cuts) <= 2 and min(abs(cut / SAMPLE_RATE - 5) for cut in cuts) <= 0.8
    finally:
        workers.close()
