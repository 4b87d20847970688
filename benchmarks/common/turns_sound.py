"""Sounds put together from recordings: room tone, pauses, levels, coughs, typing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import soxr

from app.roles import SAMPLE_RATE, Samples, Word
from app.talk.recording import Recording

_TONE_WINDOW = 512
_FADE = SAMPLE_RATE // 200
_QUIETEST_TONE = 10 ** (-75 / 20)
_SEARCH = int(0.12 * SAMPLE_RATE)
_SPOT = SAMPLE_RATE // 50


def seconds(length: float) -> int:
    """Samples in `length` seconds."""
    return round(length * SAMPLE_RATE)


def speech_span(sound: Samples) -> tuple[int, int]:
    """The first and the last sample of speech, by level (`app.talk.recording`)."""
    last = Recording(sound).last_speech()
    back = Recording(sound[::-1].copy()).last_speech()
    if last is None or back is None:
        raise ValueError("there is no speech in this sound")
    return len(sound) - 1 - back, last


def room_tone(like: Samples, length: float, seed: int = 0) -> Samples:
    """`length` seconds of noise with the spectrum and level of the quietest twentieth of `like`,
    -75 dBFS at least: a pause in a real recording is not digital silence."""
    count = seconds(length)
    random = np.random.default_rng(seed)
    blocks = like[: len(like) // _TONE_WINDOW * _TONE_WINDOW].reshape(-1, _TONE_WINDOW)
    quiet = blocks[np.argsort(np.square(blocks).mean(axis=1))[: max(1, len(blocks) // 20)]]
    shape = np.sqrt(np.square(np.abs(np.fft.rfft(quiet * np.hanning(_TONE_WINDOW), axis=1))).mean(axis=0))
    spectrum = np.fft.rfft(random.standard_normal(count))
    at = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(
        spectrum * np.interp(at, np.fft.rfftfreq(_TONE_WINDOW, 1 / SAMPLE_RATE), shape), count
    )
    level = max(float(np.sqrt(np.square(quiet).mean())), _QUIETEST_TONE)
    tone: Samples = (noise * level / (np.sqrt(np.square(noise).mean()) + 1e-12)).astype(np.float32)
    return tone


def joined(parts: Iterable[Samples]) -> Samples:
    """One after the other, each edge faded over 5 ms so that nothing clicks."""
    faded = []
    for part in parts:
        part = part.copy()
        fade = min(_FADE, len(part) // 2)
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        part[:fade] *= ramp
        part[len(part) - fade :] *= ramp[::-1]
        faded.append(part)
    return np.concatenate(faded)


def with_pause(sound: Samples, at: int, length: float, seed: int = 0) -> Samples:
    """`sound` with `length` seconds of its own room tone put in at sample `at`."""
    return joined([sound[:at], room_tone(sound, length, seed), sound[at:]])


def boundary(sound: Samples, words: Sequence[Word]) -> int | None:
    """The quietest spot near a word boundary in the middle of a sentence: at least two words before
    and after it, and no punctuation there. None if there is no such boundary."""
    middle = len(sound) / SAMPLE_RATE / 2
    inner = [
        (before.end + after.start) / 2
        for before, after in pairwise(words[1:-1])
        if before.text[-1:].isalnum()
    ]
    if not inner:
        return None
    near = seconds(min(inner, key=lambda at: abs(at - middle)))
    begin = max(0, near - _SEARCH)
    window = np.square(sound[begin : near + _SEARCH], dtype=np.float64)
    power = np.convolve(window, np.ones(_SPOT), "valid")
    return begin + int(power.argmin()) + _SPOT // 2


def at_level(sound: Samples, dbfs: float) -> Samples:
    """`sound` with its speech (or all of it, if it has none) at `dbfs`."""
    try:
        first, last = speech_span(sound)
    except ValueError:
        first, last = 0, len(sound) - 1
    rms = float(np.sqrt(np.square(sound[first : last + 1], dtype=np.float64).mean()))
    scaled: Samples = (sound * (10 ** (dbfs / 20) / max(rms, 1e-9))).clip(-1, 1).astype(np.float32)
    return scaled


def another_person(sound: Samples, pitch: float, rate: int) -> Samples:
    """A voice at `rate` Hz as if of somebody `pitch` times as high, at 16 kHz."""
    other: Samples = soxr.resample(sound, rate * pitch, SAMPLE_RATE).clip(-1, 1).astype(np.float32)
    return other


def cough(seed: int) -> Samples:
    """Two bursts of noise as a cough has them: a sharp onset, most energy at 0.4-4 kHz, 0.15-0.3 s each,
    the second weaker and partly voiced. Made by arithmetic; no recorded one was found in a package."""
    random = np.random.default_rng(seed)
    parts = []
    for loud, voiced in ((1.0, 0.0), (0.5, 0.4)):
        count = seconds(random.uniform(0.15, 0.3))
        time = np.arange(count) / SAMPLE_RATE
        envelope = np.minimum(time / 0.008, 1) * np.exp(-time / 0.07)
        buzz = np.sign(np.sin(2 * np.pi * random.uniform(90, 160) * time)) * voiced
        parts += [
            _band(random.standard_normal(count) + buzz, 400, 4000) * envelope * loud,
            np.zeros(seconds(0.06)),
        ]
    return at_level(np.concatenate(parts).astype(np.float32), -24)


def throat(seed: int) -> Samples:
    """Clearing one's throat: rough voiced noise that comes and goes 25 times a second. Made by
    arithmetic."""
    random = np.random.default_rng(seed)
    count = seconds(random.uniform(0.5, 0.7))
    time = np.arange(count) / SAMPLE_RATE
    rough = 0.6 + 0.4 * np.sin(2 * np.pi * 25 * time)
    buzz = np.sign(np.sin(2 * np.pi * random.uniform(80, 110) * time + random.standard_normal(count) * 0.2))
    sound = _band(buzz + random.standard_normal(count), 150, 2500) * rough * np.hanning(count) ** 0.5
    return at_level(sound.astype(np.float32), -26)


def _band(sound: np.ndarray[tuple[int], np.dtype[np.float64]], low: float, high: float) -> Samples:
    spectrum = np.fft.rfft(sound)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE), 1))
    outside = np.maximum(np.log2(low) - octaves, octaves - np.log2(high)).clip(0)
    passed: Samples = np.fft.irfft(spectrum * 10 ** (-18 * outside / 20), len(sound)).astype(np.float32)
    return passed


def typing(keys: Sequence[Samples], length: float, seed: int) -> Samples:
    """Recorded keys, struck at uneven distances of 90-280 ms for `length` seconds."""
    random = np.random.default_rng(seed)
    sound = np.zeros(seconds(length), np.float32)
    at = 0
    while at < len(sound):
        key = keys[int(random.integers(len(keys)))][: len(sound) - at]
        sound[at : at + len(key)] += key * np.float32(random.uniform(0.6, 1))
        at += seconds(random.uniform(0.09, 0.28))
    return sound
