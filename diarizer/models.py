"""pyannote's pipelines and encoders, and SpeechBrain's: loading and running them. All of it blocks.

Sound is float32[n] at 16 kHz and is handed to the libraries as tensors, never as files: what strangers send
is decoded by `app.audio.files` alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from app.roles import SAMPLE_RATE, BadAudio, Misconfigured, Samples, Span, SpeakerSpan, Vector
from diarizer.sources import Source

if TYPE_CHECKING:
    import torch

_AT_ONCE_S = 20.0
"""A longer clip is heard in parts, so that memory is bounded."""

Diarize = Callable[[Samples, threading.Event], list[SpeakerSpan]]
Detect = Callable[[Samples, threading.Event], list[Span]]
Embed = Callable[[Samples], Vector]


class Stopped(Exception):
    """Nobody waits for the answer any more."""


def find_device(wanted: str) -> torch.device:
    """The device that the setting names; a GPU for `auto` where there is one."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise Misconfigured(
            f"DIARIZER_DEVICE=cuda, but PyTorch {torch.__version__} finds no GPU: install its CUDA build and "
            "give the container the GPU (--gpus all), or set DIARIZER_DEVICE=auto"
        )
    use_gpu = wanted != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def load_pipeline(source: Source, device: torch.device) -> tuple[Any, Diarize]:
    """pyannote's pipeline itself, and what says with it who speaks when."""
    from pyannote.audio import Pipeline

    pipeline = Pipeline.from_pretrained(source.name, revision=source.revision)
    if not hasattr(pipeline, "segmentation_model"):
        raise Misconfigured(f"{source.setting}: {source} is no pipeline for speaker diarization")
    pipeline.to(device)

    def diarize(audio: Samples, stop: threading.Event) -> list[SpeakerSpan]:
        found = pipeline(_file(audio), hook=_stopping(stop))
        # Older pipelines (`legacy`) give the turns alone.
        turns = getattr(found, "speaker_diarization", found)
        ordered = sorted((turn.start, turn.end, who) for turn, _, who in turns.itertracks(yield_label=True))
        # Numbered as they first speak, as our own diarization does.
        number = {who: at for at, who in enumerate(dict.fromkeys(who for *_, who in ordered))}
        length = len(audio) / SAMPLE_RATE
        return [
            SpeakerSpan(max(0.0, start), min(end, length), f"SPEAKER_{number[who]:02d}")
            for start, end, who in ordered
            if start < length
        ]

    return pipeline, diarize


def load_vad(pipeline: Any, device: torch.device) -> Detect:
    """What finds speech with the network that `pipeline` looks for speakers with."""
    from pyannote.audio.pipelines import VoiceActivityDetection

    vad = VoiceActivityDetection(segmentation=pipeline.segmentation_model)
    parameters = {"min_duration_on": 0.0, "min_duration_off": 0.0}
    if "onset" in vad.parameters():  # networks before 3.0 give probabilities
        parameters |= {"onset": 0.5, "offset": 0.5}
    vad.instantiate(parameters)
    vad.to(device)

    def detect(audio: Samples, stop: threading.Event) -> list[Span]:
        found = vad(_file(audio), hook=_stopping(stop))
        length = len(audio) / SAMPLE_RATE
        return [
            Span(max(0.0, turn.start), min(turn.end, length))
            for turn in found.get_timeline().support()
            if turn.start < length
        ]

    return detect


def load_encoder(kind: str, source: Source | None, pipeline: Any, device: torch.device) -> Embed:
    """What says where a voice lies: a vector of length 1. Without a `source` it is the one of `pipeline`."""
    if kind == "speechbrain" and source is not None:
        encode = _speechbrain(source, device)
    else:
        encode = _pyannote(source, pipeline, device)

    def embed(audio: Samples) -> Vector:
        parts = np.array_split(audio, -(-len(audio) // round(_AT_ONCE_S * SAMPLE_RATE)))
        total: Vector = np.stack([encode(part) for part in parts]).sum(axis=0, dtype=np.float32)
        if not np.isfinite(total).all() or not total.any():
            raise BadAudio("no voice can be told from this sound: send more of it", field="file")
        return _unit(total)

    return embed


def _pyannote(source: Source | None, pipeline: Any, device: torch.device) -> Embed:
    import torch
    from pyannote.audio.pipelines.speaker_verification import PretrainedSpeakerEmbedding

    wanted: Any = pipeline.embedding
    if source is not None:
        wanted = {"checkpoint": source.name, "revision": source.revision}
    encoder = PretrainedSpeakerEmbedding(wanted, device=device)

    def encode(audio: Samples) -> Vector:
        with torch.inference_mode():
            return _unit(encoder(torch.from_numpy(audio)[None, None])[0])

    return encode


def _speechbrain(source: Source, device: torch.device) -> Embed:
    import torch
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.utils.fetching import FetchConfig

    encoder = EncoderClassifier.from_hparams(
        source=source.name,
        # The hub's copy names the hub for its files; a folder has them itself.
        overrides={} if source.revision else {"pretrained_path": source.name},
        overrides_must_match=False,
        fetch_config=FetchConfig(revision=source.revision),
        run_opts={"device": str(device)},
    )

    def encode(audio: Samples) -> Vector:
        with torch.inference_mode():
            return _unit(encoder.encode_batch(torch.from_numpy(audio)[None]).reshape(-1).cpu().numpy())

    return encode


def _unit(vector: Vector) -> Vector:
    found: Vector = vector / np.float32(np.linalg.norm(vector))
    return found


def _file(audio: Samples) -> dict[str, Any]:
    import torch

    return {"waveform": torch.from_numpy(audio)[None], "sample_rate": SAMPLE_RATE}


def _stopping(stop: threading.Event) -> Callable[..., None]:
    """What pyannote calls after every batch: the one place where it can be stopped."""

    def hook(*_: Any, **__: Any) -> None:
        if stop.is_set():
            raise Stopped

    return hook
