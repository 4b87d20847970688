"""One response on the wire: the frames of a reply of the core, in OpenAI's order."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Literal

from app.api.openai.realtime.items import Item, Items, new_id
from app.audio.codecs import Encoder, encoder
from app.dialogue import events
from app.dialogue.answers import reply_id

Emit = Callable[..., None]
Status = Literal["completed", "cancelled", "failed", "incomplete"]


class Response:
    """From `response.created` to `response.done`. `emit(type, **fields)` sends a frame."""

    def __init__(
        self,
        emit: Emit,
        items: Items,
        turn_id: str,
        shown: dict[str, Any],
        *,
        conversation_id: str | None,
        audio_out: tuple[str, int],
        metadata: dict[str, str] | None = None,
    ) -> None:
        """`shown`: the settings that hold for it. Without `conversation_id` its items are nobody's."""
        self.id = new_id("resp")
        self.turn_id = turn_id
        self.failure: events.Failed | None = None
        self.audio_ms = 0.0
        self._emit_all, self._items = emit, items
        self._speaks = shown["output_modalities"] != ["text"]
        self._codec, self._rate = audio_out
        self._encoder: Encoder | None = None
        self._text = ""
        self._message: Item | None = None
        self._calls: list[Item] = []
        # Message and calls in the order in which they began: their place is their `output_index`.
        self._made: list[Item] = []
        self._kept = conversation_id is not None
        self._shown: dict[str, Any] = {
            "id": self.id,
            "object": "realtime.response",
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": conversation_id,
            "output_modalities": shown["output_modalities"],
            "max_output_tokens": shown["max_output_tokens"],
            "audio": {
                "output": {
                    "format": shown["audio"]["output"]["format"],
                    "voice": shown["audio"]["output"]["voice"],
                }
            },
            "usage": None,
            "metadata": metadata,
        }
        emit("response.created", response=dict(self._shown))
        # Nothing is counted here: the list of limits is empty.
        emit("rate_limits.updated", rate_limits=[])

    def _emit(self, type_: str, **fields: Any) -> None:
        self._emit_all(type_, response_id=self.id, **fields)

    # --- as it comes ------------------------------------------------------------------------------

    def text(self, piece: str) -> None:
        """The next piece of the reply as it is written. Who listens is told the words with the sound."""
        if not self._speaks:
            self._say(piece)

    def audio(self, event: events.ReplyAudio) -> None:
        """The next piece of its sound."""
        if event.text is not None:
            self._say(f" {event.text}" if self._text else event.text)
        message = self._begun()
        if self._encoder is None:
            self._encoder = encoder(self._codec, event.sample_rate, self._rate)
        packets = self._encoder.encode(event.samples) if len(event.samples) else []
        if event.last:
            packets += self._encoder.flush()
        self.audio_ms = message.audio_ms = event.offset_ms + event.duration_ms
        if data := b"".join(p.data for p in packets):
            delta = base64.b64encode(data).decode()
            self._emit("response.output_audio.delta", **self._place(message), delta=delta)

    def call(self, event: events.ReplyCall) -> None:
        """The next piece of a function call."""
        if event.index == len(self._calls):
            self._calls.append(self._new_call(event))
        call = self._calls[event.index]
        call.shown["arguments"] += event.arguments
        if event.arguments:
            kind = "response.function_call_arguments.delta"
            self._emit(kind, **self._of_call(call), delta=event.arguments)

    def _say(self, piece: str) -> None:
        message = self._begun()
        self._text += piece
        kind = "response.output_audio_transcript.delta" if self._speaks else "response.output_text.delta"
        self._emit(kind, **self._place(message), delta=piece)

    def _begun(self) -> Item:
        if self._message is None:
            shown = {"id": new_id("item"), "object": "realtime.item", "type": "message", "role": "assistant"}
            item = Item(
                {**shown, "status": "in_progress", "content": []}, reply_id(self.turn_id), self.turn_id
            )
            self._message = item
            self._added(item)
            self._emit("response.content_part.added", **self._place(item), part=self._part(""))
        return self._message

    def _new_call(self, event: events.ReplyCall) -> Item:
        shown = {"id": new_id("item"), "object": "realtime.item", "type": "function_call"}
        shown |= {"status": "in_progress", "call_id": event.call_id, "name": event.name, "arguments": ""}
        item = Item(dict(shown), event.call_id, self.turn_id)
        self._added(item)
        return item

    def _added(self, item: Item) -> None:
        self._made.append(item)
        self._emit("response.output_item.added", output_index=len(self._made) - 1, item=_copy(item))
        if self._kept:
            before = self._items.add(item)
            self._emit_all("conversation.item.added", previous_item_id=before, item=_copy(item))

    def _place(self, item: Item) -> dict[str, Any]:
        return {"item_id": item.id, "output_index": self._made.index(item), "content_index": 0}

    def _of_call(self, item: Item) -> dict[str, Any]:
        index = self._made.index(item)
        return {"item_id": item.id, "output_index": index, "call_id": item.shown["call_id"]}

    def _part(self, text: str) -> dict[str, str]:
        return {"type": "audio", "transcript": text} if self._speaks else {"type": "text", "text": text}

    # --- its end ----------------------------------------------------------------------------------

    def done(self, status: Status, reason: str | None, tokens: tuple[int, int]) -> None:
        """Close everything that is open."""
        whole = status in ("completed", "incomplete")
        if self._message is not None:
            self._message_done(self._message, "completed" if status == "completed" else "incomplete")
        for call in self._calls:
            call.shown["status"] = "completed" if whole else "incomplete"
            fields = self._of_call(call) | {
                "name": call.shown["name"],
                "arguments": call.shown["arguments"],
            }
            self._emit("response.function_call_arguments.done", **fields)
            self._item_done(call)
        self._shown |= {
            "status": status,
            "status_details": None if status == "completed" else self._details(status, reason),
            "output": [_copy(item) for item in self._made],
            "usage": _usage(*tokens),
        }
        self._emit_all("response.done", response=self._shown)

    def _message_done(self, message: Item, status: str) -> None:
        place, text = self._place(message), self._text.strip() if self._speaks else self._text
        if self._speaks:
            self._emit("response.output_audio.done", **place)
            self._emit("response.output_audio_transcript.done", **place, transcript=text)
        else:
            self._emit("response.output_text.done", **place, text=text)
        self._emit("response.content_part.done", **place, part=self._part(text))
        message.shown["status"] = status
        message.shown["content"] = [
            {"type": "output_audio", "transcript": text}
            if self._speaks
            else {"type": "output_text", "text": text}
        ]
        self._item_done(message)

    def _item_done(self, item: Item) -> None:
        index = self._made.index(item)
        self._emit("response.output_item.done", output_index=index, item=_copy(item))
        if self._kept:
            self._emit_all("conversation.item.done", item=_copy(item))

    def _details(self, status: Status, reason: str | None) -> dict[str, Any]:
        details: dict[str, Any] = {"type": status}
        if reason is not None:
            details["reason"] = reason
        if self.failure is not None:
            details["error"] = {
                "type": "server_error",
                "code": self.failure.code.lower(),
                "message": self.failure.message,
            }
        return details


def _copy(item: Item) -> dict[str, Any]:
    return dict(item.shown)


def _usage(read: int, written: int) -> dict[str, Any]:
    return {
        "total_tokens": read + written,
        "input_tokens": read,
        "output_tokens": written,
        "input_token_details": {"text_tokens": read, "audio_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": written, "audio_tokens": 0},
    }
