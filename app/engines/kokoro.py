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

import numpy as np

from app.engines.chinese import ChinesePhonemes
from app.engines.ort_session import OrtSession
from app.engines.speech_text import pieces, speakable
from app.engines.voice import SpeechShape, find_voice, pause_after
from app.engines.workers import Workers
from app.roles import AudioChunk, EngineFailed, EngineInfo, Job, Samples, SpeechOptions, Voice

_RATE = 24_000
_MAX_TOKENS = 510
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
        self._session = OrtSession(path, threads)
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
        for piece in pieces(speakable(text, "zh"), _SOFT, _HARD):
            raw = await self._workers.run(job, self._synthesize, piece, voice.name, options.speed)
            samples = SpeechShape(_RATE, _GAIN).part(raw, last=True, pause=pause_after(piece))
            if len(samples):
                yield AudioChunk(samples, _RATE)

    def _synthesize(self, text: str, voice: str, speed: float) -> Samples:
        """Raw samples of `text`, empty when it has no sound."""
        phonemes = self._phonemes(text)
        tokens = [self._vocabulary[p] for p in phonemes if p in self._vocabulary][:_MAX_TOKENS]
        if not tokens:
            return np.zeros(0, np.float32)
        return self._session.run(
            tokens=np.array([[0, *tokens, 0]], np.int64),
            style=self._styles[voice][len(tokens) - 1],
            speed=np.array([speed], np.float32),
        ).reshape(-1)
