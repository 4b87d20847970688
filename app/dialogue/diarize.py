"""Who speaks when in a recording of any length.

Speech is found first. Then a window of `WINDOW_S` slides over each stretch of it, and the voice in each
window is given to a speaker as in a live conversation (`speakers.Speakers`). At the end, when all voices are
known well, every step of `_STEP_S` goes to the speaker that the windows over it are nearest to. One person
speaks at a time: where two do, it is the plainer one.

Of sound, no more than a stretch is kept, and 0.4 kB for each step of speech.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from app.audio.buffer import AudioBuffer
from app.dialogue.config import TurnConfig
from app.dialogue.endpointing import FRAME, Signal, TurnDetector
from app.dialogue.speakers import Speakers, label_name
from app.roles import (
    SAMPLE_RATE,
    Busy,
    Job,
    Samples,
    Span,
    SpeakerEmbedding,
    SpeakerSpan,
    Urgency,
    Vad,
    Vector,
)

_PAUSE_MS = 300.0
"""Silence that ends a stretch of speech."""
_START_MS = 96.0
_LONGEST_S = 20.0
"""A stretch is cut here: only its sound is kept meanwhile."""
WINDOW_S = 2.0
_STEP_S = 0.5
_LEAST_S = 2.0
"""Somebody who says less than that in all was somebody else, or two at once."""
_GAP_S = 0.5
"""A shorter pause of one speaker is within what they say."""


async def speech(vad: Vad, sound: AsyncIterator[Samples]) -> AsyncGenerator[Span, None]:
    """Where somebody speaks in a recording (float32 blocks, 16 kHz), in order."""
    async with aclosing(_stretches(vad, sound, None)) as stretches:
        async for start, end, _ in stretches:
            yield Span(start / SAMPLE_RATE, end / SAMPLE_RATE)


async def diarize(
    vad: Vad, voices: SpeakerEmbedding, sound: AsyncIterator[Samples], speakers: Speakers, owner: str
) -> list[SpeakerSpan]:
    """Who speaks when in a recording (float32 blocks, 16 kHz), in order of time; speakers are numbered in
    order of appearance. `speakers` is new, and spoilt afterwards."""
    windows: list[_Window] = []
    stretches: list[tuple[float, float]] = []
    job = Job(owner, Urgency.BACKGROUND)
    async with aclosing(_stretches(vad, sound, round(_LONGEST_S * SAMPLE_RATE))) as found:
        async for first, last, audio in found:
            start, end = first / SAMPLE_RATE, last / SAMPLE_RATE
            stretches.append((start, end))
            for at, piece in windows_of(audio):
                voice = await embedded(voices, piece, job)
                seconds = len(piece) / SAMPLE_RATE
                speakers.assign(voice, min(seconds, WINDOW_S))
                windows.append(_Window(start + at, start + at + seconds, voice.astype(np.float16)))
    return _told(stretches, windows, speakers)


@dataclass(frozen=True, slots=True)
class _Window:
    start: float
    end: float
    voice: npt.NDArray[np.float16]


async def embedded(voices: SpeakerEmbedding, audio: Samples, job: Job) -> Vector:
    """The voice in `audio`, once there is room for the work."""
    while True:
        try:
            return await voices.embed(audio, job)
        except Busy as busy:
            await asyncio.sleep(busy.retry_after)


def windows_of(audio: Samples) -> list[tuple[float, Samples]]:
    """Where each window begins, in seconds, and its sound. The last ends where the stretch ends; a stretch
    that is too short for one is one, if a voice can be told from it."""
    window, step = round(WINDOW_S * SAMPLE_RATE), round(_STEP_S * SAMPLE_RATE)
    if len(audio) < step:
        return []
    starts = list(range(0, max(1, len(audio) - window + 1), step))
    if starts[-1] + window < len(audio):
        starts.append(len(audio) - window)
    return [(at / SAMPLE_RATE, audio[at : at + window]) for at in starts]


def _told(
    stretches: list[tuple[float, float]], windows: list[_Window], speakers: Speakers
) -> list[SpeakerSpan]:
    if not windows:
        # Somebody spoke, too little to tell who.
        return [SpeakerSpan(start, end, label_name(0)) for start, end in stretches]
    known = [voice for label in speakers.labels if (found := speakers.voice(label)) for voice in found[:1]]
    likeness = np.array([w.voice for w in windows], np.float32) @ np.array(known).T
    cells = _cells(stretches, windows, likeness)
    for _ in range(len(known) - 1):
        seconds = np.bincount([c[2] for c in cells], [c[1] - c[0] for c in cells], minlength=len(known))
        present = np.nonzero(seconds)[0]
        least = present[seconds[present].argmin()]
        if seconds[least] >= _LEAST_S or len(present) == 1:
            break
        likeness[:, least] = -2.0
        cells = _cells(stretches, windows, likeness)
    return _joined(cells)


def _cells(
    stretches: list[tuple[float, float]], windows: list[_Window], likeness: Samples
) -> list[tuple[float, float, int]]:
    """Steps of speech and whose they are: (start, end, number of the speaker)."""
    cells: list[tuple[float, float, int]] = []
    at, last = 0, int(likeness[0].argmax())
    for start, end in stretches:
        count = max(1, round((end - start) / _STEP_S))
        edges = np.linspace(start, end, count + 1)
        while at < len(windows) and windows[at].end <= start:
            at += 1
        for left, right in pairwise(edges):
            middle = (left + right) / 2
            over = [
                # What is in the middle of a window weighs most.
                (1.05 - abs(2 * middle - w.start - w.end) / (w.end - w.start)) * likeness[i]
                for i, w in _from(windows, at, end)
                if w.start <= middle < w.end
            ]
            if over:
                last = int(np.sum(over, axis=0).argmax())
            cells.append((float(left), float(right), last))
    return cells


def _from(windows: list[_Window], at: int, end: float) -> list[tuple[int, _Window]]:
    found = []
    while at < len(windows) and windows[at].start < end:
        found.append((at, windows[at]))
        at += 1
    return found


def _joined(cells: list[tuple[float, float, int]]) -> list[SpeakerSpan]:
    numbers: dict[int, int] = {}
    spans: list[SpeakerSpan] = []
    for start, end, speaker in cells:
        label = label_name(numbers.setdefault(speaker, len(numbers)))
        if spans and spans[-1].speaker == label and start - spans[-1].end < _GAP_S:
            spans[-1] = SpeakerSpan(spans[-1].start, end, label)
        else:
            spans.append(SpeakerSpan(start, end, label))
    return spans


async def _stretches(
    vad: Vad, sound: AsyncIterator[Samples], longest: int | None
) -> AsyncGenerator[tuple[int, int, Samples], None]:
    """Stretches of speech: first sample, sample after the last, and the sound if `longest` bounds it."""
    stream = vad.stream()
    detector = TurnDetector(TurnConfig(start_ms=_START_MS), end_wait=lambda: _PAUSE_MS)
    audio = AudioBuffer()
    begin = 0

    def stretch(end: int) -> tuple[int, int, Samples]:
        held = audio.view(begin, end).copy() if longest else np.zeros(0, np.float32)
        return begin, end, held

    async for block in sound:
        audio.append(block)
        while audio.end - detector.position >= FRAME:
            at = detector.position
            signal = detector.feed(await stream.probability(audio.view(at, at + FRAME)))
            if signal is Signal.STARTED:
                begin = detector.started_at
            elif signal is Signal.ENDED:
                yield stretch(detector.ended_at)
            elif detector.speaking and longest and detector.position - begin >= longest:
                yield stretch(detector.position)
                begin = detector.position
            keep = begin if detector.speaking and longest else detector.calm_to
            audio.drop_before(min(keep, detector.position))
    if detector.speaking and detector.ended_at > begin:
        yield stretch(detector.ended_at)
