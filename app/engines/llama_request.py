"""Requests to llama.cpp's server core, which speaks OpenAI's chat protocol with additions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from app.engines.tool_calls import call_schema
from app.roles import BadInput, ChatMessage, LlmOptions, Tool, ToolCall


def body_of(messages: Sequence[ChatMessage], tools: tuple[Tool, ...] = ()) -> dict[str, Any]:
    """A request. Where no tools are offered, old calls are left out and only their results stay: a small
    model that sees a call writes the next, whatever it was asked."""
    body: dict[str, Any] = {
        "messages": [_message(m) for m in messages if m.content or tools or not m.tool_calls],
        "stream": True,
        "cache_prompt": True,
    }
    if tools:
        for message, m in zip(body["messages"], messages, strict=True):
            if m.tool_calls:
                message["tool_calls"] = [_call(c) for c in m.tool_calls]
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": t.name,
                    "description": t.description,
                    "parameters": dict(t.parameters) or {"type": "object", "properties": {}},
                },
            }
            for t in tools
        ]
        # The core shows the tools all the same; it only does not look for calls.
        body["tool_choice"] = "none"
    return body


def _message(m: ChatMessage) -> dict[str, Any]:
    message: dict[str, Any] = {"role": m.role, "content": m.content}
    return message | {"tool_call_id": m.tool_call_id} if m.role == "tool" else message


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments
    try:
        json.loads(arguments)
    except ValueError:  # which the core would refuse
        arguments = json.dumps({"arguments": arguments})
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def wishes(options: LlmOptions) -> dict[str, Any]:
    """What is asked of the writing. Raises `BadInput` for a tool that is not there."""
    wishes: dict[str, Any] = {"max_tokens": options.max_tokens or -1, "temperature": options.temperature}
    if options.top_p is not None:
        wishes["top_p"] = options.top_p
    if options.seed is not None:
        wishes["seed"] = options.seed % 2**32
    if options.stop:
        wishes["stop"] = list(options.stop)
    if (schema := _schema(options)) is not None:
        wishes["json_schema"] = schema
    return wishes


def _schema(options: LlmOptions) -> dict[str, Any] | None:
    """What the reply must be, if that is not left to the model."""
    schema = None if options.json_schema is None else dict(options.json_schema) or {"type": "object"}
    tools, choice = options.tools, options.tool_choice
    if not tools or choice == "none":
        return schema
    if choice == "auto":
        return schema and {"anyOf": [call_schema(tools), schema]}
    if choice != "required":
        tools = tuple(tool for tool in tools if tool.name == choice)
        if not tools:
            raise BadInput(f"there is no tool {choice!r} to be chosen", field="tool_choice")
    return call_schema(tools)
