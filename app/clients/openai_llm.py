"""Any chat API that speaks OpenAI's protocol (OpenAI, Groq, vLLM, llama.cpp's server, …)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any, Literal

from app.roles import (
    BadInput,
    ChatMessage,
    ContextTooLong,
    EngineFailed,
    EngineInfo,
    Job,
    LlmEnd,
    LlmOptions,
    LlmPiece,
    Misconfigured,
    Tool,
    ToolCallPiece,
)


class OpenAiLlm:
    """`LanguageModel` over `POST {base_url}/chat/completions` with streaming."""

    def __init__(
        self, model: str, *, base_url: str | None, api_key: str, context_tokens: int, timeout_s: float
    ) -> None:
        """`timeout_s` bounds the connection and each wait for the next piece. The SDK tries twice
        more while nothing has come yet."""
        import openai

        self._errors = openai
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=2
        )
        self._model = model
        self._context_tokens = context_tokens
        self._timeout_s = timeout_s

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("llm", "openai", self._model)

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """An estimate that errs high: a token a Chinese character, one for three Latin letters."""
        return len(text.encode()) // 3 + 8

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def prepare(self, messages: Sequence[ChatMessage], job: Job, tools: tuple[Tool, ...] = ()) -> None:
        """Nothing: reading ahead would be billed."""

    async def reply(
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece, None]:
        """See `LanguageModel`. Closing the generator closes the HTTP stream, which is how these
        servers learn to stop."""
        openai = self._errors
        try:
            stream: Any = await self._client.chat.completions.create(
                **_request(self._model, messages, options)
            )
            end = LlmEnd("stop")
            try:
                chunks = aiter(stream)
                while True:
                    async with asyncio.timeout(self._timeout_s):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    if chunk.usage:
                        prompt, completion = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
                        end = replace(end, prompt_tokens=prompt, completion_tokens=completion)
                    if not chunk.choices:
                        continue
                    choice = chunk.choices[0]
                    if choice.delta.content:
                        yield choice.delta.content
                    for call in choice.delta.tool_calls or ():
                        yield _call_piece(call)
                    if choice.finish_reason:
                        end = replace(end, reason=_REASONS.get(choice.finish_reason, "stop"))
            finally:
                await stream.close()
            yield end
        except openai.AuthenticationError as error:
            raise Misconfigured("the language model's API refused the key: check LLM_API_KEY") from error
        except openai.NotFoundError as error:
            raise Misconfigured(
                f"the language model's API knows no model {self._model!r}: check LLM_MODEL_NAME"
            ) from error
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if _TOO_LONG.search(f"{error.code} {error.message}"):
                raise ContextTooLong(f"the language model's API refused: {error.message}") from error
            raise BadInput(f"the language model's API refused: {error.message}") from error
        except (openai.APITimeoutError, TimeoutError) as error:
            raise EngineFailed(
                f"the language model's API did not answer within {self._timeout_s:g} s"
            ) from error
        except openai.APIConnectionError as error:
            raise EngineFailed("the language model's API cannot be reached: check LLM_BASE_URL") from error
        except openai.APIError as error:
            raise EngineFailed(f"the language model's API failed: {error.message}") from error


_TOO_LONG = re.compile(r"context[ _](length|size|window)", re.IGNORECASE)
"""How servers say it; OpenAI has a code for it, others only a sentence."""
_REASONS: dict[str, Literal["stop", "length", "tool_calls"]] = {
    "length": "length",
    "tool_calls": "tool_calls",
}


def _request(model: str, messages: Sequence[ChatMessage], options: LlmOptions) -> dict[str, Any]:
    """What is sent; what was not asked for is left to the API."""
    request: dict[str, Any] = {
        "model": model,
        "messages": [_message(m) for m in messages],
        "temperature": options.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if options.max_tokens:
        request["max_tokens"] = options.max_tokens
    if options.top_p is not None:
        request["top_p"] = options.top_p
    if options.seed is not None:
        request["seed"] = options.seed
    if options.stop:
        request["stop"] = list(options.stop)
    if options.json_schema:
        schema = {"name": "reply", "schema": dict(options.json_schema)}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif options.json_schema is not None:
        request["response_format"] = {"type": "json_object"}
    if options.tools:
        request["tools"] = [{"type": "function", "function": _function(t)} for t in options.tools]
        choice = options.tool_choice
        if choice not in ("auto", "none", "required"):
            request["tool_choice"] = {"type": "function", "function": {"name": choice}}
        else:
            request["tool_choice"] = choice
    return request


def _function(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    return function | {"parameters": dict(tool.parameters)} if tool.parameters else function


def _message(m: ChatMessage) -> dict[str, Any]:
    if m.role == "tool":
        return {"role": "tool", "content": m.content, "tool_call_id": m.tool_call_id}
    if m.tool_calls:
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in m.tool_calls
        ]
        return {"role": m.role, "content": m.content or None, "tool_calls": calls}
    return {"role": m.role, "content": m.content}


def _call_piece(call: Any) -> ToolCallPiece:
    function = call.function
    return ToolCallPiece(
        call.index or 0,
        call.id or "",
        (function.name if function else "") or "",
        (function.arguments if function else "") or "",
    )
