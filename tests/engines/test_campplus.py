"""Voices: the network is what its authors made it, and tells the people of the recordings apart."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import corpus
from app.engines.campplus import CamPlusPlus, context, fbank
from app.engines.campplus_graph import network
from app.engines.ort_session import OrtSession
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, BadAudio, EngineFailed, Job, Samples, Vector


@pytest.fixture(scope="module")
def voices(model_dir: Callable[[str], Path]) -> Iterator[CamPlusPlus]:
    pool = Workers(2)
    yield CamPlusPlus(model_dir("campplus-zh-en"), pool)
    pool.close()


def sound(*ids: str) -> Samples:
    known = {r.id: r for r in corpus.recordings()}
    return np.concatenate([corpus.load(known[name]) for name in ids])


async def embed(voices: CamPlusPlus, audio: Samples) -> Vector:
    return await voices.embed(audio, Job("test"))


async def test_a_vector_has_length_1_and_does_not_depend_on_how_loud(voices: CamPlusPlus) -> None:
    audio = sound("austen-870")
    vector = await embed(voices, audio)
    assert vector.shape == (voices.dimensions,) == (192,) and vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert float(vector @ await embed(voices, audio)) == pytest.approx(1, abs=1e-5)
    assert float(vector @ await embed(voices, audio * np.float32(0.3))) > 0.99


async def test_pieces_of_one_person_are_nearer_than_those_of_others(voices: CamPlusPlus) -> None:
    """Five people, 3 s each: every two pieces of one are nearer than any two of different ones."""
    people = [
        sound("austen-870", "austen-890", "austen-920"),
        sound(*(f"cities-{n}" for n in range(1, 8))),
        sound("prompt-conf-usermenu", "prompt-dir-intro"),
        sound("call-2", "call-4"),
        sound("go-forward", "go-somewhere"),
    ]
    window = 3 * SAMPLE_RATE
    pieces = [(who, p[at : at + window]) for who, p in enumerate(people) for at in _starts(len(p), window)]
    vectors = np.array([await embed(voices, piece) for _, piece in pieces])
    alike = vectors @ vectors.T
    owners = np.array([who for who, _ in pieces])
    same = (owners[:, None] == owners) & ~np.eye(len(owners), dtype=bool)
    other = owners[:, None] != owners
    assert same.sum() > 40 and alike[same].min() > alike[other].max()
    assert np.median(alike[same]) > 0.7 and np.median(alike[other]) < 0.2


def _starts(length: int, window: int) -> range:
    return range(0, min(length, 4 * window) - window + 1, window)


async def test_noise_and_a_telephone_leave_the_person(voices: CamPlusPlus) -> None:
    clean = await embed(voices, sound("cities-1", "cities-2"))
    said = sound("cities-5", "cities-6")
    noisy = said + corpus.noise("pink", len(said) / SAMPLE_RATE, level=-45)[: len(said)]
    spectrum = np.fft.rfft(said)
    frequency = np.fft.rfftfreq(len(said), 1 / SAMPLE_RATE)
    spectrum[(frequency < 300) | (frequency > 3400)] = 0
    phone = np.fft.irfft(spectrum, len(said)).astype(np.float32)
    stranger = await embed(voices, sound("austen-870"))
    for heard in (noisy, phone):
        vector = await embed(voices, heard)
        assert float(vector @ clean) > float(vector @ stranger) + 0.2


async def test_a_long_clip_is_heard_in_parts_and_whole(voices: CamPlusPlus) -> None:
    long = sound(*(f"cities-{n}" for n in range(1, 9)))
    whole = await embed(voices, long)
    assert len(long) > 35 * SAMPLE_RATE
    for part in (long[: 8 * SAMPLE_RATE], long[-8 * SAMPLE_RATE :]):
        assert float(whole @ await embed(voices, part)) > 0.8


@pytest.mark.parametrize("seconds", [0, 0.01, 0.499])
async def test_too_little_is_refused(voices: CamPlusPlus, seconds: float) -> None:
    with pytest.raises(BadAudio, match=r"0\.5 s"):
        await embed(voices, np.zeros(int(seconds * SAMPLE_RATE), np.float32))


@pytest.mark.parametrize("seconds", [0.5, 0.52, 1.0, 2.013, 9.999, 10.0, 10.01, 21.3])
async def test_any_length_from_there_is_fit(voices: CamPlusPlus, seconds: float) -> None:
    audio = np.resize(sound("cities-1", "cities-2", "cities-3"), int(seconds * SAMPLE_RATE))
    for heard in (audio, np.zeros_like(audio), np.ones_like(audio)):
        assert np.isfinite(await embed(voices, heard)).all()


def test_the_filter_bank_is_kaldis() -> None:
    """Values of kaldi-native-fbank 1.23 for the same sound, with 80 bands and no dither."""
    time = np.arange(1600) / SAMPLE_RATE
    audio = (0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 3000 * time)).astype(np.float32)
    bank = fbank(audio)
    assert bank.shape == (80, 8)
    kaldis = [-11.9685, -8.6994, -8.3750, -15.6448, -14.0862, -15.9424]
    np.testing.assert_allclose(bank[[0, 9, 20, 40, 60, 79], 3], kaldis, atol=2e-3)


def test_the_network_is_that_of_its_authors(model_dir: Callable[[str], Path]) -> None:
    """Values of the authors' own code under PyTorch 2.13 for the same features."""
    model = OrtSession(network(model_dir("campplus-zh-en") / "campplus_cn_en_common.pt"), threads=1)
    band, frame = np.mgrid[:80, :233]
    features = (2 * np.sin(0.1 * band + 0.37 * frame) + np.cos(0.013 * band * frame)).astype(np.float32)
    vector = model.run(features=features[None], **context(117))[0]
    theirs = [0.2436, -0.0907, -0.9386, 0.4782, -0.2400, -0.5767]
    np.testing.assert_allclose(vector[::32], theirs, atol=2e-4)
    assert np.linalg.norm(vector) == pytest.approx(9.6627, abs=1e-3)


def test_what_is_no_such_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"nothing\.pt is not the CAM"):
        network(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("not a model")
    with pytest.raises(EngineFailed, match="is not the CAM"):
        network(tmp_path / "text.pt")


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "touched",))

    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"head.conv1.weight": Evil()}))
    with pytest.raises(EngineFailed, match="no place in a file of weights"):
        network(tmp_path / "evil.pt")
    assert not (tmp_path / "touched").exists()
