"""`POST /v1/chat/completions`: the language model behind OpenAI's protocol."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.api.context import Context, Ctx, Owner
from app.api.openai.chat_request import ChatRequest, messages_of, options_of
from app.api.openai.errors import OpenAiRoute, Refused, error_body
from app.api.openai.requests import Streamed, check_model, event, unless_gone
from app.roles import (
    ColloquyError,
    ContextTooLong,
    Job,
    LanguageModel,
    LlmEnd,
    LlmPiece,
    NotReady,
    ToolCallPiece,
    Urgency,
)

log = logging.getLogger(__name__)
router = APIRouter(tags=["openai"], route_class=OpenAiRoute)


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(request: Request, body: ChatRequest, context: Ctx, owner: Owner) -> Response:
    """The next message of a conversation, or the functions it asks to be called."""
    check_model(context, body.model, "llm")
    messages, options = messages_of(body), options_of(body, context.settings.llm_temperature)
    llm = await _llm(context)
    head = _Head(body.model, f"fp_{sha256(llm.info.model.encode()).hexdigest()[:10]}")
    # A name of its own: it has one place among those who talk, however much is asked at once.
    job = Job(f"chat-{owner}", Urgency.SPEECH)
    async with AsyncExitStack() as resources:
        pieces = await resources.enter_async_context(aclosing(llm.reply(messages, options, job)))
        if body.parallel_tool_calls is False:
            pieces = _one_call(pieces)
        # What fails before the first piece has a status of its own, also in a stream.
        work = _some(pieces, 1 if body.stream else None)
        try:
            begun = await unless_gone(request.receive, work)
        except ContextTooLong as error:
            raise Refused(error.message, param="messages", openai_code="context_length_exceeded") from error
        if begun is None:
            # Nobody reads what is said to a client that has left; the number is for the log.
            return Response(status_code=499)
        if not body.stream:
            return JSONResponse(head.completion(begun))
        events = head.events(begun, pieces, body.usage_wanted)
        return Streamed(events, resources.pop_all(), "text/event-stream")


async def _some(pieces: AsyncIterator[LlmPiece], most: int | None) -> list[LlmPiece]:
    """The first `most` pieces, or all."""
    some: list[LlmPiece] = []
    while most is None or len(some) < most:
        if (piece := await anext(pieces, None)) is None:
            break
        some.append(piece)
    return some


async def _llm(context: Context) -> LanguageModel:
    """The language model, whatever else is still loading."""
    runtime = context.runtime
    if (status := runtime.status["llm"]).state != "ready":
        runtime.retry()
        raise NotReady(f"the language model is not ready yet ({status.state}): see /health", retry_after=3)
    llm: LanguageModel = await runtime.role("llm")
    return llm


async def _one_call(pieces: AsyncIterator[LlmPiece]) -> AsyncGenerator[LlmPiece, None]:
    """The pieces without calls beyond the first."""
    async for piece in pieces:
        if not isinstance(piece, ToolCallPiece) or piece.index == 0:
            yield piece


@dataclass(frozen=True, slots=True)
class _Head:
    """What all parts of one answer share."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, pieces: list[LlmPiece]) -> dict[str, Any]:
        """The answer in one."""
        calls: list[dict[str, Any]] = []
        end = LlmEnd("stop")
        for piece in pieces:
            if isinstance(piece, LlmEnd):
                end = piece
            elif isinstance(piece, ToolCallPiece):
                if piece.index == len(calls):
                    calls.append(_call(piece))
                else:
                    calls[piece.index]["function"]["arguments"] += piece.arguments
        text = "".join(piece for piece in pieces if isinstance(piece, str))
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text}
        message |= {"refusal": None, "annotations": []}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.reason}
        return self._with("chat.completion", choices=[choice], usage=_usage(end))

    async def events(
        self, begun: list[LlmPiece], pieces: AsyncIterator[LlmPiece], usage: bool
    ) -> AsyncGenerator[bytes, None]:
        """The answer piece by piece: what has `begun`, and the rest."""
        more = {"usage": None} if usage else {}

        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return event(self._with("chat.completion.chunk", choices=[choice], **more))

        end = LlmEnd("stop")
        yield chunk({"role": "assistant", "content": "", "refusal": None})
        try:
            while begun:
                piece = begun[0]
                if isinstance(piece, LlmEnd):
                    end = piece
                elif isinstance(piece, ToolCallPiece):
                    call = _call(piece) if piece.id else {"function": {"arguments": piece.arguments}}
                    yield chunk({"tool_calls": [{"index": piece.index, **call}]})
                else:
                    yield chunk({"content": piece})
                begun = await _some(pieces, 1)
        except ColloquyError as error:
            log.info("a reply failed on its way: %s", error.message)
            yield event(error_body(error))
            return
        yield chunk({}, end.reason)
        if usage:
            yield event(self._with("chat.completion.chunk", choices=[], usage=_usage(end)))
        yield b"data: [DONE]\n\n"

    def _with(self, kind: str, **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": self.fingerprint,
            **more,
        }


def _call(piece: ToolCallPiece) -> dict[str, Any]:
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"id": piece.id, "type": "function", "function": function}


def _usage(end: LlmEnd) -> dict[str, Any]:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
