"""CAM++ on onnxruntime: whose voice is this?

Of a clip it says what the voice is like, whatever is said: clips of one person lie near each other. Trained
on Chinese and English. Source: Alibaba, 3D-Speaker, 2023, "CAM++".
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.engines.campplus_graph import DIMENSIONS, FEATURES, SEGMENT, network
from app.engines.ort_session import OrtSession
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, BadAudio, EngineInfo, Job, Samples, Vector

SHORTEST_S = 0.5
"""What is shorter says too little."""
_AT_ONCE_S = 10.0
"""A longer clip is heard in parts, so that none takes a core for long: 65 ms of one."""
_FRAME, _HOP, _FFT = 400, 160, 512
_FLOOR = 1.1920929e-07


class CamPlusPlus:
    """`SpeakerEmbedding` for any language: it was trained on two, and hears voices, not words."""

    def __init__(self, model_dir: Path, workers: Workers) -> None:
        """Loads the model: blocking, about 0.5 s."""
        self._session = OrtSession(network(model_dir / "campplus_cn_en_common.pt"), threads=1)
        self._workers = workers

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("speaker", "campplus", "campplus-zh-en")

    @property
    def dimensions(self) -> int:
        return DIMENSIONS

    async def close(self) -> None:
        """Nothing is held beyond memory."""

    async def embed(self, audio: Samples, job: Job) -> Vector:
        """See `SpeakerEmbedding`."""
        if len(audio) < SHORTEST_S * SAMPLE_RATE:
            raise BadAudio(
                f"a voice is told from at least {SHORTEST_S} s of sound, and this is "
                f"{len(audio) / SAMPLE_RATE:.2f} s: send more",
                field="audio",
            )
        parts = np.array_split(audio, -(-len(audio) // round(_AT_ONCE_S * SAMPLE_RATE)))
        voices = [await self._workers.run(job, self._voice, part) for part in parts]
        return _unit(np.sum(voices, axis=0, dtype=np.float32))

    def _voice(self, audio: Samples) -> Vector:
        features = fbank(audio)
        features -= features.mean(axis=1, keepdims=True)
        steps = -(-features.shape[1] // 2)
        return _unit(self._session.run(features=features[None], **context(steps))[0])


def context(steps: int) -> dict[str, npt.NDArray[Any]]:
    """What the network is told besides of a clip of so many steps (see `campplus_graph.network`)."""
    segment = np.arange(steps) // SEGMENT
    counts = np.bincount(segment)
    pool = np.full((steps, len(counts)), 1 / steps, np.float32)
    pool[np.arange(steps), segment] += 1 / counts[segment]
    return {"pool": pool, "segment": segment, "spread": np.array([1 / (steps - 1)], np.float32)}


def _unit(vector: Vector) -> Vector:
    unit: Vector = vector / np.linalg.norm(vector)
    return unit


def fbank(audio: Samples) -> Samples:
    """Kaldi's filter bank: float32[80, frames], natural log of the energy in each band, a frame of 25 ms
    every 10 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, _FRAME)[::_HOP].astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft((frames - 0.97 * before) * _window(), _FFT)) ** 2
    energy = np.array([power[:, bins] @ weights for bins, weights in _bands()])
    bank: Samples = np.log(np.maximum(energy, _FLOOR)).astype(np.float32)
    return bank


@cache
def _window() -> npt.NDArray[np.float64]:
    """Povey's: Hann's, a little wider."""
    window: npt.NDArray[np.float64] = np.power(np.hanning(_FRAME), 0.85)
    return window


@cache
def _bands() -> list[tuple[slice, npt.NDArray[np.float64]]]:
    """Triangles of even width on the mel scale, 20 Hz to 8 kHz: of which bins each is, and their weights.
    Band by band, since a product of two matrices would take all cores."""

    def mel(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(1127 * np.log1p(hertz / 700))

    low, high = mel(np.array([20.0, SAMPLE_RATE / 2]))
    corners = np.linspace(low, high, FEATURES + 2)
    # Kaldi leaves out the last bin.
    bins = mel(np.arange(_FFT // 2) * SAMPLE_RATE / _FFT)
    bands = []
    for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
        weights = np.maximum(
            0, np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle))
        )
        used = np.flatnonzero(weights)
        within = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((within, weights[within]))
    return bands
