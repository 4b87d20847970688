"""Engines as the metrics see them: each wrapper does what its engine does and watches."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence

from app.observability.metrics import Metrics
from app.roles import (
    SAMPLE_RATE,
    AudioChunk,
    ChatMessage,
    EngineInfo,
    Job,
    LanguageModel,
    LlmEnd,
    LlmOptions,
    LlmPiece,
    Samples,
    SpeechOptions,
    SpeechToText,
    SttOptions,
    TextToSpeech,
    Tool,
    Transcript,
    Voice,
)


class MeasuredStt:
    """Real-time factor of each pass."""

    def __init__(self, inner: SpeechToText, metrics: Metrics) -> None:
        self._inner, self._metrics = inner, metrics

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    async def close(self) -> None:
        """Close the engine."""
        await self._inner.close()

    async def transcribe(self, audio: Samples, options: SttOptions, job: Job) -> Transcript:
        """See `SpeechToText`."""
        began = time.monotonic()
        transcript = await self._inner.transcribe(audio, options, job)
        if len(audio):
            self._metrics.asr_rtf.observe((time.monotonic() - began) / (len(audio) / SAMPLE_RATE))
        return transcript


class MeasuredLlm:
    """Time to first token, pace and queue."""

    def __init__(self, inner: LanguageModel, metrics: Metrics) -> None:
        self._inner, self._metrics = inner, metrics

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    @property
    def context_tokens(self) -> int:
        return self._inner.context_tokens

    def count_tokens(self, text: str) -> int:
        """See `LanguageModel`."""
        return self._inner.count_tokens(text)

    async def close(self) -> None:
        """Close the engine."""
        await self._inner.close()

    async def prepare(self, messages: Sequence[ChatMessage], job: Job, tools: tuple[Tool, ...] = ()) -> None:
        """See `LanguageModel`."""
        await self._inner.prepare(messages, job, tools)

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece, None]:
        """See `LanguageModel`. A piece of text, or of a call, counts as a token, which it is for most
        models."""
        waiting = self._metrics.llm_request_queue_length
        began = time.monotonic()
        first = 0.0
        pieces = 0
        stream = self._inner.reply(messages, options, job)
        waiting.inc()
        try:
            async for piece in stream:
                if not isinstance(piece, LlmEnd):
                    pieces += 1
                    if pieces == 1:
                        waiting.dec()
                        first = time.monotonic()
                        self._metrics.llm_ttft_seconds.observe(first - began)
                yield piece
        finally:
            if not pieces:
                waiting.dec()
            elif pieces > 1:
                self._metrics.llm_tokens_per_second.observe(
                    (pieces - 1) / max(1e-6, time.monotonic() - first)
                )
            await stream.aclose()


class MeasuredTts:
    """Latency to the first sound of a piece, and real-time factor."""

    def __init__(self, inner: TextToSpeech, metrics: Metrics, mode: str) -> None:
        self._inner, self._metrics, self._mode = inner, metrics, mode

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    @property
    def sample_rate(self) -> int:
        return self._inner.sample_rate

    def voices(self) -> Sequence[Voice]:
        """See `TextToSpeech`."""
        return self._inner.voices()

    async def close(self) -> None:
        """Close the engine."""
        await self._inner.close()

    async def speak(self, text: str, options: SpeechOptions, job: Job) -> AsyncGenerator[AudioChunk, None]:
        """See `TextToSpeech`. Time that the listener keeps the generator waiting is not counted."""
        work = sound = 0.0
        stream = self._inner.speak(text, options, job)
        try:
            while True:
                began = time.monotonic()
                chunk = await anext(stream, None)
                work += time.monotonic() - began
                if chunk is None:
                    break
                if not sound:
                    self._metrics.tts_synthesis_latency_seconds.labels(self._mode).observe(work)
                sound += chunk.duration
                yield chunk
        finally:
            if sound:
                self._metrics.tts_rtf.labels(self._mode).observe(work / sound)
            await stream.aclose()
