"""Piper voices (VITS) on onnxruntime, streamed.

The exported graph makes a whole sentence in one go, and 70 % of the time is its decoder, which is
purely convolutional. The graph is therefore cut in two when it is loaded: the front gives the
latent frames of the sentence, and the decoder turns them into sound window by window, with
enough frames around each window that the result is that of the whole graph. The first sound of
a sentence is ready after the front and one window, and a reply that is interrupted stops at the
next. Model: Kim et al. 2021, "Conditional Variational Autoencoder with Adversarial Learning for
End-to-End Text-to-Speech"; voices: github.com/rhasspy/piper.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.engines.english import english_phonemes
from app.engines.ort_session import OrtSession
from app.engines.speech_text import spoken_pieces
from app.engines.voice import Sound, SpeechShape, find_voice, pause_after, unsaid, word_times
from app.engines.workers import Workers
from app.roles import (
    AudioChunk,
    EngineFailed,
    EngineInfo,
    Job,
    Samples,
    SpeechOptions,
    Voice,
    Word,
)

_START, _END, _PAD = "^", "$", "_"
_SILENT = " ,.?!:;"
"""Phonemes that are a pause and belong to no word."""
_HOP = 256
"""Samples a latent frame."""
_AROUND = 12
"""Latent frames that the decoder looks to either side (its receptive field, rounded up)."""
_WINDOWS = (32, 64, 128)
"""Frames decoded at a time: 0.37 s first, so that sound comes soon, then more, which costs less."""
_SOFT, _HARD = 200, 400
"""Characters spoken in one go; the front's cost grows with them."""
_GAIN = 1.35
"""Brings this voice to about -20 dBFS while it speaks."""
_SPEEDS = (0.53, 0.62, 0.75, 0.87, 1.0, 1.15, 1.35, 1.57, 1.73, 1.93, 2.05)
_LENGTHS = (2.2, 1.8, 1.5, 1.25, 1.0, 0.8, 0.67, 0.5, 0.4, 0.3, 0.2)
"""Speed, and the model's length scale that gives it: not the inverse, as every phoneme lasts at
least one frame. Measured over ten sentences."""

Latents = npt.NDArray[np.float32]


