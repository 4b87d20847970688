"""A `ConversationStore` whose texts are sealed with their owner's key before they reach another one, and
opened when they come back, so that every kind of database is covered at once.

What stays readable: ids, whose it is, times, numbers, languages, where recordings lie. Lists are sealed
whole, as the only item of a list. Text from before there were seals is read as it is.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from app.roles import NotFound, Word
from app.stores.crypt import Cipher, UserKeys
from app.stores.interfaces import ConversationStore, SessionRecord, TurnRecord

_SEALED = "sealed"
_OWNERS = 10_000


class SealedConversations:
    """`inner`, sealed."""

    def __init__(self, inner: ConversationStore, keys: UserKeys) -> None:
        self._inner, self._keys = inner, keys
        self._owners = Owners()

    async def add_session(self, session: SessionRecord) -> None:
        """See `ConversationStore`."""
        cipher = await self._keys.cipher(session.owner)
        await self._inner.add_session(
            replace(session, settings=seal_json(cipher, session.settings, _settings(session)))
        )
        self._owners.note(session.id, session.owner)

    async def end_session(self, session_id: str, at: datetime | None = None) -> None:
        """See `ConversationStore`."""
        await self._inner.end_session(session_id, at)

    async def get_session(self, session_id: str) -> SessionRecord:
        """See `ConversationStore`."""
        return await self._opened(await self._inner.get_session(session_id))

    async def sessions(self, owner: str, limit: int = 100, offset: int = 0) -> list[SessionRecord]:
        """See `ConversationStore`."""
        return [await self._opened(session) for session in await self._inner.sessions(owner, limit, offset)]

    async def add_turn(self, turn: TurnRecord) -> None:
        """See `ConversationStore`."""
        try:
            owner = await self._owner(turn.session_id)
        except NotFound:
            # Whatever is wrong with it the store knows better; and the session may be there by now.
            bare = replace(turn, transcript="", words=(), partials=(), reply="", reply_full="")
            await self._inner.add_turn(bare)
            owner = await self._owner(turn.session_id)
        cipher = await self._keys.cipher(owner)
        await self._inner.add_turn(_sealed(cipher, owner, turn))

    async def get_turn(self, session_id: str, turn_id: str) -> TurnRecord:
        """See `ConversationStore`."""
        turn = await self._inner.get_turn(session_id, turn_id)
        owner = await self._owner(session_id)
        return _open(await self._keys.cipher(owner), owner, turn)

    async def turns(self, session_id: str, limit: int = 100, offset: int = 0) -> list[TurnRecord]:
        """See `ConversationStore`."""
        found = await self._inner.turns(session_id, limit, offset)
        if not found:
            return []
        owner = await self._owner(session_id)
        cipher = await self._keys.cipher(owner)
        return [_open(cipher, owner, turn) for turn in found]

    async def close(self) -> None:
        """See `ConversationStore`."""
        await self._inner.close()

    async def _opened(self, session: SessionRecord) -> SessionRecord:
        self._owners.note(session.id, session.owner)
        if _SEALED not in session.settings:
            return session
        cipher = await self._keys.cipher(session.owner)
        return replace(session, settings=open_json(cipher, session.settings, _settings(session)))

    async def _owner(self, session_id: str) -> str:
        if (owner := self._owners.of(session_id)) is None:
            owner = (await self._inner.get_session(session_id)).owner
            self._owners.note(session_id, owner)
        return owner


class Owners:
    """Whose things are, by their ids, as far as is known: that never changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, id_: str) -> str | None:
        """Its owner."""
        return self._known.get(id_)

    def note(self, id_: str, owner: str) -> None:
        """It is `owner`'s."""
        self._known[id_] = owner
        self._known.move_to_end(id_)
        if len(self._known) > _OWNERS:
            self._known.popitem(last=False)


def seal_json(cipher: Cipher, value: dict[str, Any], about: str) -> dict[str, Any]:
    """An object with nothing in it but the seal of `value`; an empty one stays empty."""
    return {_SEALED: cipher.seal_text(json.dumps(value, ensure_ascii=False), about)} if value else {}


def open_json(cipher: Cipher, value: dict[str, Any], about: str) -> dict[str, Any]:
    """What was sealed; another object comes back as it is."""
    if _SEALED not in value:
        return value
    opened: dict[str, Any] = json.loads(cipher.open_text(value[_SEALED], about))
    return opened


def _settings(session: SessionRecord) -> str:
    return f"sessions settings {session.owner} {session.id}"


def _sealed(cipher: Cipher, owner: str, turn: TurnRecord) -> TurnRecord:
    def seal(text: str, field: str) -> str:
        return cipher.seal_text(text, _about(field, owner, turn))

    def all_of(values: Iterable[Any], field: str) -> str:
        return seal(json.dumps(list(values), ensure_ascii=False), field)

    words = all_of(map(asdict, turn.words), "words") if turn.words else ""
    return replace(
        turn,
        transcript=seal(turn.transcript, "transcript"),
        reply=seal(turn.reply, "reply"),
        reply_full=seal(turn.reply_full, "reply_full"),
        words=(Word(words, 0.0, 0.0, 0.0),) if words else (),
        partials=(all_of(turn.partials, "partials"),) if turn.partials else (),
    )


def _open(cipher: Cipher, owner: str, turn: TurnRecord) -> TurnRecord:
    def opened(text: str, field: str) -> str:
        return cipher.open_text(text, _about(field, owner, turn))

    words, partials = turn.words, turn.partials
    if len(words) == 1 and (text := opened(words[0].text, "words")) != words[0].text:
        words = tuple(Word(**word) for word in json.loads(text))
    if len(partials) == 1 and (text := opened(partials[0], "partials")) != partials[0]:
        partials = tuple(json.loads(text))
    return replace(
        turn,
        transcript=opened(turn.transcript, "transcript"),
        reply=opened(turn.reply, "reply"),
        reply_full=opened(turn.reply_full, "reply_full"),
        words=words,
        partials=partials,
    )


def _about(field: str, owner: str, turn: TurnRecord) -> str:
    return f"turns {field} {owner} {turn.id}"
