"""The recordings as values, and their sound."""

from __future__ import annotations

import json
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from corpus.catalogue import Kind
from corpus.fetch import INDEX, fetch

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """Who speaks from `start` to `end`, in seconds of the recording; turns may overlap."""

    speaker: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Recording:
    """A WAV file (PCM16 mono at `sample_rate` Hz, `seconds` long) of somebody saying `text`.

    `text` is empty for a dialogue, which has `turns` instead. `speaker` is the same for
    recordings of one person, and empty where that is not known.
    """

    id: str
    path: Path
    text: str
    seconds: float
    sample_rate: int
    kind: Kind
    speaker: str
    licence: str
    source: str
    turn: bool
    turns: tuple[SpeakerTurn, ...]


@cache
def _all() -> tuple[Recording, ...]:
    place = fetch()
    entries = json.loads((place / INDEX).read_text())["recordings"]
    return tuple(
        Recording(
            path=place / entry.pop("file"),
            turns=tuple(SpeakerTurn(*turn) for turn in entry.pop("turns")),
            **entry,
        )
        for entry in entries
    )


def recordings(kind: Kind | None = None) -> list[Recording]:
    """All recordings, or those of one kind, in a fixed order; fetched first where they are not
    here yet."""
    return [recording for recording in _all() if kind in (None, recording.kind)]


def questions() -> list[Recording]:
    """About twenty recordings that can stand for a person's turn in a spoken conversation: a whole
    sentence of 1.5–8 s each, some with a pause inside."""
    return [recording for recording in _all() if recording.turn]


def load(recording: Recording) -> npt.NDArray[np.float32]:
    """The sound of a recording: `float32[n]`, mono, 16 kHz, [-1, 1]."""
    with wave.open(str(recording.path), "rb") as file:
        frames = file.readframes(file.getnframes())
    samples = np.frombuffer(frames, "<i2").astype(np.float32) / np.float32(32768)
    if recording.sample_rate == SAMPLE_RATE:
        return samples
    resampled: npt.NDArray[np.float32] = soxr.resample(samples, recording.sample_rate, SAMPLE_RATE)
    return resampled.clip(-1, 1)
