"""Sounds without speech, made by arithmetic: the same on every machine and in every run."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
NoiseKind = Literal["silence", "white", "pink", "hum", "clicks"]
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)


def noise(kind: NoiseKind, seconds: float, level: float = -40.0) -> npt.NDArray[np.float32]:
    """`float32[seconds * 16000]` of a sound: digital silence, white or pink noise, mains hum
    (50 Hz and overtones), or clicks as of a keyboard, about six a second. `level` is its RMS in
    dB below full scale, before clipping to [-1, 1]."""
    count = round(seconds * SAMPLE_RATE)
    random = np.random.default_rng(20)
    if kind == "silence" or count == 0:
        return np.zeros(count, np.float32)
    if kind == "white":
        sound = random.standard_normal(count)
    elif kind == "pink":
        sound = _pink(random.standard_normal(count))
    elif kind == "hum":
        time = np.arange(count) / SAMPLE_RATE
        sound = sum((np.sin(2 * np.pi * 50 * n * time) / n for n in (1, 2, 3, 5)), np.zeros(count))
    else:
        sound = _clicks(random, count)
    scale = 10 ** (level / 20) / np.sqrt(np.mean(np.square(sound)))
    limited: npt.NDArray[np.float64] = np.clip(sound * scale, -1, 1)
    return limited.astype(np.float32)


def _pink(white: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(white)
    frequency = np.maximum(np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE), 20)
    return np.fft.irfft(spectrum / np.sqrt(frequency), len(white))


def _clicks(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Short bursts of noise that die away within 8 ms, at uneven distances of 80–250 ms."""
    sound = 1e-4 * random.standard_normal(count)
    burst = np.exp(-np.arange(int(0.03 * SAMPLE_RATE)) / (0.008 * SAMPLE_RATE))
    at = 0
    while at < count:
        length = min(len(burst), count - at)
        sound[at : at + length] += random.uniform(0.5, 1) * burst[:length] * random.standard_normal(length)
        at += int(random.uniform(0.08, 0.25) * SAMPLE_RATE)
    return sound
