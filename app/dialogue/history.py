"""What the language model is told of the conversation so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from app.roles import ChatMessage, LanguageModel, ToolCall

Entry = tuple[str, ChatMessage]
"""A message and the id by which it can be changed or taken back; "" for those that never are."""


class History:
    """The conversation as it was heard: an interrupted reply stands with the words that reached
    the person, a reply nobody heard does not stand at all."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries: list[Entry] = list(entries)
        self._from = 0

    @property
    def messages(self) -> list[ChatMessage]:
        """As a model reads it: what one side said in a row (the first was not answered) is one message."""
        return merged([message for _, message in self.entries])

    def user(self, text: str, id_: str = "") -> None:
        """The person said `text`."""
        self.entries.append((id_, ChatMessage("user", text)))

    def assistant(self, heard: str, id_: str = "", calls: tuple[ToolCall, ...] = ()) -> None:
        """The person heard `heard`, and functions were asked for; nothing is recorded if there is neither."""
        if heard.strip() or calls:
            self.entries.append((id_, ChatMessage("assistant", heard, calls)))

    def called(self, messages: Sequence[ChatMessage], id_: str = "") -> None:
        """Functions of the server were asked for (the first message) and gave these results (the others)."""
        self.entries.append((id_, messages[0]))
        self.entries += [("", message) for message in messages[1:]]

    # --- for doors whose clients keep the conversation --------------------------------------------

    def insert(self, id_: str, message: ChatMessage, after: str | None = None) -> None:
        """Put a message behind the one with the id `after`; at the end by default, and at the beginning
        if `after` is ""."""
        at = len(self.entries) if after is None else 0 if after == "" else self._place(after) + 1
        self.entries.insert(at, (id_, message))
        self._from += at < self._from

    def remove(self, id_: str) -> None:
        """Forget a message; nothing happens if there is none of that id."""
        at = self._place(id_)
        if at < len(self.entries):
            del self.entries[at]
            self._from -= at < self._from

    def rewrite(self, id_: str, text: str) -> None:
        """It was `text` that was said, or heard; nothing happens if there is no message of that id."""
        at = self._place(id_)
        if at < len(self.entries):
            message = replace(self.entries[at][1], content=text)
            if text.strip() or message.tool_calls:
                self.entries[at] = id_, message
            else:
                self.remove(id_)

    def _place(self, id_: str) -> int:
        return next((i for i, (known, _) in enumerate(self.entries) if known == id_), len(self.entries))

    # --- what fits the model ----------------------------------------------------------------------

    def window(
        self, instructions: str, llm: LanguageModel, reply_tokens: int, *, asking: str = ""
    ) -> list[ChatMessage]:
        """The system prompt and as many of the last messages as fit beside a reply of
        `reply_tokens`; with `asking`, as if the person had just said that.

        When the window overflows, three quarters of it are dropped at once: the prompt then keeps
        its beginning for many turns, and with it the model's cache of it.
        """
        messages = [message for _, message in self.entries]
        if asking:
            messages.append(ChatMessage("user", asking))
        room = llm.context_tokens - reply_tokens - llm.count_tokens(instructions)
        self._fit(messages, llm, room, room)
        return [ChatMessage("system", instructions), *merged(messages[self._from :])]

    def make_room(self, instructions: str, llm: LanguageModel, reply_tokens: int) -> bool:
        """Drop old messages now if the window is nearly full, while nobody waits for an answer:
        what is left must be read anew. Whether anything was dropped."""
        room = llm.context_tokens - reply_tokens - llm.count_tokens(instructions)
        return self._fit([message for _, message in self.entries], llm, room * 3 // 4, room)

    def _fit(self, messages: list[ChatMessage], llm: LanguageModel, most: int, room: int) -> bool:
        sizes = [_size(m, llm) for m in messages]
        if sum(sizes[self._from :]) <= most:
            return False
        before = self._from
        while self._from < len(sizes) - 1 and sum(sizes[self._from :]) > room // 4:
            self._from += 1
        while self._from < len(sizes) - 1 and messages[self._from].role != "user":
            self._from += 1
        return self._from != before


def to_json(entries: Sequence[Entry]) -> list[Any]:
    """Entries as JSON values: `[id, {field: value}]`, without what is empty."""
    return [[id_, {k: v for k, v in asdict(message).items() if v}] for id_, message in entries]


def from_json(values: Sequence[Any]) -> list[Entry]:
    """The inverse of `to_json`."""
    entries: list[Entry] = []
    for id_, given in values:
        calls = tuple(ToolCall(**call) for call in given.get("tool_calls", ()))
        message = ChatMessage(given["role"], given.get("content", ""), calls, given.get("tool_call_id", ""))
        entries.append((id_, message))
    return entries


def merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """What one side said in a row as one message."""
    made: list[ChatMessage] = []
    for message in messages:
        last = made[-1] if made else None
        if last and last.role == message.role != "tool":
            content = f"{last.content} {message.content}".strip()
            made[-1] = replace(last, content=content, tool_calls=last.tool_calls + message.tool_calls)
        else:
            made.append(message)
    return made


def fitted(messages: Sequence[ChatMessage], llm: LanguageModel, room: int) -> list[ChatMessage]:
    """`messages` without the oldest behind the first, the instructions, if they have more than `room` tokens.
    What a person said last stays, and what came of it."""
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=1)
    sizes = [_size(m, llm) for m in messages]
    start, size = 1, sum(sizes)
    while start < last and (size > room or (start > 1 and messages[start].role != "user")):
        size -= sizes[start]
        start += 1
    return [*messages[:1], *messages[start:]]


def _size(message: ChatMessage, llm: LanguageModel) -> int:
    calls = json.dumps([c.name + c.arguments for c in message.tool_calls]) if message.tool_calls else ""
    return llm.count_tokens(message.content + calls)
