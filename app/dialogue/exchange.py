"""One-shot uses of the roles, for doors without a session: a whole file in, a whole reply out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np

from app.audio.buffer import AudioBuffer
from app.dialogue.agreement import join_words
from app.dialogue.config import SessionConfig
from app.dialogue.endpointing import FRAME
from app.dialogue.guards import cleaned, nobody_said
from app.dialogue.segmenter import Segmenter
from app.dialogue.utterance import FinalWords, timed
from app.roles import (
    SAMPLE_RATE,
    AudioChunk,
    ChatMessage,
    Job,
    LlmOptions,
    RoleSet,
    Samples,
    SpeechOptions,
    SttOptions,
    Urgency,
    Word,
)

_LONGEST = 25 * SAMPLE_RATE
"""A recogniser hears up to 30 s at once; longer recordings are cut at a pause before this."""
_PAUSE = int(0.4 * SAMPLE_RATE)
_EDGE = int(0.3 * SAMPLE_RATE)
_SPEECH = 0.4


async def transcribe(
    roles: RoleSet, sound: AsyncIterator[Samples], options: SttOptions, owner: str
) -> FinalWords:
    """The words of a recording of any length (float32 blocks, 16 kHz), heard in pieces between
    pauses: memory stays flat, and silence is never transcribed."""
    words: list[Word] = []
    heard: list[tuple[float, float]] = []
    language = options.language or "en"
    async for start, piece, voiced_ms in _pieces(roles, sound):
        transcript = cleaned(await roles.stt.transcribe(piece, options, Job(owner, Urgency.FINAL)))
        if nobody_said(transcript.text, transcript.confidence, transcript.no_speech, voiced_ms):
            continue
        language = transcript.language
        heard.append((transcript.confidence, len(piece)))
        offset = start / SAMPLE_RATE
        spoken = timed(transcript, len(piece) / SAMPLE_RATE)
        words += [replace(w, start=w.start + offset, end=w.end + offset) for w in spoken]
    total = sum(n for _, n in heard) or 1
    confidence = sum(c * n for c, n in heard) / total
    return FinalWords(
        join_words([w.text for w in words]), tuple(words), language, confidence, 0.0 if heard else 1.0
    )


async def _pieces(roles: RoleSet, sound: AsyncIterator[Samples]) -> AsyncIterator[tuple[int, Samples, float]]:
    """Stretches that hold speech: (first sample, samples, ms of speech)."""
    stream = roles.vad.stream()
    audio = AudioBuffer()
    position = begin = speech_end = 0
    voiced = 0
    speaking = False
    quiet_at: int | None = None
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
                quiet_at = None
            elif speaking and quiet_at is None:
                quiet_at = position
            length = position - begin
            pause = position - speech_end >= (_PAUSE if length > 8 * SAMPLE_RATE else 3 * _PAUSE)
            if speaking and (pause or length >= _LONGEST):
                end = min(speech_end + _EDGE, position) if pause else position
                yield begin, audio.view(begin, end).copy(), voiced / SAMPLE_RATE * 1000
                speaking, speech_end = False, end
                audio.drop_before(end)
            elif not speaking:
                audio.drop_before(position - 2 * _EDGE)
    if speaking:
        yield begin, audio.view(begin, audio.end).copy(), voiced / SAMPLE_RATE * 1000


async def write_reply(
    roles: RoleSet, messages: Sequence[ChatMessage], config: SessionConfig, owner: str
) -> str:
    """The language model's whole answer to `messages`."""
    options = LlmOptions(config.max_reply_tokens, config.temperature)
    pieces = [p async for p in roles.llm.reply(messages, options, Job(owner, Urgency.SPEECH))]
    return "".join(p for p in pieces if isinstance(p, str)).strip()


async def speak(roles: RoleSet, text: str, options: SpeechOptions, owner: str) -> AsyncIterator[AudioChunk]:
    """`text` of any length as sound, sentence by sentence."""
    segmenter = Segmenter()
    for segment in [*segmenter.feed(text), *segmenter.finish()]:
        async for chunk in roles.tts.speak(segment, options, Job(owner, Urgency.SPEECH)):
            yield chunk


async def speak_all(roles: RoleSet, text: str, options: SpeechOptions, owner: str) -> AudioChunk:
    """`text` as one chunk."""
    pieces = [c.samples async for c in speak(roles, text, options, owner)]
    return AudioChunk(np.concatenate(pieces) if pieces else np.zeros(0, np.float32), roles.tts.sample_rate)
