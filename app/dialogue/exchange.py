"""One-shot uses of the roles, for doors without a session: a whole file in, a whole reply out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np

from app.audio.buffer import AudioBuffer
from app.dialogue.agreement import join_words
from app.dialogue.config import SessionConfig
from app.dialogue.endpointing import FRAME
from app.dialogue.guards import cleaned, nobody_said
from app.dialogue.segmenter import Segmenter
from app.dialogue.utterance import FinalWords, quietest, timed
from app.roles import (
    SAMPLE_RATE,
    AudioChunk,
    Busy,
    ChatMessage,
    Job,
    LlmOptions,
    RoleSet,
    Samples,
    SpeechOptions,
    SttOptions,
    Transcript,
    Urgency,
    Word,
)

_LONGEST = 25 * SAMPLE_RATE
"""A recogniser hears up to 30 s at once; longer recordings are cut at a pause before this, or else
at the quietest spot of the last seconds."""
_CUT_SEARCH = 4 * SAMPLE_RATE
_PAUSE = int(0.4 * SAMPLE_RATE)
_EDGE = int(0.3 * SAMPLE_RATE)
_SPEECH = 0.4


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said in one stretch of a recording. `start` and the times of `words` are seconds from
    the beginning of the recording."""

    start: float
    words: tuple[Word, ...]
    language: str
    confidence: float
    no_speech: float
    seconds: float


async def transcribe(
    roles: RoleSet, sound: AsyncIterator[Samples], options: SttOptions, owner: str
) -> FinalWords:
    """The words of a recording of any length: see `hear`."""
    pieces = [heard async for heard in hear(roles, sound, options, owner)]
    words = tuple(word for heard in pieces for word in heard.words)
    total = sum(heard.seconds for heard in pieces) or 1
    return FinalWords(
        join_words([word.text for word in words]),
        words,
        pieces[-1].language if pieces else options.language or "en",
        sum(heard.confidence * heard.seconds for heard in pieces) / total,
        0.0 if pieces else 1.0,
    )


async def hear(
    roles: RoleSet, sound: AsyncIterator[Samples], options: SttOptions, owner: str
) -> AsyncGenerator[Heard, None]:
    """The words of a recording of any length (float32 blocks, 16 kHz), heard in pieces between
    pauses: memory stays flat, and silence is never transcribed. Somebody may wait for the first
    piece; the rest of a long recording gives way to people who talk."""
    urgency = Urgency.FINAL
    async with aclosing(_pieces(roles, sound)) as pieces:
        async for start, piece, voiced_ms in pieces:
            transcript = cleaned(await _recognised(roles, piece, options, Job(owner, urgency)))
            urgency = Urgency.BACKGROUND
            if nobody_said(transcript.text, transcript.confidence, transcript.no_speech, voiced_ms):
                continue
            offset = start / SAMPLE_RATE
            seconds = len(piece) / SAMPLE_RATE
            words = tuple(
                replace(w, start=round(w.start + offset, 3), end=round(w.end + offset, 3))
                for w in timed(transcript, seconds)
            )
            yield Heard(
                offset, words, transcript.language, transcript.confidence, transcript.no_speech, seconds
            )


async def _recognised(roles: RoleSet, piece: Samples, options: SttOptions, job: Job) -> Transcript:
    while True:
        try:
            return await roles.stt.transcribe(piece, options, job)
        except Busy as busy:
            if job.urgency < Urgency.BACKGROUND:
                raise
            await asyncio.sleep(busy.retry_after)


async def _pieces(
    roles: RoleSet, sound: AsyncIterator[Samples]
) -> AsyncGenerator[tuple[int, Samples, float], None]:
    """Stretches that hold speech: (first sample, samples, ms of speech)."""
    stream = roles.vad.stream()
    audio = AudioBuffer()
    position = begin = speech_end = 0
    voiced = 0
    speaking = False
    async for block in sound:
        audio.append(block)
        while audio.end - position >= FRAME:
            probability = await stream.probability(audio.view(position, position + FRAME))
            position += FRAME
            if probability >= _SPEECH:
                if not speaking:
                    speaking, voiced = True, 0
                    begin = max(audio.start, position - FRAME - _EDGE, speech_end)
                voiced += FRAME
                speech_end = position
            if not speaking:
                audio.drop_before(position - 2 * _EDGE)
                continue
            length = position - begin
            if position - speech_end >= (_PAUSE if length > 8 * SAMPLE_RATE else 3 * _PAUSE):
                end = min(speech_end + _EDGE, position)
                yield begin, audio.view(begin, end).copy(), voiced / SAMPLE_RATE * 1000
                speaking, speech_end = False, end
                audio.drop_before(end)
            elif length >= _LONGEST:
                end = quietest(audio, position - _CUT_SEARCH, position)
                yield begin, audio.view(begin, end).copy(), voiced / SAMPLE_RATE * 1000
                begin, voiced = end, position - end
                audio.drop_before(end)
    if speaking:
        yield begin, audio.view(begin, audio.end).copy(), voiced / SAMPLE_RATE * 1000


async def write_reply(
    roles: RoleSet, messages: Sequence[ChatMessage], config: SessionConfig, owner: str
) -> str:
    """The language model's whole answer to `messages`."""
    options = LlmOptions(config.max_reply_tokens, config.temperature)
    pieces = [p async for p in roles.llm.reply(messages, options, Job(owner, Urgency.SPEECH))]
    return "".join(p for p in pieces if isinstance(p, str)).strip()


async def speak(
    roles: RoleSet, text: str, options: SpeechOptions, owner: str
) -> AsyncGenerator[AudioChunk, None]:
    """`text` of any length as sound, sentence by sentence."""
    segmenter = Segmenter()
    for segment in [*segmenter.feed(text), *segmenter.finish()]:
        async with aclosing(roles.tts.speak(segment, options, Job(owner, Urgency.SPEECH))) as chunks:
            async for chunk in chunks:
                yield chunk


async def speak_all(roles: RoleSet, text: str, options: SpeechOptions, owner: str) -> AudioChunk:
    """`text` as one chunk."""
    pieces = [c.samples async for c in speak(roles, text, options, owner)]
    return AudioChunk(np.concatenate(pieces) if pieces else np.zeros(0, np.float32), roles.tts.sample_rate)
