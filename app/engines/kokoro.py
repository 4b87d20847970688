"""Kokoro-82M (StyleTTS 2 with an iSTFTNet decoder), int8, on onnxruntime, for Chinese.

About 0.15 to 0.45 of real time on two cores, and all of a piece at once: text is therefore cut
into short clauses, so that the first sound comes early. Model: hexgrad, Kokoro-82M v1.0
(Apache-2.0), after Li et al. 2023, "StyleTTS 2".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.chinese import ChinesePhonemes
from app.engines.ort_session import OrtSession
from app.engines.speech_text import spoken_pieces
from app.engines.voice import Sound, SpeechShape, find_voice, pause_after, unsaid, word_times
from app.engines.workers import Workers
from app.roles import AudioChunk, EngineFailed, EngineInfo, Job, Samples, SpeechOptions, Voice

_RATE = 24_000
_HOP = 600
"""Samples a frame of the model's durations."""
_MAX_TOKENS = 510
_SILENT = " ,.?!:;"
"""Phonemes that are a pause and belong to no word."""
_SOFT, _HARD = 12, 60
"""Characters spoken in one go: one or two clauses."""
_GAIN = 0.77
"""Brings the voice to about -20 dBFS while it speaks."""

_VOICES = {"zh-Kumo_man": "jm_kumo"}
"""Ours → the model's name. A Japanese speaker, but the only packaged one who is always understood."""


class KokoroVoice:
    """`TextToSpeech` for Chinese, with English words in between."""

    def __init__(self, model_dir: Path, workers: Workers, *, threads: int) -> None:
        """Loads the voice: blocking, about 3 s. `threads` are onnxruntime's per call."""
        path = next(iter(sorted(model_dir.glob("*.onnx"))), None)
        if path is None:
            raise EngineFailed(f"there is no voice (*.onnx) in {model_dir}")
        self._vocabulary: dict[str, int] = json.loads((model_dir / "vocab.json").read_text(encoding="utf-8"))[
            "vocab"
        ]
        with np.load(model_dir / "voices_ja.npz") as styles:
            # float32[510, 1, 256]: a style for each length of the text.
            self._styles = {ours: styles[theirs].astype(np.float32) for ours, theirs in _VOICES.items()}
        self._session = OrtSession(_with_durations(path), threads)
        try:
            self._phonemes = ChinesePhonemes()
        except ImportError as error:
            raise EngineFailed(f"the Chinese voice needs the extra 'zh' installed: {error}") from error
        self._workers = workers
        self._model = path.stem
        self._synthesize("你好。", next(iter(_VOICES)), 1.0)  # warm-up

    @classmethod
    async def load(cls, model_dir: Path, workers: Workers, *, threads: int) -> KokoroVoice:
        """The constructor, off the event loop."""
        return await asyncio.to_thread(cls, model_dir, workers, threads=threads)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("tts", "kokoro", self._model)

    async def close(self) -> None:
        """Nothing is held beyond memory."""

    @property
    def sample_rate(self) -> int:
        return _RATE

    def voices(self) -> Sequence[Voice]:
        return [Voice(name, "zh", name.rpartition("_")[2], "kokoro", _RATE) for name in _VOICES]

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        """See `TextToSpeech`. One chunk a clause."""
        voice = find_voice(self.voices(), options.voice)
        words, pieces = spoken_pieces(text, "zh", _SOFT, _HARD)
        given = 0
        for piece in pieces:
            raw, sounds = await self._workers.run(
                job, self._synthesize, piece.text, voice.name, options.speed
            )
            shape = SpeechShape(_RATE, _GAIN)
            pause = pause_after(piece.text)
            samples = shape.part(raw, last=True, pause=pause)
            if len(samples):
                heard = len(samples) / _RATE - pause
                timed = word_times(words, given, piece, sounds, shape.cut / _RATE, heard)
                given = piece.until
                yield AudioChunk(samples, _RATE, timed)
        if 0 < given < len(words):
            yield unsaid(words[given:], _RATE)

    def _synthesize(self, text: str, voice: str, speed: float) -> tuple[Samples, list[Sound]]:
        """Raw samples of `text`, empty when it has no sound, and what lies where in them."""
        phonemes = self._phonemes.traced(text)
        known = [
            (self._vocabulary[p], p not in _SILENT, at)
            for p, at in zip(phonemes.text, phonemes.at, strict=True)
            if p in self._vocabulary
        ][:_MAX_TOKENS]
        if not known:
            return np.zeros(0, np.float32), []
        audio, frames = self._session.outputs(
            tokens=np.array([[0, *(token for token, _, _ in known), 0]], np.int64),
            style=self._styles[voice][len(known) - 1],
            speed=np.array([speed], np.float32),
        )
        # Behind the frames of each token; the first is a silence of the model's own.
        ends = (np.cumsum(frames) * (_HOP / _RATE)).tolist()
        sounds = [(at, ends[i], ends[i + 1]) for i, (_, heard, at) in enumerate(known) if heard]
        return audio.reshape(-1), sounds


def _with_durations(path: Path) -> bytes:
    """The model, which then also gives the frames that each token lasts."""
    import onnx

    model: Any = onnx.load(str(path))
    # They are rounded, and then at least one.
    rounded = {n.output[0] for n in model.graph.node if n.op_type == "Round"}
    frames = next(
        (n.output[0] for n in model.graph.node if n.op_type == "Clip" and n.input[0] in rounded), None
    )
    if frames is None:
        raise EngineFailed(f"{path.name} is not a Kokoro voice: it has no durations")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(frames))
    data: bytes = model.SerializeToString()
    return data
