"""A loudspeaker and a microphone in a room, made by arithmetic: the same in every run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

SAMPLE_RATE = 16_000
_LOW, _HIGH = 300.0, 4000.0
"""What a small loudspeaker plays, in Hz."""
_DRIFT = 50e-6
"""How much faster or slower than the microphone's the loudspeaker's clock may run."""
_EARLY = 6
"""Walls and tables that are heard one by one."""


def through_room(
    samples: npt.NDArray[np.float32], seed: int, delay_s: float, level_db: float, rate: int = SAMPLE_RATE
) -> npt.NDArray[np.float32]:
    """What a microphone hears of `samples` (float32[n] at `rate` Hz) that a loudspeaker beside it
    plays: float32 at 16 kHz, `level_db` dB over the RMS of `samples`, beginning with `delay_s` of silence and
    ending with the room's echo of the last sample (up to 0.6 s).

    `seed` chooses the device and its room: a loudspeaker that passes 300-4000 Hz, distorts when
    loud and keeps its own time (within 50 ppm); a direct path, six early reflections, and echo
    that falls by 60 dB in 0.2-0.6 s."""
    random = np.random.default_rng(seed)
    clock = SAMPLE_RATE * (1 + random.uniform(-_DRIFT, _DRIFT))
    played = _loudspeaker(soxr.resample(samples, rate, clock).astype(np.float64))
    heard = _convolve(played, _response(random))
    sent, got = (
        np.sqrt(np.mean(np.square(samples, dtype=np.float64))),
        np.sqrt(np.mean(heard[: len(played)] ** 2)),
    )
    heard *= 10 ** (level_db / 20) * sent / max(got, 1e-12)
    silence = np.zeros(round(delay_s * SAMPLE_RATE))
    return np.concatenate([silence, heard]).clip(-1, 1).astype(np.float32)


def _loudspeaker(sound: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Band-pass with slopes of half an octave, then a cone that gives way at twice the usual level."""
    spectrum = np.fft.rfft(sound)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE), 1.0))
    outside = np.maximum(np.log2(_LOW) - octaves, octaves - np.log2(_HIGH)).clip(0)
    passed = np.fft.irfft(spectrum * 10 ** (-24 * outside / 20 * 2), len(sound))
    limit = 2 * np.sqrt(np.mean(passed**2)) + 1e-12
    distorted: npt.NDArray[np.float64] = limit * np.tanh(passed / limit)
    return distorted


def _response(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """The room between loudspeaker and microphone: the direct path is sample 0."""
    rt60 = random.uniform(0.2, 0.6)
    time = np.arange(round(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = random.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    tail[: round(0.005 * SAMPLE_RATE)] = 0
    response: npt.NDArray[np.float64] = random.uniform(0.3, 0.6) * tail / np.sqrt(np.sum(tail**2))
    for at in random.uniform(0.001, 0.025, _EARLY):
        response[round(at * SAMPLE_RATE)] += random.uniform(-0.5, 0.5) * 10 ** (-3 * at / rt60)
    response[0] += 1.0
    return response


def _convolve(sound: npt.NDArray[np.float64], response: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = len(sound) + len(response) - 1
    size = 1 << (length - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[:length]
