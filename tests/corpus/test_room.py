from __future__ import annotations

import numpy as np
import pytest

from corpus import load, noise, recordings
from corpus.room import SAMPLE_RATE, through_room


def delay_of(sent: np.ndarray, heard: np.ndarray) -> float:
    size = 1 << (len(sent) + len(heard)).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sent, size))
    return int(np.argmax(np.abs(np.fft.irfft(spectrum, size)[: len(heard)]))) / SAMPLE_RATE


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_delay_level_and_repeatability(seed: int) -> None:
    sent = load(next(r for r in recordings() if r.id == "cities-1"))
    heard = through_room(sent, seed, 0.25, -20)
    assert heard.dtype == np.float32
    assert len(sent) + 0.45 * SAMPLE_RATE < len(heard) <= len(sent) + 0.86 * SAMPLE_RATE
    assert not heard[: SAMPLE_RATE // 4].any()
    assert delay_of(sent, heard) == pytest.approx(0.25, abs=0.026)
    gain = np.sqrt(np.mean(heard[SAMPLE_RATE // 4 :][: len(sent)] ** 2) / np.mean(sent**2))
    assert gain == pytest.approx(0.1, rel=0.02)
    assert np.array_equal(heard, through_room(sent, seed, 0.25, -20))
    assert not np.allclose(heard[:50_000], through_room(sent, seed + 1, 0.25, -20)[:50_000], atol=1e-3)


def test_a_small_loudspeaker_has_no_bass_and_no_treble() -> None:
    heard = through_room(noise("white", 4), 1, 0.0, -20)
    spectrum = np.abs(np.fft.rfft(heard[: 4 * SAMPLE_RATE])) ** 2
    frequency = np.fft.rfftfreq(4 * SAMPLE_RATE, 1 / SAMPLE_RATE)

    def density(low: float, high: float) -> float:
        return float(spectrum[(frequency >= low) & (frequency < high)].mean())

    assert density(20, 100) < 0.02 * density(500, 3000)
    assert density(6500, 8000) < 0.01 * density(500, 3000)


def test_another_rate() -> None:
    sent = noise("pink", 2, level=-20)
    heard = through_room(np.repeat(sent, 3), 1, 0.1, -10, 3 * SAMPLE_RATE)
    assert delay_of(sent, heard) == pytest.approx(0.1, abs=0.026)
