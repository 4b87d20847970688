"""Calls of tools in the text that a model writes.

Chat templates tell a model to write a call as JSON, `{"name": …, "arguments": {…}}`, most of them between
`<tool_call>` tags. Small models leave the tags out, or put code fences in their place: what counts here is
the JSON, and that a tool of that name was offered.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from app.roles import Tool, ToolCallPiece

_TAG, _END = "<tool_call>", "</tool_call>"
_OPENINGS = (_TAG, "```json", "```", "")
_STARTS = re.compile(r"[<`{]")


def _json(word: str) -> list[str]:
    """The parts of a pattern for that word in quotes."""
    return [re.escape(c) for c in f'"{word}"']


_TO_NAME = [r"\s*", r"\{", r"\s*", *_json("name"), r"\s*", ":", r"\s*", '"', r"(?P<name>[^\"\n]{1,64})", '"']
_HEADS = [
    [*_TO_NAME, r"\s*", ",", r"\s*", *_json("arguments"), r"\s*", ":", r"\s*", r"(?P<value>\{)"],
    [*_TO_NAME, r"\s*", ",", r"\s*", *_json("parameters"), r"\s*", ":", r"\s*", r"(?P<value>\{)"],
    [*_TO_NAME, r"\s*", r"(?P<none>\})"],
]
"""What stands before a call's arguments, or is all of it."""


def _beginning(parts: Sequence[str]) -> str:
    """A pattern for every beginning of what `parts` one after the other match."""
    pattern = ""
    for part in reversed(parts):
        unnamed = re.sub(r"\?P<\w+>", "?:", part)
        pattern = f"(?:{unnamed}{pattern})?"
    return pattern


_WHOLE = [re.compile("".join(parts)) for parts in _HEADS]
_PART = [re.compile(_beginning(parts)) for parts in _HEADS]


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """A JSON Schema of a call of one of `tools`."""
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    "arguments": {"type": "object", **_without_references(tool.parameters)},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
    }


def _without_references(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` with what it defines (`$defs`) put where it is referred to: inside another schema, references
    from the root lead nowhere. What contains itself is left open."""
    defined = {
        f"#/{place}/{name}": found
        for place in ("$defs", "definitions")
        for name, found in schema.get(place, {}).items()
    }

    def resolved(value: Any, within: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [resolved(v, within) for v in value]
        if not isinstance(value, Mapping):
            return value
        reference = value.get("$ref")
        if reference in within:
            return {}
        if reference in defined:
            return resolved(defined[reference], (*within, reference))
        return {k: resolved(v, within) for k, v in value.items() if k not in ("$defs", "definitions")}

    made: dict[str, Any] = resolved(schema, ())
    return made


class CallReader:
    """Tells text from calls while they are written. `calls` were begun; `tagged` says whether the last one
    was written in tags; `done`, that no more is to be read: the rest of a reply with a call without tags
    is that call again and again."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.calls = 0
        self.tagged = False
        self.done = False
        self._names = {tool.name for tool in tools}
        self._held = ""
        # White space is text only if text follows it.
        self._blank = ""
        self._spoken = False
        self._where = "text"
        self._depth = 0
        self._in_string = self._escaped = False

    def feed(self, text: str) -> list[str | ToolCallPiece]:
        """What is certain once `text` was written, too."""
        self._held += text
        pieces: list[str | ToolCallPiece] = []
        while self._held and not self.done:
            before = self._held
            if self._where == "text":
                waits = self._read_text(pieces)
            elif self._where == "arguments":
                waits = self._read_arguments(pieces)
            else:
                waits = self._read_end()
            if waits or self._held == before:
                break
        return pieces

    def finish(self) -> list[str | ToolCallPiece]:
        """What was held back, when nothing more comes."""
        pieces: list[str | ToolCallPiece] = []
        if self._where == "text":
            self._say(self._held, pieces)
        self._held = ""
        return pieces

    @property
    def complete(self) -> bool:
        """Whether every call that was begun has its end."""
        return self._where != "arguments"

    def _say(self, text: str, pieces: list[str | ToolCallPiece]) -> None:
        text = self._blank + text
        said = text.rstrip()
        self._blank = text[len(said) :]
        if said:
            pieces.append(said if self._spoken else said.lstrip())
            self._spoken = True

    def _read_text(self, pieces: list[str | ToolCallPiece]) -> bool:
        """Read up to the arguments of a call; whether it takes more text to go on."""
        start = _STARTS.search(self._held)
        if start is None:
            self._say(self._held, pieces)
            self._held = ""
            return True
        self._say(self._held[: start.start()], pieces)
        self._held = self._held[start.start() :]
        could = False
        for opening in _OPENINGS:
            if not self._held.startswith(opening):
                could = could or opening.startswith(self._held)
                continue
            rest = self._held[len(opening) :]
            for whole, part in zip(_WHOLE, _PART, strict=True):
                if (head := whole.match(rest)) and head["name"] in self._names:
                    self._begin(head, rest, opening == _TAG, pieces)
                    return False
                could = could or part.fullmatch(rest) is not None
        if not could:
            self._say(self._held[0], pieces)
            self._held = self._held[1:]
        return could

    def _begin(self, head: re.Match[str], rest: str, tagged: bool, pieces: list[str | ToolCallPiece]) -> None:
        none = "none" in head.re.groupindex
        pieces.append(
            ToolCallPiece(self.calls, f"call_{secrets.token_hex(12)}", head["name"], "{}" if none else "")
        )
        self.calls, self.tagged, self._blank = self.calls + 1, tagged, ""
        self._where = "end" if none else "arguments"
        self._depth, self._in_string, self._escaped = 0, False, False
        self._held = rest[head.end() if none else head.start("value") :]

    def _read_arguments(self, pieces: list[str | ToolCallPiece]) -> bool:
        end = len(self._held)
        for at, c in enumerate(self._held):
            if self._in_string:
                if self._escaped or c == "\\":
                    self._escaped = not self._escaped
                elif c == '"':
                    self._in_string = False
            elif c == '"':
                self._in_string = True
            elif c in "{[":
                self._depth += 1
            elif c in "}]":
                self._depth -= 1
                if not self._depth:
                    end, self._where = at + 1, "end"
                    break
        pieces.append(ToolCallPiece(self.calls - 1, arguments=self._held[:end]))
        self._held = self._held[end:]
        return False

    def _read_end(self) -> bool:
        """Skip what closes a call."""
        if not self.tagged:
            self.done = True
            return True
        before, closed, after = self._held.partition(_END)
        if not closed:
            # The tag may be cut in two.
            self._held = before[-len(_END) :]
            return True
        self._held, self._where = after, "text"
        return False
