"""What a client may ask of `/v1/chat/completions`, in our terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.openai.errors import Refused
from app.roles import ChatMessage, LlmOptions, Tool, ToolCall

_ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_MOST_STOPS = 4
_LONGEST_STOP = 500


class FunctionIn(BaseModel):
    """A function that may be called. `parameters` is a JSON Schema."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolIn(BaseModel):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: FunctionIn


class StreamOptions(BaseModel):
    """What a stream has besides."""

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A conversation and how to go on with it. What OpenAI has besides (`user`, `metadata`, `store`, …) is
    ignored."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str = Field(max_length=256)
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=2048)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    stop: Any = Field(None, description="a text, or up to 4")
    n: int | None = Field(None, ge=1, description="1 is all there is")
    tools: list[ToolIn] | None = Field(None, max_length=128)
    tool_choice: Any = Field(None, description="auto, none, required, or the function to call")
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = Field(None, description="not to be had")
    modalities: list[str] | None = Field(None, description="text is all there is")
    functions: Any = Field(None, description="the old form of tools: refused")

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream is to end with the tokens it cost."""
        return bool(self.stream_options and self.stream_options.include_usage)


def messages_of(body: ChatRequest) -> list[ChatMessage]:
    """The conversation. Raises `Refused`, naming the message."""
    return [_message(f"messages[{i}]", given) for i, given in enumerate(body.messages)]


def options_of(body: ChatRequest, temperature: float) -> LlmOptions:
    """How to go on; `temperature` where none is asked for. Raises `Refused`, naming the parameter."""
    if body.n not in (None, 1):
        raise _unsupported("n", "this server gives one choice: n must be 1")
    if body.logprobs:
        raise _unsupported("logprobs", "this server gives no log probabilities")
    if "audio" in (body.modalities or ()):
        raise _unsupported(
            "modalities", "this answers in text: for speech use /v1/audio/speech or /v1/realtime"
        )
    if body.functions:
        raise _unsupported("functions", "functions is the old form of tools: send tools")
    tools = tuple(
        Tool(t.function.name, t.function.description or "", t.function.parameters or {})
        for t in body.tools or ()
    )
    for i, tool in enumerate(tools):
        _check_text(tool.description, f"tools[{i}].function.description")
        _check_text(tool.parameters, f"tools[{i}].function.parameters")
    return LlmOptions(
        max_tokens=body.max_completion_tokens or body.max_tokens or 0,
        temperature=temperature if body.temperature is None else body.temperature,
        tools=tools,
        tool_choice=_tool_choice(body.tool_choice, tools),
        json_schema=_json_schema(body.response_format),
        stop=_stops(body.stop),
        top_p=body.top_p,
        seed=body.seed,
    )


def _message(place: str, given: Mapping[str, Any]) -> ChatMessage:
    role = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise Refused(f"{place}.role: a role is one of {', '.join(_ROLES)}", param=f"{place}.role")
    calls = _calls(f"{place}.tool_calls", given.get("tool_calls")) if role == "assistant" else ()
    call_id = given.get("tool_call_id") or ""
    if role == "tool" and (not call_id or not isinstance(call_id, str)):
        raise Refused(f"{place}: a tool's message names its tool_call_id", param=f"{place}.tool_call_id")
    content = given.get("content")
    if content is None and role == "assistant":
        content = given.get("refusal") or ""
    text = _text(f"{place}.content", content)
    return ChatMessage(_ROLES[role], text, calls, call_id if role == "tool" else "")


def _text(place: str, content: Any) -> str:
    if isinstance(content, str):
        _check_text(content, place)
        return content
    if not isinstance(content, list):
        raise Refused(f"{place}: the content is a text or a list of parts", param=place)
    texts = []
    for i, part in enumerate(content):
        at = f"{place}[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            raise Refused(
                f"{at}: the language model here reads text only, not a part of the type {kind!r}",
                param=at,
                openai_code="unsupported_content_type",
            )
        if not isinstance(text := part.get(kind), str):
            raise Refused(f"{at}.{kind}: send a text", param=f"{at}.{kind}")
        _check_text(text, at)
        texts.append(text)
    return "\n".join(texts)


def _calls(place: str, given: Any) -> tuple[ToolCall, ...]:
    calls = []
    for i, call in enumerate(given if isinstance(given, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        values = (call.get("id"), function.get("name"), function.get("arguments")) if function else ()
        if not values or not all(isinstance(value, str) for value in values):
            raise Refused(
                f"{place}[{i}]: a call has an id, and a function with its name and arguments as text",
                param=f"{place}[{i}]",
            )
        _check_text(values, f"{place}[{i}]")
        calls.append(ToolCall(*values))
    return tuple(calls)


def _tool_choice(given: Any, tools: tuple[Tool, ...]) -> str:
    names = [tool.name for tool in tools]
    if given is None or (not tools and given in ("auto", "none")):
        return "auto"
    if not tools:
        raise Refused("tool_choice: there are no tools to choose from: send tools", param="tool_choice")
    if given in ("auto", "none", "required"):
        return str(given)
    if (
        isinstance(given, dict)
        and given.get("type") == "function"
        and isinstance(given.get("function"), dict)
    ):
        name = given["function"].get("name")
        if name in names:
            return str(name)
        raise Refused(
            f"tool_choice: there is no tool {name!r}: there is {', '.join(names)}", param="tool_choice"
        )
    raise Refused(
        'tool_choice: send auto, none, required, or {"type": "function", "function": {"name": …}}',
        param="tool_choice",
    )


def _json_schema(given: dict[str, Any] | None) -> dict[str, Any] | None:
    kind = given.get("type") if given is not None else "text"
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        return {}
    if kind != "json_schema":
        raise Refused(
            "response_format.type: send text, json_object or json_schema", param="response_format.type"
        )
    described = given.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        place = "response_format.json_schema.schema"
        raise Refused(f"{place}: send a JSON Schema", param=place)
    _check_text(schema, "response_format")
    return schema


def _stops(given: Any) -> tuple[str, ...]:
    stops = [] if given is None else given if isinstance(given, list) else [given]
    if len(stops) > _MOST_STOPS or not all(isinstance(s, str) and 0 < len(s) <= _LONGEST_STOP for s in stops):
        raise Refused(f"stop: send a text, or up to {_MOST_STOPS} of them", param="stop")
    _check_text(stops, "stop")
    return tuple(stops)


def _check_text(value: Any, place: str) -> None:
    """Refuse half of a surrogate pair: JSON can spell that, but it is no text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused(f"{place}: that is not valid Unicode", param=place) from error


def _unsupported(param: str, message: str) -> Refused:
    return Refused(message, param=param, openai_code="unsupported_parameter")
