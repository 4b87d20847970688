"""Files that are sent while they are made hold the sound, whatever pieces it comes in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sounds import chirp, cut, delay, snr_db

from app.audio.encode import RATE, Encoder
from app.audio.files import decode_file
from app.audio.tempo import Tempo

# How much may be added at the ends (s), and the least SNR (dB).
KINDS = {"mp3": (0.08, 10), "opus": (0.03, 6), "aac": (0.1, 10), "flac": (0.001, 60), "wav": (0.001, 60)}


def encoded(kind, samples, rate, sizes=(7000, 1, 333, 0, 20000), **more):
    encoder = Encoder(kind, rate, **more)
    pieces = [encoder.push(piece) for piece in cut(samples, sizes)]
    return [*pieces, encoder.finish()]


@pytest.mark.parametrize("rate", [16000, 22050, 24000])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_format_holds_the_sound(kind, rate):
    slack, least_db = KINDS[kind]
    heard = await decode_file(b"".join(encoded(kind, chirp(3.0, rate), rate)), max_seconds=10)
    wanted = chirp(3.0, 16000)
    assert abs(len(heard) - len(wanted)) <= slack * 16000
    lag = delay(wanted, heard)
    assert 0 <= lag <= slack * 16000
    size = min(len(wanted), len(heard) - lag) - 1600
    assert snr_db(wanted[1600:size], heard[lag + 1600 : lag + size]) > least_db


@pytest.mark.parametrize("kind", [*KINDS, "pcm"])
def test_sound_leaves_soon_after_it_came(kind):
    pieces = encoded(kind, chirp(4.0, RATE), RATE, sizes=(RATE // 4,))
    # Each quarter of a second gives bytes, but for what a coder needs to look ahead and Ogg's pages.
    assert all(len(a) + len(b) > 200 for a, b in pairwise(pieces))


def test_pcm_is_nothing_but_samples():
    sound = chirp(1.0, RATE)
    data = np.frombuffer(b"".join(encoded("pcm", sound, RATE)), "<i2")
    assert snr_db(sound, data / 32767) > 80


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_too_loud_is_clipped_and_no_sound_is_a_file(kind):
    loud = np.full(RATE, 7.0, np.float32)
    heard = await decode_file(b"".join(encoded(kind, loud, RATE)), max_seconds=10)
    assert np.abs(heard).max() <= 1
    assert isinstance(Encoder(kind, RATE).finish(), bytes)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.4, 2.0])
def test_tempo_keeps_the_pitch(factor):
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(4 * 16000) / 16000)).astype(np.float32)
    tempo = Tempo(16000, factor)
    out = np.concatenate([*(tempo.push(piece) for piece in cut(tone, (5000, 100, 0))), tempo.flush()])
    assert len(out) / 16000 == pytest.approx(4 / factor, abs=0.1)
    assert np.abs(np.fft.rfft(out)).argmax() * 16000 / len(out) == pytest.approx(440, abs=3)


async def test_a_file_played_faster():
    file = b"".join(encoded("flac", chirp(4.0, 22050), 22050, tempo=2.0))
    assert len(await decode_file(file, max_seconds=10)) == pytest.approx(32000, abs=1000)
