"""Whisper on CTranslate2 (faster-whisper), int8 on a CPU.

It was trained on windows of 30 s, padded with silence, and its encoder costs as much as its window
is long. Up to 9 s of sound get a window of 15 s: a third of the work for the same words (on 108
recordings of `corpus`: 140 ms of processor time in place of 380, word error rate 1.8 and 1.9 %).
With 10 s and less it begins to say everything twice. Model: Radford et al. 2022, "Robust Speech
Recognition via Large-Scale Weak Supervision".
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.workers import Workers
from app.roles import (
    SAMPLE_RATE,
    BadInput,
    EngineFailed,
    EngineInfo,
    Job,
    Samples,
    SttOptions,
    Transcript,
    Word,
)

_MIN_SAMPLES = SAMPLE_RATE // 10
_WINDOW = 30 * SAMPLE_RATE
_FRAMES_PER_SECOND = 100
_SHORT = 9 * _FRAMES_PER_SECOND
_SHORT_WINDOW = 15 * _FRAMES_PER_SECOND
"""In frames: the window for sound of up to `_SHORT`."""
_TOKENS_PER_SECOND = 8
"""More than people say: a Chinese character is 1.2 tokens, an English word 1.3. It bounds loops."""
_NO_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
_LOOPING = 2.4
"""Text that compresses better than this repeats itself (Whisper's own threshold)."""
_BLOCK = SAMPLE_RATE // 10
_AS_LOUD = 0.01
"""Of the power of the loudest tenth of a second: 20 dB below it people still speak."""
_REST = int(1.2 * SAMPLE_RATE)
"""So much loud sound behind the last word is more than its end."""
_SILENT, _SURE = 0.5, 0.55
"""Words for the rest count if the model does not hold it for silence, and is as sure of them."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """What came of one window. `broken`: it repeats itself, or never came to an end."""

    text: str
    tokens: list[int]
    tokenizer: Any
    encoded: Any
    result: Any
    broken: bool


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
        """See `SpeechToText`. `language` None detects, `translate` translates (multilingual models)."""
        if options.translate and not self._model.model.is_multilingual:
            raise BadInput(
                f"{self._name} hears English only and cannot translate: start the server with "
                "STT_MODEL_NAME=whisper-base, or LANGUAGE=auto",
                field="model",
            )
        if options.language is not None and options.language not in self._model.supported_languages:
            raise BadInput(
                f"{self._name} does not hear the language {options.language!r}"
                + (": it hears English only" if not self._model.model.is_multilingual else ""),
                field="language",
            )
        if len(audio) < _MIN_SAMPLES:
            return Transcript("", confidence=0.0, no_speech=1.0)
        return await self._workers.run(job, self._transcribe, audio, options)

    def _transcribe(self, audio: Samples, options: SttOptions) -> Transcript:
        """One window, one pass: the library's own loop would go on behind the last word it
        timed and write words for the silence there. Sound that the short window repeats gets the
        whole one."""
        features = self._model.feature_extractor(audio[:_WINDOW])
        frames = features.shape[-1]
        whole = self._model.feature_extractor.nb_max_frames
        pass_ = self._decode(features, options, _SHORT_WINDOW if frames <= _SHORT else whole)
        if frames <= _SHORT and pass_.broken and any(c.isalnum() for c in pass_.text):
            pass_ = self._decode(features, options, whole)
        no_speech = float(pass_.result.no_speech_prob)
        language = pass_.tokenizer.language_code
        if not pass_.text or _loops(pass_.text):
            return Transcript("", language=language, confidence=0.0, no_speech=no_speech)
        words = self._words(pass_, frames) if options.word_times else ()
        confidence = min(1.0, math.exp(pass_.result.scores[0]))
        heard = Transcript(pass_.text, words, language, confidence=confidence, no_speech=no_speech)
        if words and (rest := _unheard(audio[:_WINDOW], words[-1].end)) is not None:
            return _joined(heard, self._transcribe(audio[rest:], options), rest / SAMPLE_RATE)
        return heard

    def _decode(self, features: Any, options: SttOptions, window: int) -> _Pass:
        """Greedy text of `features` ([mels, frames]), padded or cut to `window` frames."""
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        model = self._model
        encoded = model.encode(pad_or_trim(features, window))
        multilingual = model.model.is_multilingual
        language = (options.language if multilingual else "en") or self._detect(encoded)
        task = "translate" if options.translate else "transcribe"
        tokenizer = Tokenizer(model.hf_tokenizer, multilingual, task=task, language=language)
        hotwords = ", ".join(options.vocabulary)
        context = tokenizer.encode(" " + options.prompt.strip()) if options.prompt else []
        # Together they get half of the model's tokens: the other half is for what is heard.
        room = model.max_length // 2 - 1 - (len(tokenizer.encode(" " + hotwords)) if hotwords else 0)
        prompt = model.get_prompt(
            tokenizer, context[-room:] if room > 0 else [], without_timestamps=True, hotwords=hotwords or None
        )
        bound = 16 + int(features.shape[-1] / _FRAMES_PER_SECOND * _TOKENS_PER_SECOND)
        result = model.model.generate(
            encoded,
            [prompt],
            beam_size=1,
            # CTranslate2 gives half of `max_length` to new text, and no more than the prompt leaves.
            max_length=min(model.max_length, max(2 * bound, len(prompt) + bound)),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = [t for t in result.sequences_ids[0] if t < tokenizer.eot]
        text = tokenizer.decode(tokens).strip()
        return _Pass(text, tokens, tokenizer, encoded, result, broken=len(tokens) >= bound or _loops(text))

    def _detect(self, encoded: Any) -> str:
        [[(token, _), *_]] = self._model.model.detect_language(encoded)
        return str(token).strip("<|>")

    def _words(self, pass_: _Pass, frames: int) -> tuple[Word, ...]:
        """Words with times from the decoder's attention (dynamic time warping)."""
        from faster_whisper.transcribe import merge_punctuations

        tokenizer = pass_.tokenizer
        [aligned] = self._model.find_alignment(tokenizer, [pass_.tokens], pass_.encoded, frames)
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


def _unheard(audio: Samples, heard_to: float) -> int | None:
    """Where sound goes on, as loud as before, behind the last word; None if it does not. Without times to
    write, the model takes the end of a sentence for the end of all when somebody else goes on after it."""
    begin = int(heard_to * SAMPLE_RATE)
    blocks = len(audio) // _BLOCK
    levels = np.square(audio[: blocks * _BLOCK].reshape(blocks, _BLOCK)).mean(axis=1)
    loud = levels > levels.max() * _AS_LOUD
    return begin if loud[-(-begin // _BLOCK) :].sum() * _BLOCK >= _REST else None


def _joined(heard: Transcript, rest: Transcript, offset: float) -> Transcript:
    if not rest.text or rest.no_speech > _SILENT or rest.confidence < _SURE:
        return heard
    words = tuple(replace(w, start=w.start + offset, end=w.end + offset) for w in rest.words)
    return replace(
        heard,
        text=f"{heard.text} {rest.text}",
        words=heard.words + words,
        confidence=min(heard.confidence, rest.confidence),
        no_speech=min(heard.no_speech, rest.no_speech),
    )


def _loops(text: str) -> bool:
    data = text.encode()
    return len(data) / len(zlib.compress(data)) > _LOOPING
