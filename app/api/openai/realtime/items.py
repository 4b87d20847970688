"""The items of a realtime conversation: messages, function calls and their results, as the client sees them.

The core's history is what the model reads; each item knows its place there.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.api.openai.errors import Refused
from app.api.openai.realtime.client import CallIn, CallOutputIn, MessageIn
from app.roles import ChatMessage, ToolCall

ROOT = "root"
"""The name of the place before the first item."""


def new_id(kind: str) -> str:
    """An id as OpenAI's look."""
    return f"{kind}_{secrets.token_hex(12)}"


@dataclass(slots=True)
class Item:
    """`shown` in OpenAI's shape. `kept_as` is its id in the core's history; `turn_id` and `audio_ms` are
    there for our own spoken replies."""

    shown: dict[str, Any]
    kept_as: str
    turn_id: str = ""
    audio_ms: float = 0.0

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.shown["id"])

    def message(self) -> ChatMessage:
        """As the language model reads it."""
        shown = self.shown
        if shown["type"] == "function_call":
            call = ToolCall(shown["call_id"], shown["name"], shown["arguments"])
            return ChatMessage("assistant", "", (call,))
        if shown["type"] == "function_call_output":
            return ChatMessage("tool", shown["output"], tool_call_id=shown["call_id"])
        text = "\n".join(t for part in shown["content"] if (t := part.get("text") or part.get("transcript")))
        return ChatMessage(shown["role"], text)


@dataclass(slots=True)
class Items:
    """All items of a conversation, in order, by id."""

    _items: dict[str, Item] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return next(reversed(self._items), None)

    def get(self, id_: str, event: str) -> Item:
        """The item `id_`, or `Refused` for `event` ("conversation.item.delete")."""
        item = self._items.get(id_)
        if item is None:
            # Clients tell races, which they ignore, from faults by this code.
            verb = event.rpartition(".")[2]
            raise Refused(
                f"{event}: the item with id {id_!r} does not exist in the conversation",
                param="item_id",
                openai_code=f"item_{verb}_invalid_item_id",
            )
        return item

    def check_new(self, id_: str | None, previous: str | None) -> None:
        """Refuse an id that there is already, and a place that there is not."""
        if id_ is not None and id_ in self._items:
            raise Refused(
                f"there is an item with the id {id_!r} already",
                param="item.id",
                openai_code="item_create_duplicate_id",
            )
        if previous not in (None, ROOT, *self._items):
            raise Refused(
                f"there is no item with the id {previous!r} to put this one behind",
                param="previous_item_id",
                openai_code="item_create_invalid_previous_item_id",
            )

    def check_call(self, call_id: str) -> None:
        """Refuse the result of a call that there is not."""
        if all(i.shown.get("call_id") != call_id or i.shown["type"] != "function_call" for i in self):
            raise Refused(
                f"there is no function call {call_id!r} in the conversation",
                param="item.call_id",
                openai_code="invalid_tool_call_id",
            )

    def add(self, item: Item, previous: str | None = None) -> str | None:
        """Put `item` behind `previous` (default: at the end); gives the id of the one before it."""
        before = None if previous == ROOT else self.last_id if previous is None else previous
        if before == self.last_id:
            self._items[item.id] = item
        else:
            order = list(self._items.values())
            at = 0 if before is None else list(self._items).index(before) + 1
            order.insert(at, item)
            self._items = {i.id: i for i in order}
        return before

    def remove(self, id_: str) -> None:
        """Forget an item."""
        del self._items[id_]


def from_client(given: MessageIn | CallIn | CallOutputIn) -> Item:
    """A new item as the client wrote it. Raises `Refused` for content that nobody here understands; sound
    (`input_audio`) is left for the caller to transcribe."""
    shown: dict[str, Any] = {"id": given.id or new_id("item"), "object": "realtime.item", "type": given.type}
    shown["status"] = "completed"
    if isinstance(given, CallIn):
        shown |= {
            "call_id": given.call_id or new_id("call"),
            "name": given.name,
            "arguments": given.arguments,
        }
    elif isinstance(given, CallOutputIn):
        shown |= {"call_id": given.call_id, "output": given.output}
    else:
        shown |= {"role": given.role, "content": [_part(given, i) for i in range(len(given.content))]}
        if given.role == "developer":
            shown["role"] = "system"
    return Item(shown, str(shown.get("call_id") if isinstance(given, CallIn) else shown["id"]))


def _part(message: MessageIn, index: int) -> dict[str, Any]:
    part = message.content[index]
    where = f"item.content[{index}]"
    if part.type == "input_image":
        raise Refused(f"{where}: this server does not see: images cannot be sent", param=where)
    theirs = message.role == "user"
    if part.type == "input_audio" and not theirs:
        raise Refused(f"{where}: only users send sound", param=where)
    if part.type in ("input_audio", "audio") and theirs:
        if part.audio is None:
            raise Refused(f"{where}: audio is missing", param=f"{where}.audio")
        return {"type": "input_audio", "audio": part.audio, "transcript": part.transcript}
    if part.type in ("output_audio", "audio"):
        return {"type": "output_audio", "transcript": part.transcript or part.text or ""}
    if part.text is None:
        raise Refused(f"{where}: text is missing", param=f"{where}.text")
    return {"type": "output_text" if message.role == "assistant" else "input_text", "text": part.text}


def spoken(item_id: str, turn_id: str, transcript: str | None) -> Item:
    """What the person said."""
    content = [{"type": "input_audio", "transcript": transcript}]
    shown = {"id": item_id, "object": "realtime.item", "type": "message", "status": "completed"}
    return Item({**shown, "role": "user", "content": content}, turn_id)
