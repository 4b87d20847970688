"""Functions that the server calls for a reply, in the middle of it.

A client's functions (`SessionConfig.tools`) end the reply: the client calls them and asks for another.
The server's own are called while the reply is being spoken, and it goes on with what they give.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.dialogue.config import SessionConfig
from app.roles import ChatMessage, LanguageModel, Tool, ToolCall

ROUNDS = 4
"""So many times a reply may ask for functions."""
MOST_CALLS = 8
"""So many at once; what is asked for beyond is not called."""
UNFINISHED = "Not finished: the reply was stopped meanwhile. Whether it was done is not known."
_LEAST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Result:
    """What a function gave, as the language model reads it; if not `ok`, what went wrong."""

    ok: bool
    text: str


class Functions(Protocol):
    """What can be called in one session."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What there is now. It may change from turn to turn."""
        ...

    async def call(self, name: str, arguments: str) -> Result:
        """Call one; `arguments` is JSON text as a language model wrote it. Failing is a result, not an
        error, and so is taking too long."""
        ...


class Nothing:
    """No functions."""

    tools: tuple[Tool, ...] = ()

    async def call(self, name: str, arguments: str) -> Result:
        """Never asked."""
        return Result(False, f"there is no function {name!r}")


@dataclass(slots=True)
class Step:
    """Where a reply asked for functions: what it had written since the step before, and the results by
    the id of their call, as they come."""

    text: str
    calls: tuple[ToolCall, ...]
    results: dict[str, str] = field(default_factory=dict)

    def messages(self, text: str) -> list[ChatMessage]:
        """As a model reads it, with `text` for what was written."""
        return [
            ChatMessage("assistant", text, self.calls),
            *(ChatMessage("tool", self.results.get(c.id, UNFINISHED), tool_call_id=c.id) for c in self.calls),
        ]


def offered(config: SessionConfig, functions: Functions) -> tuple[Tool, ...]:
    """What a reply may ask for: the client's functions, and the server's unless the client has one of that
    name, or says what is to be called."""
    if config.tool_choice != "auto":
        return config.tools
    names = {tool.name for tool in config.tools}
    return (*config.tools, *(tool for tool in functions.tools if tool.name not in names))


def tokens_of(tools: Sequence[Tool], llm: LanguageModel) -> int:
    """About what it takes to tell a model of `tools`."""
    told = [[t.name, t.description, dict(t.parameters)] for t in tools]
    return llm.count_tokens(json.dumps(told, ensure_ascii=False)) if told else 0


def cut(text: str, tokens: int, llm: LanguageModel) -> str:
    """`text`, or as much of it as is about `tokens`."""
    tokens = max(tokens, _LEAST_TOKENS)
    size = llm.count_tokens(text)
    if size <= tokens:
        return text
    end = len(text) * tokens // size
    return f"{text[:end]}… (cut: {len(text) - end} more characters)"
