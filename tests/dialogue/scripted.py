"""Roles that do what a test says, for tests that are about something else."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from app.roles import (
    SAMPLE_RATE,
    AudioChunk,
    ChatMessage,
    Embeddings,
    EngineFailed,
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


class LoudVad:
    """Speech is what is loud: for sound made by `speech`."""

    info = EngineInfo("vad", "loud")

    def stream(self) -> LoudVad:
        return self

    async def probability(self, frame: Samples) -> float:
        return 0.99 if float(np.abs(frame).max()) > 0.1 else 0.01

    async def close(self) -> None:
        pass


class CountingStt:
    """Hears one word of `words` for each 0.25 s of sound; keeps what it was asked."""

    info = EngineInfo("stt", "counting")

    def __init__(self, words: str = "one two three four five six seven eight nine ten") -> None:
        self.words = words.split()
        self.calls: list[int] = []
        self.fails = False
        self.deaf_under_s = 0.0
        self.gate: asyncio.Event | None = None

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        self.calls.append(len(audio))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise EngineFailed("the recogniser is broken")
        voiced = int((np.abs(audio) > 0.1).sum())
        if voiced < self.deaf_under_s * SAMPLE_RATE:
            return Transcript("", confidence=0.0, no_speech=1.0)
        return Transcript(" ".join(self.words[: round(voiced / SAMPLE_RATE * 4)]), confidence=0.9)

    async def close(self) -> None:
        pass


class ScriptedLlm:
    """Writes `text` word by word, `pause` seconds apart; counts what it began and what it ended."""

    info = EngineInfo("llm", "scripted")
    context_tokens = 4096

    def __init__(self, text: str = "First sentence here. Second sentence here. Third one.") -> None:
        self.text = text
        self.pause = 0.0
        self.asked: list[list[ChatMessage]] = []
        self.prepared: list[str] = []
        self.running = 0
        self.fails_after: int | None = None

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def prepare(self, messages: Sequence[ChatMessage], job: Job, tools: Sequence[Tool] = ()) -> None:
        self.prepared.append(messages[-1].content)

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[str, None]:
        self.asked.append(list(messages))
        self.running += 1
        try:
            for i, word in enumerate(self.text.split()):
                if self.fails_after is not None and i >= self.fails_after:
                    raise EngineFailed("the model is broken")
                await asyncio.sleep(self.pause)
                yield word if i == 0 else f" {word}"
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


class ToneTts:
    """A tone of `seconds_a_word` for each word; keeps what it said."""

    info = EngineInfo("tts", "tone")
    sample_rate = 16_000

    def __init__(self, seconds_a_word: float = 0.1) -> None:
        self.seconds_a_word = seconds_a_word
        self.said: list[str] = []
        self.running = 0
        self.fails = False

    def voices(self) -> Sequence[Voice]:
        return [Voice("en-Tone_none", "en")]

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        self.running += 1
        try:
            if self.fails:
                raise EngineFailed("the voice is broken")
            self.said.append(text)
            await asyncio.sleep(0)
            seconds = self.seconds_a_word * len(text.split())
            yield AudioChunk(np.full(int(seconds * self.sample_rate), 0.5, np.float32), self.sample_rate)
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


class WordEmbedding:
    """Texts lie near each other that have words in common, whatever their order."""

    info = EngineInfo("embedding", "words", "crc32")
    dimensions = 4096

    async def embed(self, texts: Sequence[str], job: Job) -> Embeddings:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for n, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[n, zlib.crc32(word.encode()) % self.dimensions] = 1
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return Embeddings(vectors, 0)

    async def close(self) -> None:
        pass


def speech(seconds: float) -> Samples:
    """Sound that `LoudVad` holds for speech, and that is no hum."""
    signs = np.random.default_rng(7).integers(0, 2, int(seconds * SAMPLE_RATE))
    return (signs - 0.5).astype(np.float32)


def silence(seconds: float) -> Samples:
    """Sound that it does not."""
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)
