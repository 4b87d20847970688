"""Resampling of a stream: in place, in time, whatever the pieces and whatever is in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import chirp, cut, snr_db, tone

from app.audio.resample import Resampler, bounded

PAIRS = [(8000, 16000), (24000, 16000), (44100, 16000), (48000, 16000), (22050, 24000), (22050, 44100)]


def run(source, target, pieces):
    resampler = Resampler(source, target)
    return np.concatenate([resampler.push(piece) for piece in pieces] + [resampler.flush()])


@pytest.mark.parametrize(("source", "target"), [*PAIRS, (16000, 16000), (24000, 8000)])
def test_a_chirp_stays_what_and_where_it_was(source, target):
    got = run(source, target, cut(chirp(2.0, source), [source // 50]))
    wanted = chirp(2.0, target)
    assert len(got) == len(wanted)
    middle = slice(target // 10, -target // 10)
    assert snr_db(wanted[middle], got[middle]) > 60


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_little_is_held_back(source, target):
    resampler = Resampler(source, target)
    packet = source // 50
    given_s = got_s = 0.0
    for piece in cut(chirp(1.0, source), [packet]):
        given_s += len(piece) / source
        got_s += len(resampler.push(piece)) / target
        assert given_s - got_s < 0.0025


@pytest.mark.parametrize("source", [24000, 44100, 48000])
def test_what_16_khz_cannot_hold_does_not_fold_back(source):
    got = run(source, 16000, [tone(10_000, 1.0, source)])
    assert np.sqrt(np.mean(got[1000:-1000] ** 2)) < 1e-3


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(PAIRS), st.lists(st.integers(1, 700), min_size=1, max_size=8), st.integers(1, 3000))
def test_where_the_input_is_cut_does_not_matter(pair, sizes, length):
    sound = np.random.default_rng(length).uniform(-0.9, 0.9, length).astype(np.float32)
    whole = run(*pair, [sound])
    assert np.array_equal(run(*pair, cut(sound, sizes)), whole)


def test_flush_ends_one_stream_and_the_next_knows_nothing_of_it():
    resampler = Resampler(48000, 16000)
    resampler.push(chirp(0.5, 48000))
    resampler.flush()
    assert len(resampler.flush()) == 0
    again = np.concatenate([resampler.push(tone(500, 0.5, 48000)), resampler.flush()])
    assert np.array_equal(again, run(48000, 16000, [tone(500, 0.5, 48000)]))


@pytest.mark.parametrize("rates", [(16000, 16000), (24000, 16000)])
def test_values_that_are_no_sound_do_no_harm(rates):
    sound = tone(300, 1.0, rates[0])
    sound[::1000] = np.nan
    sound[1::1000] = np.inf
    sound[2::1000] = -1e38
    got = run(*rates, cut(sound, [480]))
    assert len(got) == 16000
    assert np.isfinite(got).all()
    assert np.abs(got).max() <= 1


def test_bounded_clips_silences_nan_and_leaves_its_input_alone():
    given_ = np.array([0.25, 2, -3, np.nan, np.inf], np.float32)
    assert bounded(given_).tolist() == [0.25, 1, -1, 0, 1]
    assert np.isnan(given_[3])
    assert bounded(given_[:0]).shape == (0,)
