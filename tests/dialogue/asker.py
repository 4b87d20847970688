"""A language model that asks for functions when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from dialogue.scripted import ScriptedLlm

from app.roles import ChatMessage, Job, LlmEnd, LlmOptions, LlmPiece, ToolCallPiece

Script = Callable[[Sequence[ChatMessage], LlmOptions], Sequence[LlmPiece]]


class Asker(ScriptedLlm):
    """Writes what `script` says, and keeps what it was asked and offered."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.options: list[LlmOptions] = []

    async def reply(  # type: ignore[override]
        self, messages: Sequence[ChatMessage], options: LlmOptions, job: Job
    ) -> AsyncGenerator[LlmPiece, None]:
        self.asked.append(list(messages))
        self.options.append(options)
        for piece in self.script(messages, options):
            await asyncio.sleep(self.pause)
            yield piece


def call(name: str = "weather", arguments: str = "{}", index: int = 0, id_: str = "c1") -> ToolCallPiece:
    return ToolCallPiece(index, id_, name, arguments)


def once(messages: Sequence[ChatMessage], options: LlmOptions) -> Sequence[LlmPiece]:
    """Says something and asks; then answers with the result."""
    if messages[-1].role == "tool":
        return ["It is ", messages[-1].content, " outside.", LlmEnd("stop", 20, 3)]
    return [
        "Let me ",
        "see.",
        call(arguments='{"in":'),
        ToolCallPiece(0, arguments=' "Rome"}'),
        LlmEnd("tool_calls", 10, 5),
    ]
