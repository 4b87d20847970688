from __future__ import annotations

import numpy as np
import pytest

from corpus import noise
from corpus.noise import NOISE_KINDS


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_length_level_and_repeatability(kind: str) -> None:
    assert kind in NOISE_KINDS
    sound = noise(kind, 2.5, level=-30)
    assert sound.dtype == np.float32 and len(sound) == 40_000
    assert np.array_equal(sound, noise(kind, 2.5, level=-30))
    rms = np.sqrt(np.mean(sound.astype(np.float64) ** 2))
    assert rms == (0 if kind == "silence" else pytest.approx(10 ** (-30 / 20), rel=0.02))
    assert len(noise(kind, 0)) == 0


def power(sound: np.ndarray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / 16_000)
    return float(spectrum[(frequency >= low) & (frequency < high)].sum())


def test_colours() -> None:
    white, pink, hum = (noise(kind, 10) for kind in ("white", "pink", "hum"))
    assert power(white, 4000, 8000) / power(white, 250, 500) == pytest.approx(16, rel=0.15)
    assert power(pink, 4000, 8000) / power(pink, 250, 500) == pytest.approx(4 * 0.25, rel=0.15)
    assert power(hum, 45, 260) / power(hum, 0, 8001) > 0.99


def test_clicks_are_short_and_apart() -> None:
    sound = np.abs(noise("clicks", 10))
    frames = sound.reshape(-1, 160).max(axis=1)
    loud = frames > 0.2 * frames.max()
    onsets = np.count_nonzero(loud[1:] & ~loud[:-1])
    assert 30 <= onsets <= 120
    assert loud.mean() < 0.3
