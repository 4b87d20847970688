"""Smart Turn v3 on onnxruntime: does this sound like the end of a turn?

It listens to the melody of the last 8 s rather than to the words. Source: Daily, 2025, "Smart Turn
v3", a Whisper-tiny encoder with a classifier.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.engines.ort_session import OrtSession
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, EngineInfo, Job, Samples

_SECONDS = 8
_WINDOW = _SECONDS * SAMPLE_RATE


class SmartTurn:
    """`EndOfTurn` for any language it was trained on (23, English and Chinese among them)."""

    def __init__(self, model_dir: Path, workers: Workers, *, threads: int) -> None:
        """Loads the model: blocking, about 0.2 s."""
        # The package first: its part alone takes the two import locks in the other order than a thread
        # that imports the package, and Python then refuses one of the two ("deadlock detected").
        import faster_whisper  # noqa: F401
        from faster_whisper.feature_extractor import FeatureExtractor

        self._session = OrtSession(model_dir / "smart-turn-v3.2-cpu.onnx", threads)
        self._features = FeatureExtractor(chunk_length=_SECONDS)
        self._workers = workers

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("end_of_turn", "smart-turn", "smart-turn-v3.2")

    async def close(self) -> None:
        """Nothing is held beyond memory."""

    async def probability(self, audio: Samples, job: Job) -> float:
        """See `EndOfTurn`."""
        return await self._workers.run(job, self._probability, audio)

    def _probability(self, audio: Samples) -> float:
        window = np.zeros(_WINDOW, np.float32)
        heard = audio[-_WINDOW:]
        window[_WINDOW - len(heard) :] = heard
        window = (window - window.mean()) / np.sqrt(window.var() + 1e-7)
        features = self._features(window, padding=0)[None]
        return float(self._session.run(input_features=features.astype(np.float32)).item())