class PiperVoice:
    """`TextToSpeech` with the English voice "Joe"; other languages are read as if English."""

    def __init__(self, model_dir: Path, workers: Workers, *, threads: int) -> None:
        """Loads the voice: blocking, about 3 s with the lexicon. `threads` are onnxruntime's per call."""
        path = next(iter(sorted(model_dir.glob("*.onnx"))), None)
        if path is None:
            raise EngineFailed(f"there is no voice (*.onnx) in {model_dir}")
        config = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]
        inference = config["inference"]
        self._noise, self._length, self._noise_w = (
            inference[k] for k in ("noise_scale", "length_scale", "noise_w")
        )
        self._rate = int(config["audio"]["sample_rate"])
        self._model = path.stem
        front, decoder = _cut_model(path)
        self._front = OrtSession(front, threads)
        self._decoder = OrtSession(decoder, threads)
        self._phonemes = english_phonemes()
        self._workers = workers
        self._decode(self._frames("Hello there.", 1.0)[0], 0, _WINDOWS[0])  # warm-up

    @classmethod
    async def load(cls, model_dir: Path, workers: Workers, *, threads: int) -> PiperVoice:
        """The constructor, off the event loop."""
        return await asyncio.to_thread(cls, model_dir, workers, threads=threads)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("tts", "piper", self._model)

    async def close(self) -> None:
        """Nothing is held beyond memory."""

    @property
    def sample_rate(self) -> int:
        return self._rate

    def voices(self) -> Sequence[Voice]:
        return [Voice("en-Joe_man", "en", "man", "piper", self._rate)]

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        """See `TextToSpeech`. Chunks are about 0.3 s first and up to 1.5 s later."""
        find_voice(self.voices(), options.voice)
        words, pieces = spoken_pieces(text, "en", _SOFT, _HARD)
        given = 0
        for piece in pieces:
            latents, sounds = await self._workers.run(job, self._frames, piece.text, options.speed)
            shape = SpeechShape(self._rate, _GAIN)
            for start, end in _windows(latents.shape[2]):
                raw = await self._workers.run(job, self._decode, latents, start, end)
                last = end == latents.shape[2]
                if len(samples := shape.part(raw, last=last, pause=pause_after(piece.text))):
                    timed: tuple[Word, ...] = ()
                    if given < piece.until:
                        timed = word_times(words, given, piece, sounds, shape.cut / self._rate)
                        given = piece.until
                    yield AudioChunk(samples, self._rate, timed)
        if 0 < given < len(words):
            yield unsaid(words[given:], self._rate)

    def _frames(self, text: str, speed: float) -> tuple[Latents, list[Sound]]:
        """Latent frames (float32[1, channels, n]) of `text`, and which sound lies where in them;
        n is 0 when it has none."""
        phonemes = self._phonemes.traced(text)
        ids = [*self._ids[_START], *self._ids[_PAD]]
        places: list[tuple[int, int, int]] = []
        for phoneme, at in zip(phonemes.text, phonemes.at, strict=True):
            if phoneme in self._ids:
                if phoneme not in _SILENT:
                    places.append((at, len(ids), len(ids) + len(self._ids[phoneme])))
                ids += [*self._ids[phoneme], *self._ids[_PAD]]
        if len(ids) <= 2:
            return np.zeros((1, 0, 0), np.float32), []
        ids += self._ids[_END]
        length = self._length * float(np.interp(speed, _SPEEDS, _LENGTHS))
        scales = [self._noise, length, self._noise_w]
        latents, frames = self._front.outputs(
            input=np.array([ids], np.int64),
            input_lengths=np.array([len(ids)], np.int64),
            scales=np.array(scales, np.float32),
        )
        # Behind the frames of each input id, in seconds.
        ends = [0.0, *(np.cumsum(frames) * (_HOP / self._rate)).tolist()]
        return latents, [(at, ends[begin], ends[end]) for at, begin, end in places]

    def _decode(self, latents: Latents, start: int, end: int) -> Samples:
        """Raw samples of frames `start` to `end`."""
        before = max(0, start - _AROUND)
        window = latents[:, :, before : end + _AROUND]
        sound = self._decoder.run(**{self._decoder.inputs[0]: window}).reshape(-1)
        return sound[(start - before) * _HOP : (end - before) * _HOP]


def _windows(frames: int) -> Iterator[tuple[int, int]]:
    """Spans that cover `frames`. A short rest goes with the span before it: the last one has to
    hold the silence at the end whole, to be cut."""
    start, i = 0, 0
    while start < frames:
        end = start + _WINDOWS[min(i, len(_WINDOWS) - 1)]
        if frames - end < _WINDOWS[0]:
            end = frames
        yield start, end
        start, i = end, i + 1


def _cut_model(path: Path) -> tuple[bytes, bytes]:
    """The graph before the decoder, which also gives the frames that each input id lasts, and the
    decoder, as two models."""
    import onnx
    from onnx.utils import Extractor

    model: Any = onnx.load(str(path))
    entry = next((n.input[0] for n in model.graph.node if n.name == "/dec/conv_pre/Conv"), None)
    # Durations are rounded up to whole frames, and nothing else is.
    frames = next((n.output[0] for n in model.graph.node if n.op_type == "Ceil"), None)
    if entry is None or frames is None:
        raise EngineFailed(f"{path.name} is not a Piper voice: it has no durations or no decoder")
    extractor = Extractor(model)
    inputs = [i.name for i in model.graph.input]
    outputs = [o.name for o in model.graph.output]
    front = extractor.extract_model(inputs, [entry, frames])
    decoder = extractor.extract_model([entry], outputs)
    return front.SerializeToString(), decoder.SerializeToString()
