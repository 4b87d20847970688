"""Voice detection: what the published model says, whoever else is listened to at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

import corpus
from app.engines.silero import FRAME, Silero
from app.roles import BadInput, EngineFailed, Samples


@pytest.fixture(scope="module")
def folder(model_dir: Callable[[str], Path]) -> Path:
    return model_dir("silero-vad")


@pytest.fixture
async def silero(folder: Path) -> AsyncIterator[Silero]:
    vad = Silero(folder)
    yield vad
    await vad.close()


def sounds() -> list[Samples]:
    """Some recordings of people, noise and silence, of whole frames."""
    said = [corpus.load(r) for r in corpus.questions()[:4]]
    noise = np.random.default_rng(5).normal(0, 0.05, 40 * FRAME).astype(np.float32)
    return [s[: len(s) // FRAME * FRAME] for s in [*said, noise, np.zeros(20 * FRAME, np.float32)]]


def published(folder: Path, sound: Samples) -> list[float]:
    """The model as it is distributed, run as its authors do."""
    model = InferenceSession(folder / "silero_vad.onnx", providers=["CPUExecutionProvider"])
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    found = []
    for frame in sound.reshape(-1, FRAME):
        given = np.concatenate([context, frame])[np.newaxis]
        output, state = model.run(None, {"input": given, "state": state, "sr": np.array(16000, np.int64)})
        found.append(float(output[0, 0]))
        context = frame[-64:]
    return found


async def heard(vad: Silero, sound: Samples) -> list[float]:
    stream = vad.stream()
    return [await stream.probability(frame) for frame in sound.reshape(-1, FRAME)]


async def test_many_at_once_hear_what_the_published_model_hears(silero: Silero, folder: Path) -> None:
    together = await asyncio.gather(*(heard(silero, sound) for sound in sounds()))
    for sound, found in zip(sounds(), together, strict=True):
        wanted = published(folder, sound)
        assert np.abs(np.array(found) - wanted).max() < 1e-3
    # Else equal silence would be all that was compared.
    assert max(together[0]) > 0.9 > 0.1 > min(together[0])


async def test_one_alone_hears_the_same(silero: Silero, folder: Path) -> None:
    sound = sounds()[0]
    assert np.abs(np.array(await heard(silero, sound)) - published(folder, sound)).max() < 1e-3


async def test_a_frame_given_up_is_nobody_elses_trouble(silero: Silero) -> None:
    [sound, other] = sounds()[:2]
    given_up = asyncio.create_task(heard(silero, sound))
    listening = asyncio.create_task(heard(silero, other))
    await asyncio.sleep(0.01)
    given_up.cancel()
    assert len(await listening) == len(other) // FRAME
    assert given_up.cancelled()


async def test_a_frame_has_512_samples(silero: Silero) -> None:
    with pytest.raises(BadInput, match="512"):
        await silero.stream().probability(np.zeros(500, np.float32))


def test_what_is_no_such_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"silero_vad\.onnx"):
        Silero(tmp_path)
    (tmp_path / "silero_vad.onnx").write_bytes(b"no model")
    with pytest.raises(EngineFailed, match=r"silero_vad\.onnx"):
        Silero(tmp_path)
