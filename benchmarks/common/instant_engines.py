"""Engines that answer at once, so that what is left to measure is our own work around them.

They keep the contracts of `app.roles` and, like real ones, say something plausible: the recogniser
hears more words as the utterance grows, the voice speaks a second and a half.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import numpy as np

from app.roles import (
    SAMPLE_RATE,
    AudioChunk,
    ChatMessage,
    EngineInfo,
    Job,
    LlmOptions,
    Samples,
    SpeechOptions,
    SttOptions,
    Tool,
    Transcript,
    Voice,
)

REPLY = "That is what I thought it would be, too."
REPLY_S = 1.5
RATE = 24_000
_WORDS = "would you please tell me what the weather in the north is going to be like tomorrow".split()
_WORD_S = 0.3
_LOUD = 0.01


class LevelVad:
    """Speech is what is louder than -40 dBFS. Costs next to nothing."""

    info = EngineInfo("vad", "level")

    def stream(self) -> LevelVad:
        return self

    async def probability(self, frame: Samples) -> float:
        return float(np.dot(frame, frame) > _LOUD * _LOUD * len(frame))

    async def close(self) -> None:
        pass


class InstantStt:
    """Hears a word for every 0.3 s."""

    info = EngineInfo("stt", "instant")

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        heard = 1 + int(len(audio) / SAMPLE_RATE / _WORD_S)
        return Transcript(" ".join(_WORDS[:heard]), confidence=0.95)

    async def close(self) -> None:
        pass


class InstantLlm:
    """Says one sentence, word by word."""

    info = EngineInfo("llm", "instant")
    context_tokens = 4096

    def count_tokens(self, text: str) -> int:
        return len(text) // 4 + 1

    async def prepare(self, messages: Sequence[ChatMessage], job: Job, tools: Sequence[Tool] = ()) -> None:
        pass

    async def completeness(
        self, messages: Sequence[ChatMessage], job: Job, tools: Sequence[Tool] = ()
    ) -> float | None:
        return None

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[str, None]:
        for i, word in enumerate(REPLY.split()):
            yield word if i == 0 else f" {word}"

    async def close(self) -> None:
        pass


class InstantTts:
    """Speaks noise, loud enough to be heard, at the rate at which it is sent."""

    info = EngineInfo("tts", "instant")
    sample_rate = RATE

    def __init__(self, seconds: float = REPLY_S) -> None:
        noise = np.random.default_rng(3).normal(0, 0.1, int(seconds * RATE))
        self._sound = noise.clip(-1, 1).astype(np.float32)

    def voices(self) -> Sequence[Voice]:
        return [Voice("en-Instant_none", "en", sample_rate=RATE)]

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        yield AudioChunk(self._sound, RATE)

    async def close(self) -> None:
        pass
