"""Moonshine tiny (English) on onnxruntime: quick enough to follow the voice.

Its encoder takes any length without padding, so a one-second partial costs a fraction of a
Whisper pass. Its word times are guesses. Model: Jeffries et al. 2024, "Moonshine: Speech
Recognition for Live Transcription and Voice Commands".
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.ort_session import OrtSession
from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, BadInput, EngineInfo, Job, Samples, SttOptions, Transcript, Word

_START, _END = 1, 2
_HEADS, _HEAD_SIZE = 8, 36
_TOKENS_PER_SECOND = 6.5
"""More than people say: the authors' own bound against decoding loops."""
_MIN_SAMPLES = SAMPLE_RATE // 4
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}".encode()
"""What a piece begins with that begins a word."""


class Moonshine:
    """`SpeechToText` for English; `language` is ignored."""

    def __init__(self, model_dir: Path, workers: Workers, *, threads: int) -> None:
        """Loads the model: blocking, about 0.3 s. `threads` are onnxruntime's per call."""
        self._encoder = OrtSession(model_dir / "encoder_model.ort", threads)
        self._decoder = OrtSession(model_dir / "decoder_model_merged.ort", threads)
        self._past = [name for name in self._decoder.inputs if name.startswith("past_key_values.")]
        self._pieces = _read_pieces((model_dir / "tokenizer.bin").read_bytes())
        self._workers = workers

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("stt_partial", "moonshine", "moonshine-tiny-en")

    async def close(self) -> None:
        """Nothing is held beyond memory."""

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        """See `SpeechToText`. Under 0.25 s of audio there is nothing to hear."""
        if options.translate:
            raise BadInput(
                "Moonshine cannot translate: start the server with STT_PROVIDER=whisper "
                "and STT_MODEL_NAME=whisper-base",
                field="model",
            )
        if len(audio) < _MIN_SAMPLES:
            return Transcript("", confidence=0.0, no_speech=1.0)
        return await self._workers.run(job, self._transcribe, audio)

    def _transcribe(self, audio: Samples) -> Transcript:
        words = self._words(self._decode(audio), len(audio) / SAMPLE_RATE)
        if not words:
            return Transcript("", confidence=0.0, no_speech=1.0)
        confidence = math.exp(sum(math.log(max(w.confidence, 1e-6)) for w in words) / len(words))
        return Transcript(" ".join(w.text for w in words), words, confidence=confidence)

    def _words(self, tokens: list[tuple[int, float]], seconds: float) -> tuple[Word, ...]:
        """Tokens as words, each as probable as its least probable token. The model has no times:
        the words are spread over `seconds` by their length."""
        texts: list[bytes] = []
        probabilities: list[float] = []
        for token, probability in tokens:
            piece = self._pieces[token]
            if piece.startswith(_SPACE) or not texts:
                texts.append(piece.removeprefix(_SPACE))
                probabilities.append(probability)
            else:
                texts[-1] += piece
                probabilities[-1] = min(probabilities[-1], probability)
        spoken = [(t.decode("utf-8", "ignore").strip(), p) for t, p in zip(texts, probabilities, strict=True)]
        spoken = [(t, p) for t, p in spoken if t]
        letters = sum(len(t) + 1 for t, _ in spoken)
        words: list[Word] = []
        at = 0.0
        for text, probability in spoken:
            span = (len(text) + 1) / letters * seconds
            words.append(Word(text, round(at, 3), round(at + span, 3), probability))
            at += span
        return tuple(words)

    def _decode(self, audio: Samples) -> list[tuple[int, float]]:
        """Greedy tokens, each with its probability."""
        mask = np.ones((1, len(audio)), np.int64)
        hidden = self._encoder.run(input_values=audio[None, :], attention_mask=mask)
        feed: dict[str, Any] = {
            "encoder_hidden_states": hidden,
            "encoder_attention_mask": mask,  # over samples: the decoder thins it itself
            "use_cache_branch": np.array([False]),
        }
        empty = np.zeros((1, _HEADS, 0, _HEAD_SIZE), np.float32)
        feed.update(dict.fromkeys(self._past, empty))
        tokens: list[tuple[int, float]] = []
        token = _START
        for _ in range(max(4, int(len(audio) / SAMPLE_RATE * _TOKENS_PER_SECOND))):
            feed["input_ids"] = np.array([[token]], np.int64)
            logits, *present = self._decoder.outputs(**feed)
            row = logits[0, -1]
            token = int(row.argmax())
            if token == _END:
                break
            tokens.append((token, float(1 / np.exp(row - row[token]).sum())))
            for name, value in zip(self._past, present, strict=True):
                # The encoder's keys are computed once, on the first step, and then passed along.
                if not (feed["use_cache_branch"][0] and ".encoder." in name):
                    feed[name] = value
            feed["use_cache_branch"] = np.array([True])
        return tokens


def _read_pieces(data: bytes) -> list[bytes]:
    """The vocabulary file: each piece is its length (one byte, or two when the first is over
    127: low seven bits first) and that many bytes."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = data[at]
        at += 1
        if size > 127:
            size = (size & 127) + data[at] * 128
            at += 1
        piece = data[at : at + size]
        # Byte fall-back pieces are written as the bare byte or as <0xNN>.
        if len(piece) == 6 and piece.startswith(b"<0x"):
            piece = bytes([int(piece[3:5], 16)])
        pieces.append(piece)
        at += size
    return pieces
