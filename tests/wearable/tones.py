"""A language of chords: words that no codec spoils, each said once, and engines that know it.

A word is three tones at once, one of each band, and a fourth that says whose voice it is. So what is heard
can be compared with what was said word for word: an hour of it costs seconds, and says exactly what is lost,
doubled or out of order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dialogue.scripted import LoudVad, ScriptedLlm, ToneTts
from dialogue.voices import DIMENSIONS, person

from app.roles import (
    SAMPLE_RATE,
    BadAudio,
    EngineInfo,
    Job,
    Samples,
    SttOptions,
    Transcript,
    Urgency,
    Vector,
    Word,
)

WORD_S = 0.4
_TONE = int(0.36 * SAMPLE_RATE)
_EACH = 24
_BANDS = tuple(low + 40.0 * np.arange(_EACH) for low in (400.0, 1440.0, 2480.0))
_VOICES = 4200.0 + 200.0 * np.arange(8)
WORDS = _EACH**3
_LEVEL = 0.15
_HOP = 160
_LOUD = 0.04
_LEAST = int(0.2 * SAMPLE_RATE)
_WINDOW = 1600
_RISE = 320
_TEXT = re.compile(r"w(\d{5})")


@dataclass(frozen=True, slots=True)
class Said:
    """The word of this number, by that voice, from `start` on, in seconds."""

    number: int
    voice: int
    start: float


def word(number: int, voice: int) -> Samples:
    """How it sounds: `float32[WORD_S * 16000]`, a little silence last."""
    t = np.arange(_TONE) / SAMPLE_RATE
    tones = [*(band[number // _EACH**place % _EACH] for place, band in enumerate(_BANDS)), _VOICES[voice]]
    chord = sum((np.sin(2 * np.pi * hz * t + place) for place, hz in enumerate(tones)), np.zeros(_TONE))
    edge = np.minimum(1, np.minimum(np.arange(_TONE), np.arange(_TONE)[::-1]) / 80)
    sound = np.zeros(int(WORD_S * SAMPLE_RATE), np.float32)
    sound[:_TONE] = _LEVEL * chord * edge
    return sound


def talk(seed: int, seconds: float, voices: int = 4, first: int = 0) -> tuple[Samples, list[Said]]:
    """People take turns for `seconds`; the words are numbered from `first` on. Who speaks may go on after a
    breath; before another does, and at the end, nobody does for more than a second. Some turns are long."""
    random = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    said: list[Said] = []
    at, voice, number = 0.5, 0, first
    while True:
        for _ in range(int(random.choice([2, 5, 9, 14, 70], p=[0.2, 0.3, 0.3, 0.19, 0.01]))):
            if at + WORD_S + 2 > seconds:
                return sound, said
            begin = round(at * SAMPLE_RATE)
            spoken = word(number, voice)
            sound[begin : begin + len(spoken)] = spoken
            said.append(Said(number, voice, at))
            number, at = number + 1, at + WORD_S
        if random.random() < 0.2:
            at += float(random.uniform(0.3, 0.5))
        else:
            voice, at = int(random.integers(voices)), at + float(random.uniform(1.2, 4.0))


def phrases(first: int, counts: Sequence[int], pause_s: float = 2.0, voice: int = 0) -> Samples:
    """So many words in a row each, numbered from `first` on, with a pause after each but the last."""
    sound: list[Samples] = [np.zeros(SAMPLE_RATE // 2, np.float32)]
    for index, count in enumerate(counts):
        sound += [word(first + sum(counts[:index]) + n, voice) for n in range(count)]
        sound.append(np.zeros(int(pause_s * SAMPLE_RATE) if index + 1 < len(counts) else 0, np.float32))
    return np.concatenate(sound)


def numbers(text: str) -> list[int]:
    """The words of a transcript."""
    return [int(found) for found in _TEXT.findall(text)]


def runs(audio: Samples) -> Iterator[tuple[int, int]]:
    """Where it is loud for as long as most of a word lasts."""
    hops = audio[: len(audio) // _HOP * _HOP].reshape(-1, _HOP)
    loud = np.abs(hops).max(axis=1, initial=0) > _LOUD
    # A packet that is lost or spoilt makes no two words of one.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(np.int8)))
    for begin, end in zip(edges[::2] * _HOP, edges[1::2] * _HOP, strict=True):
        if end - begin >= _LEAST:
            yield int(begin), int(end)


def heard(audio: Samples) -> list[tuple[int, int, int, int]]:
    """The words in `audio`: number, voice, and from which sample to which. Those that are spoilt are left
    out: what is heard at their begin and at their end is not the same."""
    found = []
    for begin, end in runs(audio):
        tones = _tones(audio[begin + _RISE :][:_WINDOW])
        if tones == _tones(audio[end - _RISE - _WINDOW : end - _RISE]):
            number = sum(digit * _EACH**place for place, digit in enumerate(tones[:3]))
            found.append((number, tones[3], begin, end))
    return found


def _tones(sound: Samples) -> list[int]:
    spectrum = np.abs(np.fft.rfft(sound * _WINDOWED, _FFT))
    return [int(np.argmax(spectrum[bins])) for bins in _BINS]


_FFT = 4096
_WINDOWED = np.hanning(_WINDOW).astype(np.float32)
_BINS = [np.round(band * _FFT / SAMPLE_RATE).astype(int) for band in (*_BANDS, _VOICES)]


class ChordStt:
    """Hears the words. What is not final takes it `pause_s`, as it takes a real one some time: an hour within
    seconds would else be nothing but partials."""

    info = EngineInfo("stt", "chords")

    def __init__(self, pause_s: float = 0.05) -> None:
        self.pause_s = pause_s

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        if job.urgency is Urgency.PARTIAL:
            await asyncio.sleep(self.pause_s)
        words = tuple(
            Word(f"w{number:05d}", begin / SAMPLE_RATE, end / SAMPLE_RATE, 0.9)
            for number, _, begin, end in heard(audio)
        )
        return Transcript(" ".join(w.text for w in words), words=words, confidence=0.9)

    async def close(self) -> None:
        pass


class ChordVoices:
    """Knows the voices."""

    info = EngineInfo("speaker", "chords")
    dimensions = DIMENSIONS

    async def embed(self, audio: Samples, job: Job) -> Vector:
        voices: Sequence[int] = [voice for _, voice, _, _ in heard(audio)]
        if not voices:
            raise BadAudio("nobody speaks", field="audio")
        return person(max(set(voices), key=voices.count))

    async def close(self) -> None:
        pass


def chord_engines() -> dict[str, Any]:
    """For `serving.scripted`."""
    return {
        "vad": LoudVad(),
        "stt": ChordStt(),
        "speaker": ChordVoices(),
        "llm": ScriptedLlm("{}"),
        "tts": ToneTts(),
    }
