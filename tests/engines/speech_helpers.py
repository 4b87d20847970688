"""What the tests of the voices share: speaking, hearing again, counting errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import soxr

from app.engines.workers import Workers
from app.roles import (
    SAMPLE_RATE,
    AudioChunk,
    Job,
    Samples,
    SpeechOptions,
    SpeechToText,
    SttOptions,
    TextToSpeech,
    Word,
)

T = TypeVar("T")


class CountingWorkers(Workers):
    """The real pool, which also counts what it was asked to do."""

    asked = 0

    async def run(self, job: Job, fn: Any, *args: Any) -> Any:
        self.asked += 1
        return await super().run(job, fn, *args)


async def say(speaker: TextToSpeech, text: str, **options: Any) -> list[AudioChunk]:
    return [chunk async for chunk in speaker.speak(text, SpeechOptions(**options), Job("test"))]


def joined(chunks: Sequence[AudioChunk]) -> Samples:
    return np.concatenate([c.samples for c in chunks])


def timed(chunks: Sequence[AudioChunk]) -> list[Word]:
    """The words of all chunks, with times from the first sample of the first."""
    found: list[Word] = []
    begin = 0.0
    for chunk in chunks:
        found += [replace(w, start=begin + w.start, end=begin + w.end) for w in chunk.words]
        begin += chunk.duration
    return found


def until(chunks: Sequence[AudioChunk], seconds: float) -> list[AudioChunk]:
    """The first `seconds` of the sound, then half a second of silence."""
    rate = chunks[0].sample_rate
    samples = joined(chunks)[: int(seconds * rate)]
    return [AudioChunk(np.concatenate([samples, np.zeros(rate // 2, np.float32)]), rate)]


async def hear(recogniser: SpeechToText, chunks: Sequence[AudioChunk], language: str) -> str:
    audio = soxr.resample(joined(chunks), chunks[0].sample_rate, SAMPLE_RATE)
    options = SttOptions(
        language=language, prompt="以下是普通话的句子。" if language == "zh" else "", word_times=False
    )
    return (await recogniser.transcribe(audio, options, Job("test"))).text


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", "", text.lower()).split()


def characters(text: str) -> list[str]:
    return re.findall(r"[\u4e00-\u9fff]", text)


def edits(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(got) + 1))
    for i, a in enumerate(wanted, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(got, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def loudness(samples: Samples, rate: int) -> float:
    """Level in dBFS of the 20 ms frames in which somebody speaks."""
    size = rate // 50
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.mean(frames**2, axis=1)
    return float(10 * np.log10(np.mean(power[power > 0.02**2])))


def silence_around(samples: Samples, rate: int) -> tuple[float, float]:
    """Seconds before the first and after the last sample above -46 dBFS."""
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    return float(loud[0] / rate), float((len(samples) - 1 - loud[-1]) / rate)
