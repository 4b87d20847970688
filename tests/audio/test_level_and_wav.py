"""Loudness, and WAV files that others can read."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from sounds import chirp, tone

from app.audio.files import decode_file
from app.audio.level import SILENCE_DBFS, rms_dbfs
from app.audio.wav import wav_bytes


def test_levels_of_known_sounds():
    assert rms_dbfs(np.ones(100, np.float32)) == pytest.approx(0)
    assert rms_dbfs(tone(100, 1.0, 16000, amplitude=1.0)) == pytest.approx(-3.01, abs=0.01)
    assert rms_dbfs(tone(100, 1.0, 16000, amplitude=0.01)) == pytest.approx(-43.01, abs=0.01)


def test_silence_has_a_finite_level():
    assert rms_dbfs(np.zeros(100, np.float32)) == SILENCE_DBFS
    assert rms_dbfs(np.empty(0, np.float32)) == SILENCE_DBFS
    assert rms_dbfs(np.full(100, 1e-30, np.float32)) == SILENCE_DBFS


@pytest.mark.parametrize("rate", [16000, 22050])
def test_a_wav_that_the_standard_library_reads(rate):
    sound = chirp(0.5, rate)
    with wave.open(io.BytesIO(wav_bytes(sound, rate))) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (rate, 1, 2)
        values = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
    assert np.abs(values / 32768 - sound).max() <= 0.5 / 32768


async def test_a_wav_comes_back_as_it_was():
    sound = np.round(chirp(0.5, 16000) * 32768).astype(np.float32) / 32768
    assert np.array_equal(await decode_file(wav_bytes(sound, 16000), max_seconds=1), sound)


def test_a_wav_is_clipped_and_may_be_empty():
    assert wav_bytes(np.array([3, -3, np.nan], np.float32), 8000)[44:] == b"\xff\x7f\x00\x80\x00\x00"
    assert len(wav_bytes(np.empty(0, np.float32), 8000)) == 44
