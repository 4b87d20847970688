"""What a realtime client may ask for, done: one handler an event."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pydantic import BaseModel

from app.api.context import Context
from app.api.openai.errors import Refused
from app.api.openai.realtime import client as c
from app.api.openai.realtime.conversation import Conversation
from app.api.openai.realtime.items import Item, from_client
from app.api.openai.realtime.wishes import check
from app.audio.codecs import Decoder, decoder
from app.dialogue.config import Ask
from app.dialogue.exchange import transcribe
from app.roles import BadAudio, BadInput, ChatMessage, Samples, SttOptions


class Requests:
    """Does what clients of one conversation ask for. The decoder's state outlives connections."""

    def __init__(self, context: Context, owner: str, conversation: Conversation) -> None:
        self._context, self._owner, self._conversation = context, owner, conversation
        self._session, self._items = conversation.session, conversation.items
        self._decoder: tuple[tuple[str, int], Decoder] | None = None
        self._handlers: dict[type[BaseModel], Callable[[Any], Awaitable[None]]] = {
            c.SessionUpdate: self._update,
            c.Append: self._append,
            c.Commit: self._commit,
            c.Clear: self._clear,
            c.ClearOutput: self._clear_output,
            c.ItemCreate: self._create,
            c.ItemDelete: self._delete,
            c.ItemRetrieve: self._retrieve,
            c.ItemTruncate: self._truncate,
            c.ResponseCreate: self._respond,
            c.ResponseCancel: self._cancel,
        }

    async def do(self, event: BaseModel) -> None:
        """Do what `event` asks for. Raises `ColloquyError`; the session goes on."""
        await self._handlers[type(event)](event)

    async def _update(self, event: c.SessionUpdate) -> None:
        wishes = self._conversation.wishes
        await check(self._context, event.session)
        wishes.update(event.session)
        self._session.configure(wishes.config)
        self._conversation.emit("session.updated", session=wishes.shown)

    # --- sound ------------------------------------------------------------------------------------

    async def _append(self, event: c.Append) -> None:
        if not event.audio:
            return
        samples = self._decoded(event.audio, "audio")
        self._conversation.appended += len(samples)
        await self._session.hear(samples)

    def _decoded(self, data: str, field: str) -> Samples:
        now = self._conversation.wishes.audio_in
        if self._decoder is None or self._decoder[0] != now:
            self._decoder = now, decoder(*now)
        try:
            return self._decoder[1].decode(_bytes(data, field))
        except BadAudio as error:
            raise BadAudio(error.message, field=field) from None

    async def _commit(self, event: c.Commit) -> None:
        self._conversation.commit(event.event_id)

    async def _clear(self, event: c.Clear) -> None:
        self._session.clear()
        self._conversation.cleared()

    async def _clear_output(self, event: c.ClearOutput) -> None:
        if (response := self._conversation.response) is not None:
            self._stop()
            self._conversation.emit("output_audio_buffer.cleared", response_id=response.id)

    # --- items ------------------------------------------------------------------------------------

    async def _create(self, event: c.ItemCreate) -> None:
        self._items.check_new(event.item.id, event.previous_item_id)
        item = await self._from_client(event.item)
        place = event.previous_item_id
        after = None if place is None else self._items.get(place, "").kept_as if place != "root" else ""
        self._conversation.add(item, place)
        self._session.history.insert(item.kept_as, item.message(), after)

    async def _from_client(self, given: c.MessageIn | c.CallIn | c.CallOutputIn) -> Item:
        if isinstance(given, c.CallOutputIn):
            self._items.check_call(given.call_id)
        item = from_client(given)
        for part in item.shown.get("content", ()):
            # It is read as text; the sound is not kept.
            if (sound := part.pop("audio", None)) and not part["transcript"]:
                part["transcript"] = await self._transcript(sound)
        return item

    async def _transcript(self, sound: str) -> str:
        samples = decoder(*self._conversation.wishes.audio_in).decode(_bytes(sound, "item.content.audio"))

        async def blocks() -> AsyncIterator[Samples]:
            yield samples

        roles = await self._context.runtime.roles()
        options = SttOptions(self._session.config.language, self._session.config.vocabulary)
        return (await transcribe(roles, blocks(), options, self._owner)).text

    async def _delete(self, event: c.ItemDelete) -> None:
        item = self._items.get(event.item_id, event.type)
        self._items.remove(item.id)
        self._session.history.remove(item.kept_as)
        self._conversation.emit("conversation.item.deleted", item_id=item.id)

    async def _retrieve(self, event: c.ItemRetrieve) -> None:
        item = self._items.get(event.item_id, event.type)
        self._conversation.emit("conversation.item.retrieved", item=item.shown)

    async def _truncate(self, event: c.ItemTruncate) -> None:
        item = self._items.get(event.item_id, event.type)
        content = item.shown.get("content") or [{}]
        if not item.turn_id or (content[0].get("type", "output_audio") != "output_audio"):
            raise Refused("only what we said can be truncated", param="item_id")
        if event.content_index:
            raise Refused("a reply has one part: content_index is 0", param="content_index")
        if event.audio_end_ms > item.audio_ms + 1000:
            raise Refused(
                f"that reply has {item.audio_ms:.0f} ms, which is less than {event.audio_end_ms}",
                param="audio_end_ms",
            )
        self._session.truncate(item.turn_id, event.audio_end_ms)
        heard = dict(self._session.history.entries).get(item.kept_as)
        item.shown["content"] = [{"type": "output_audio", "transcript": heard.content if heard else ""}]
        self._conversation.emit(
            "conversation.item.truncated",
            item_id=item.id,
            content_index=event.content_index,
            audio_end_ms=event.audio_end_ms,
        )

    # --- replies ----------------------------------------------------------------------------------

    async def _respond(self, event: c.ResponseCreate) -> None:
        wish, wishes = event.response or c.ResponseIn(), self._conversation.wishes
        if (running := self._conversation.response) is not None:
            raise Refused(
                f"Conversation already has an active response in progress: {running.id}. Wait for its"
                " response.done, or cancel it.",
                openai_code="conversation_already_has_active_response",
            )
        if wishes.shown["type"] == "transcription":
            raise Refused("a transcription session has no responses", param="type")
        await check(self._context, wish)
        config, shown = wishes.of_response(wish)
        messages: tuple[ChatMessage, ...] | None = None
        if wish.input is not None:
            messages = tuple([(await self._referred(item)).message() for item in wish.input])
        ask = Ask(config, messages, keep=wish.conversation != "none")
        # Clients expect what they committed before what answers it.
        await self._conversation.settled()
        self._conversation.begin(self._session.respond(ask), shown, ask, metadata=wish.metadata)

    async def _referred(self, given: Any) -> Item:
        if isinstance(given, c.ItemReference):
            return self._items.get(given.id, "response.create")
        return await self._from_client(given)

    async def _cancel(self, event: c.ResponseCancel) -> None:
        response = self._conversation.response
        if response is None or event.response_id not in (None, response.id):
            raise Refused(
                "Cancellation failed: no active response found",
                param="response_id" if event.response_id else None,
                openai_code="response_cancel_not_active",
            )
        self._stop()

    def _stop(self) -> None:
        assert self._conversation.response is not None
        if not self._session.withdraw(self._conversation.response.turn_id):
            self._session.interrupt("client")


def _bytes(data: str, field: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise BadInput(f"{field} is not base64", field=field) from None
