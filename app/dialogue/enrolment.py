"""Learns a person's voice from a recording, and says what is wrong with one that will not do."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from app.dialogue.diarize import speech
from app.dialogue.speakers import SHORT_S, Speakers
from app.roles import SAMPLE_RATE, BadAudio, Job, Samples, SpeakerEmbedding, Vad, Vector

LEAST_SPEECH_S = 3.0
_PIECE_S = 4.0
_SOFT_DB = -55.0
"""Speech that is softer, as a root mean square of full scale, is lost in the noise of its coding."""
_CLIPPED = 0.02
"""Share of the speech that may be at its loudest value: more was cut off, and voices sound alike then."""
_OTHERS = 0.25
_OTHERS_S = 2.0
"""What may be of other voices, as a share and in seconds; a piece of one's own may be unlike the rest."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Where a voice lies, and of how much speech that is known."""

    vector: Vector
    seconds: float


async def spoken(vad: Vad, audio: Samples, name: str = "file") -> list[Samples]:
    """The stretches of speech in `audio` (float32[n], 16 kHz), if it is a recording that a voice can be
    learnt from as far as one can tell without knowing voices. Raises `BadAudio`; `name` is the field."""
    async with aclosing(speech(vad, _blocks(audio))) as spans:
        found = [audio[round(s.start * SAMPLE_RATE) : round(s.end * SAMPLE_RATE)] async for s in spans]
    seconds = sum(map(len, found)) / SAMPLE_RATE
    if seconds < LEAST_SPEECH_S:
        raise BadAudio(
            f"`{name}` has {seconds:.1f} s of speech, and a voice is learnt from at least "
            f"{LEAST_SPEECH_S:g} s: record again, and speak all the time",
            field=name,
        )
    said = np.concatenate(found)
    level = 10 * np.log10(float(np.mean(np.square(said, dtype=np.float64))) + 1e-12)
    if level < _SOFT_DB:
        raise BadAudio(
            f"`{name}` is too soft ({level:.0f} dB of full scale): speak closer to the microphone",
            field=name,
        )
    peak = float(np.abs(said).max())
    clipped = float(np.mean(np.abs(said) > 0.999 * peak))
    if peak > 0.5 and clipped > _CLIPPED:
        raise BadAudio(
            f"`{name}` is overdriven, {clipped:.0%} of the speech is cut off: record again, less loud",
            field=name,
        )
    return found


async def learnt(
    voices: SpeakerEmbedding, stretches: list[Samples], speakers: Speakers, job: Job, name: str = "file"
) -> Voice:
    """The voice of the one person who speaks in `stretches`; `speakers` is new, and spoilt afterwards.
    Raises `BadAudio` if somebody else speaks as well."""
    told: list[tuple[int, Vector, float]] = []
    for piece in _pieces(stretches):
        vector, seconds = await voices.embed(piece, job), len(piece) / SAMPLE_RATE
        said = speakers.assign(vector, seconds)
        merged = dict(said.merged)
        told = [(merged.get(label, label), v, s) for label, v, s in told]
        told.append((said.speaker, vector, seconds))
    by: dict[int, float] = {}
    for label, _, seconds in told:
        by[label] = by.get(label, 0.0) + seconds
    owner = max(by, key=lambda label: by[label])
    total = sum(by.values())
    others = total - by[owner]
    if others > max(_OTHERS_S, _OTHERS * total):
        raise BadAudio(
            f"in `{name}` more than one person speaks: record again with one voice only", field=name
        )
    own = [(v, s) for label, v, s in told if label == owner]
    return Voice(_unit(np.sum([v * np.float32(s) for v, s in own], axis=0, dtype=np.float32)), by[owner])


def together(one: Voice, other: Voice, most_s: float = 60.0) -> Voice:
    """What is known of a voice from both. `one` counts for no more than `most_s`, so that a voice that
    changes is followed."""
    weight = min(one.seconds, most_s)
    vector = one.vector * np.float32(weight) + other.vector * np.float32(other.seconds)
    return Voice(_unit(vector), weight + other.seconds)


def _unit(vector: Vector) -> Vector:
    unit: Vector = vector / np.float32(np.linalg.norm(vector))
    return unit


def _pieces(stretches: list[Samples]) -> list[Samples]:
    """Pieces of a few seconds; what is too short to tell a voice from is put together."""
    pieces: list[Samples] = []
    waiting: list[Samples] = []
    for stretch in stretches:
        waiting.append(stretch)
        if sum(map(len, waiting)) >= SHORT_S * SAMPLE_RATE:
            whole, waiting = np.concatenate(waiting), []
            pieces += np.array_split(whole, max(1, round(len(whole) / (_PIECE_S * SAMPLE_RATE))))
    if waiting and pieces:
        pieces[-1] = np.concatenate([pieces[-1], *waiting])
    return pieces or waiting


async def _blocks(audio: Samples) -> AsyncGenerator[Samples, None]:
    for at in range(0, len(audio), SAMPLE_RATE):
        yield audio[at : at + SAMPLE_RATE]
