"""`POST /v1/audio/speech`, as OpenAI's clients know it."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from app.api.context import Ctx, Owner
from app.api.openai.errors import OpenAiRoute, error_body
from app.api.openai.requests import Streamed, check_model, event, unless_gone
from app.api.openai.voices import check_voice, own_voice
from app.api.rest import ready
from app.audio.encode import MEDIA_TYPES, Encoder, Format
from app.dialogue.exchange import speak
from app.roles import AudioChunk, BadInput, ColloquyError, SpeechOptions

router = APIRouter(tags=["openai"], route_class=OpenAiRoute)

_SLOWEST, _FASTEST = 0.5, 2.0
"""What voices can do by themselves; the rest of a speed is made of the finished sound."""
_AUDIO_TOKENS = 20
"""A second of speech, as OpenAI counts it."""


def _name(voice: Any) -> Any:
    return voice["id"] if isinstance(voice, dict) and "id" in voice else voice


class SpeechRequest(BaseModel):
    """What is to be said, and how. Fields that OpenAI has besides (`instructions`) are ignored."""

    input: str = Field(min_length=1, max_length=4096)
    model: str = Field("", description="any name: the server has one voice model")
    voice: Annotated[str | None, BeforeValidator(_name)] = Field(
        None, description='a voice of ours, as a name or {"id": name}; OpenAI\'s names mean the default voice'
    )
    response_format: Format = "mp3"
    speed: float = Field(1, ge=0.25, le=4)
    stream_format: Literal["audio", "sse"] = "audio"


@router.post("/v1/audio/speech")
async def speech(body: SpeechRequest, request: Request, context: Ctx, owner: Owner) -> Response:
    """`input` as sound, 24 kHz, sent while it is made."""
    roles = await ready(context)
    check_model(context, body.model, "tts")
    check_voice(roles.tts.voices(), body.voice, "voice")
    pace = min(max(body.speed, _SLOWEST), _FASTEST)
    options = SpeechOptions(own_voice(body.voice), context.default_config().language or "en", speed=pace)
    async with AsyncExitStack() as resources:
        sound = await resources.enter_async_context(aclosing(speak(roles, body.input, options, owner)))
        encoder = await asyncio.to_thread(
            Encoder, body.response_format, roles.tts.sample_rate, body.speed / pace
        )
        # What cannot be said is refused before the answer begins.
        first = await unless_gone(request.receive, _first(sound))
        if first is None:
            # Nobody reads what is said to a client that has left; the number is for the log.
            return Response(status_code=499)
        if body.stream_format == "audio":
            media_type = MEDIA_TYPES[body.response_format]
            return Streamed(_file(encoder, first, sound), resources.pop_all(), media_type)
        events = _events(encoder, first, sound, roles.llm.count_tokens(body.input), body.speed / pace)
        return Streamed(events, resources.pop_all(), "text/event-stream")


async def _first(sound: AsyncIterator[AudioChunk]) -> AudioChunk:
    chunk = await anext(sound, None)
    if chunk is None:
        raise BadInput("input: there is nothing to say in that text", field="input")
    return chunk


async def _file(
    encoder: Encoder, first: AudioChunk, rest: AsyncIterator[AudioChunk]
) -> AsyncGenerator[bytes, None]:
    """The bytes of the file, piece by piece."""
    chunk: AudioChunk | None = first
    while chunk is not None:
        if data := await asyncio.to_thread(encoder.push, chunk.samples):
            yield data
        chunk = await anext(rest, None)
    yield await asyncio.to_thread(encoder.finish)


async def _events(
    encoder: Encoder, first: AudioChunk, rest: AsyncIterator[AudioChunk], tokens: int, tempo: float
) -> AsyncGenerator[bytes, None]:
    """The same as events."""
    seconds = first.duration

    async def counted() -> AsyncGenerator[AudioChunk, None]:
        nonlocal seconds
        async for chunk in rest:
            seconds += chunk.duration
            yield chunk

    try:
        async for data in _file(encoder, first, counted()):
            yield event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
    except ColloquyError as error:
        yield event({"type": "error", **error_body(error)})
        return
    spoken = math.ceil(seconds / tempo * _AUDIO_TOKENS)
    usage = {"input_tokens": tokens, "output_tokens": spoken, "total_tokens": tokens + spoken}
    yield event({"type": "speech.audio.done", "usage": usage})
