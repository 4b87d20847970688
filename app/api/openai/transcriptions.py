"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`, as OpenAI's clients know them."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from app.api.context import Context, Ctx, Owner
from app.api.errors import from_validation
from app.api.openai.errors import OpenAiRoute, error_body
from app.api.openai.requests import Streamed, check_model, event, read_form, unless_gone
from app.api.openai.transcripts import (
    continued,
    language_code,
    language_name,
    segments,
    srt,
    vtt,
)
from app.api.rest import ready
from app.audio.files import stream_file
from app.dialogue.exchange import Heard, hear
from app.roles import SAMPLE_RATE, BadInput, ColloquyError, RoleSet, Samples, SttOptions

router = APIRouter(tags=["openai"], route_class=OpenAiRoute)

_AUDIO_TOKENS = 10
"""A second, as OpenAI counts sound."""
_PROMPT = 2000
"""Characters at the end of a prompt that are looked at; a recogniser has room for about half."""


class Wish(BaseModel):
    """The fields of the form besides `file`. What OpenAI has besides is ignored."""

    model: str = Field("", description="any name: the server has one model for this")
    language: str | None = None
    prompt: str = Field("", description="what was said before, or words that may come up")
    keywords: list[Annotated[str, Field(max_length=100)]] = Field([], description="words that may come up")
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: float = Field(0, ge=0, le=1, description="has no effect")
    timestamp_granularities: list[Literal["word", "segment"]] = ["segment"]
    stream: bool = False


_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        **Wish.model_json_schema()["properties"],
                    },
                }
            }
        },
    }
}


@router.post("/v1/audio/transcriptions", openapi_extra=_FORM)
async def transcriptions(request: Request, context: Ctx, owner: Owner) -> Response:
    """What is said in a recording."""
    return await _answer(request, context, owner, translate=False)


@router.post("/v1/audio/translations", openapi_extra=_FORM)
async def translations(request: Request, context: Ctx, owner: Owner) -> Response:
    """What is said in a recording, in English; for models that can translate."""
    return await _answer(request, context, owner, translate=True)


async def _answer(request: Request, context: Context, owner: str, translate: bool) -> Response:
    roles = await ready(context)
    file, fields = await read_form(request, context.settings.max_upload_mb)
    async with AsyncExitStack() as resources:
        resources.push_async_callback(file.close)
        wish = _wish(fields)
        check_model(context, wish.model, "stt", "stt_partial")
        work = _Recording(file, context.settings.max_audio_s)
        sound = await resources.enter_async_context(aclosing(work.sound()))
        heard = hear(roles, sound, _options(context, wish, translate), owner)
        pieces = await resources.enter_async_context(aclosing(heard))
        if wish.stream:
            # What is no recording is refused before the answer begins.
            first = await unless_gone(request.receive, _next(pieces))
            events = _events(roles, work, wish, first, pieces)
            return Streamed(events, resources.pop_all(), "text/event-stream")
        whole = await unless_gone(request.receive, _all(pieces))
    # Nobody reads what is said to a client that has left; the number is for the log.
    return Response(status_code=499) if whole is None else _body(wish, translate, whole, work.seconds)


def _wish(fields: dict[str, list[str]]) -> Wish:
    if fields.get("response_format") == ["diarized_json"]:
        raise BadInput(
            "response_format: speakers are not told apart here; ask for verbose_json",
            field="response_format",
        )
    lists = ("timestamp_granularities", "keywords")
    given = {name: values if name in lists else values[-1] for name, values in fields.items()}
    try:
        return Wish.model_validate(given)
    except ValidationError as error:
        raise from_validation(error.errors()) from error


def _options(context: Context, wish: Wish, translate: bool) -> SttOptions:
    if translate:
        return SttOptions(None, prompt=wish.prompt[-_PROMPT:], translate=True)
    language = language_code(wish.language) if wish.language else context.default_config().language
    if context.settings.english_only and language != "en":
        raise BadInput(
            "language: this server hears English only: LANGUAGE=auto is for others",
            field="language",
        )
    language = None if language == "auto" else language
    return SttOptions(language, tuple(wish.keywords), wish.prompt[-_PROMPT:])


@dataclass(slots=True)
class _Recording:
    """An upload; `seconds` is how much of it has been heard."""

    file: UploadFile
    max_seconds: float
    seconds: float = 0.0

    async def sound(self) -> AsyncGenerator[Samples, None]:
        """In blocks, at 16 kHz."""
        async with aclosing(stream_file(self.file.file, max_seconds=self.max_seconds)) as blocks:
            async for block in blocks:
                self.seconds += len(block) / SAMPLE_RATE
                yield block


async def _next(pieces: AsyncIterator[Heard]) -> Heard | None:
    return await anext(pieces, None)


async def _all(pieces: AsyncIterator[Heard]) -> list[Heard]:
    return [piece async for piece in pieces]


def _text(pieces: list[Heard]) -> str:
    return continued("", [word for piece in pieces for word in piece.words])


def _body(wish: Wish, translate: bool, heard: list[Heard], seconds: float) -> Response:
    text = _text(heard)
    usage = {"type": "duration", "seconds": math.ceil(seconds)}
    if wish.response_format == "json":
        return _json({"text": text} if translate else {"text": text, "usage": usage})
    if wish.response_format == "text":
        return Response(text + "\n", media_type="text/plain")
    lines = segments(heard)
    if wish.response_format == "srt":
        return Response(srt(lines), media_type="text/plain")
    if wish.response_format == "vtt":
        return Response(vtt(lines), media_type="text/plain")
    language = "en" if translate or not heard else max(heard, key=lambda h: h.seconds).language
    body: dict[str, Any] = {
        "task": "translate" if translate else "transcribe",
        "language": language_name(language),
        "duration": round(seconds, 3),
        "text": text,
        "usage": usage,
    }
    if "segment" in wish.timestamp_granularities:
        body["segments"] = [line.body(wish.temperature) for line in lines]
    if "word" in wish.timestamp_granularities:
        body["words"] = [
            {"word": word.text, "start": word.start, "end": word.end} for h in heard for word in h.words
        ]
    return _json(body)


def _json(body: dict[str, Any]) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")


async def _events(
    roles: RoleSet, work: _Recording, wish: Wish, first: Heard | None, rest: AsyncIterator[Heard]
) -> AsyncGenerator[bytes, None]:
    """Text as it is recognised; what was sent does not change."""
    text = last = ""
    try:
        piece = first
        while piece is not None:
            delta = continued(last, piece.words)
            text, last = text + delta, piece.words[-1].text
            yield event({"type": "transcript.text.delta", "delta": delta})
            piece = await _next(rest)
    except ColloquyError as error:
        yield event({"type": "error", **error_body(error)})
        return
    heard, written = math.ceil(work.seconds * _AUDIO_TOKENS), roles.llm.count_tokens(text) if text else 0
    usage = {
        "type": "tokens",
        "input_tokens": heard,
        "output_tokens": written,
        "total_tokens": heard + written,
        "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
    }
    yield event({"type": "transcript.text.done", "text": text, "usage": usage})
