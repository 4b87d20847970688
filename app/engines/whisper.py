"""Whisper on CTranslate2 (faster-whisper), int8 on a CPU.

It pads every input to 30 s, so a pass costs nearly the same for one second as for ten. Model:
Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.engines.workers import Workers
from app.roles import SAMPLE_RATE, EngineFailed, EngineInfo, Job, Samples, SttOptions, Transcript, Word

_MIN_SAMPLES = SAMPLE_RATE // 10
_WINDOW = 30 * SAMPLE_RATE
_TOKENS_PER_SECOND = 10
_NO_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
_LOOPING = 2.4
"""Text that compresses better than this repeats itself (Whisper's own threshold)."""


class Whisper:
    """`SpeechToText`; English only or multilingual, as the model is."""

    def __init__(
        self,
        model_dir: Path,
        workers: Workers,
        *,
        threads: int,
        copies: int = 1,
        compute_type: str = "int8",
        device: str = "cpu",
    ) -> None:
        """Loads the model: blocking, about 0.5 s. `threads` per pass; up to `copies` passes run
        at once over one set of weights."""
        from faster_whisper import WhisperModel

        try:
            self._model = WhisperModel(
                str(model_dir),
                device=device,
                compute_type=compute_type,
                cpu_threads=threads,
                num_workers=copies,
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            raise EngineFailed(f"Whisper did not load from {model_dir}: {error}") from error
        self._name = model_dir.name
        self._workers = workers

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("stt", "faster-whisper", self._name)

    async def close(self) -> None:
        """Nothing is held beyond memory."""

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        """See `SpeechToText`. `language` None detects (multilingual models)."""
        if len(audio) < _MIN_SAMPLES:
            return Transcript("", confidence=0.0, no_speech=1.0)
        return await self._workers.run(job, self._transcribe, audio, options)

    def _transcribe(self, audio: Samples, options: SttOptions) -> Transcript:
        """One window, one pass: the library's own loop would go on behind the last word it
        timed and write words for the silence there."""
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        model = self._model
        features = model.feature_extractor(audio[:_WINDOW])
        frames = features.shape[-1]
        encoded = model.encode(pad_or_trim(features, model.feature_extractor.nb_max_frames))
        multilingual = model.model.is_multilingual
        language = (options.language if multilingual else "en") or self._detect(encoded)
        tokenizer = Tokenizer(model.hf_tokenizer, multilingual, task="transcribe", language=language)
        prompt = model.get_prompt(
            tokenizer,
            tokenizer.encode(" " + options.prompt.strip()) if options.prompt else [],
            without_timestamps=True,
            hotwords=", ".join(options.vocabulary) or None,
        )
        result = model.model.generate(
            encoded,
            [prompt],
            beam_size=1,
            max_length=min(model.max_length, len(prompt) + 16 + int(frames / 100 * _TOKENS_PER_SECOND)),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = [t for t in result.sequences_ids[0] if t < tokenizer.eot]
        text = tokenizer.decode(tokens).strip()
        if not text or _loops(text):
            return Transcript("", language=language, confidence=0.0, no_speech=float(result.no_speech_prob))
        words = self._words(tokenizer, tokens, encoded, frames) if options.word_times else ()
        return Transcript(
            text,
            words,
            language,
            confidence=min(1.0, math.exp(result.scores[0])),
            no_speech=float(result.no_speech_prob),
        )

    def _detect(self, encoded: Any) -> str:
        [[(token, _), *_]] = self._model.model.detect_language(encoded)
        return str(token).strip("<|>")

    def _words(self, tokenizer: Any, tokens: list[int], encoded: Any, frames: int) -> tuple[Word, ...]:
        """Words with times from the decoder's attention (dynamic time warping)."""
        from faster_whisper.transcribe import merge_punctuations

        [aligned] = self._model.find_alignment(tokenizer, [tokens], encoded, frames)
        merge_punctuations(aligned, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
        words: list[Word] = []
        for w in aligned:
            text = w["word"].strip()
            word = Word(text, float(w["start"]), float(w["end"]), float(w["probability"]))
            if not text:
                continue
            if words and not w["word"].startswith(" ") and tokenizer.language_code not in _NO_SPACES:
                # The library splits "ill-disposed" at the hyphen; the text does not.
                last = words.pop()
                word = replace(word, text=last.text + text, start=last.start)
            words.append(word)
        return tuple(words)


def _loops(text: str) -> bool:
    data = text.encode()
    return len(data) / len(zlib.compress(data)) > _LOOPING
