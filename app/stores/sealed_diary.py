"""A `Diary` whose texts are sealed with their owner's key before they reach another one, and opened when they
come back; see `sealed`. Vectors are turned in a way that only that key knows, so that they can still be
searched; their encoder's name then begins with "~"."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

import numpy as np

from app.roles import Vector
from app.stores.crypt import Cipher, UserKeys
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    Diary,
    MemoryRecord,
    PersonRecord,
    SegmentRecord,
    UserRecord,
    VoiceRecord,
    Whose,
)
from app.stores.sealed import Owners, open_json, seal_json

_MARK = "~"
_PAGE = 1000


class SealedDiary:
    """`inner`, sealed."""

    def __init__(self, inner: Diary, keys: UserKeys) -> None:
        self._inner, self._keys = inner, keys
        self._owners = Owners()

    # --- conversations ---------------------------------------------------------------------------

    async def keep(self, conversation: ConversationRecord, segments: Sequence[SegmentRecord]) -> bool:
        """See `Diary`."""
        cipher = await self._keys.cipher(conversation.owner)
        owner = conversation.owner
        sealed = [replace(s, text=cipher.seal_text(s.text, _segment(owner, s))) for s in segments]
        return await self._inner.keep(_sealed_conversation(cipher, conversation), sealed)

    async def conversation(self, owner: str, conversation_id: str) -> ConversationRecord:
        """See `Diary`."""
        return await self._open_conversation(await self._inner.conversation(owner, conversation_id))

    async def conversations(
        self, owner: str, statuses: Sequence[str] = (), limit: int = 100, offset: int = 0
    ) -> list[ConversationRecord]:
        """See `Diary`."""
        found = await self._inner.conversations(owner, statuses, limit, offset)
        return [await self._open_conversation(c) for c in found]

    async def owners(self, conversation_ids: Sequence[str]) -> dict[str, str]:
        """See `Diary`."""
        found = {id_: owner for id_ in conversation_ids if (owner := self._owners.of(id_)) is not None}
        if missing := [id_ for id_ in conversation_ids if id_ not in found]:
            asked = await self._inner.owners(missing)
            for id_, owner in asked.items():
                self._owners.note(id_, owner)
            found |= asked
        return found

    async def segments(
        self, conversation_ids: Sequence[str], last: int | None = None
    ) -> dict[str, list[SegmentRecord]]:
        """See `Diary`."""
        found = await self._inner.segments(conversation_ids, last)
        owners = await self.owners([id_ for id_, segments in found.items() if segments])
        return {
            id_: await self._open_segments(owners[id_], segments) if segments else []
            for id_, segments in found.items()
        }

    async def overdue(self, ended: datetime, stale: datetime) -> list[ConversationRecord]:
        """See `Diary`."""
        return [await self._open_conversation(c) for c in await self._inner.overdue(ended, stale)]

    async def claim(self, conversation_id: str, touched_at: datetime | None = None) -> bool:
        """See `Diary`."""
        return await self._inner.claim(conversation_id, touched_at)

    async def complete(
        self,
        conversation: ConversationRecord,
        memories: Sequence[MemoryRecord] = (),
        items: Sequence[ActionItemRecord] = (),
        *,
        again: bool = False,
    ) -> None:
        """See `Diary`."""
        cipher = await self._keys.cipher(conversation.owner)
        await self._inner.complete(
            _sealed_conversation(cipher, conversation),
            [
                replace(m, content=cipher.seal_text(m.content, _memory(m.owner, m.id)))
                for m in await asyncio.to_thread(_turned, cipher, memories)
            ],
            [replace(i, description=cipher.seal_text(i.description, _item(i))) for i in items],
            again=again,
        )

    async def delete_conversation(self, owner: str, conversation_id: str) -> None:
        """See `Diary`."""
        await self._inner.delete_conversation(owner, conversation_id)

    async def assign(
        self, owner: str, segment_ids: Sequence[str], person_id: str | None, user: bool
    ) -> list[SegmentRecord]:
        """See `Diary`."""
        changed = await self._inner.assign(owner, segment_ids, person_id, user)
        return await self._open_segments(owner, changed)

    async def relabel(
        self,
        conversation_id: str,
        speaker: int,
        new_speaker: int,
        was: Whose | None = None,
        now: Whose | None = None,
    ) -> list[SegmentRecord]:
        """See `Diary`."""
        changed = await self._inner.relabel(conversation_id, speaker, new_speaker, was, now)
        if not changed:
            return []
        return await self._open_segments((await self.owners([conversation_id]))[conversation_id], changed)

    async def _open_conversation(self, record: ConversationRecord) -> ConversationRecord:
        self._owners.note(record.id, record.owner)
        cipher = await self._keys.cipher(record.owner)
        structured, voices = (
            value and open_json(cipher, value, _conversation(field, record))
            for field, value in (("structured", record.structured), ("voices", record.voices))
        )
        return replace(record, structured=structured, voices=voices)

    async def _open_segments(self, owner: str, segments: Sequence[SegmentRecord]) -> list[SegmentRecord]:
        cipher = await self._keys.cipher(owner)
        return [replace(s, text=cipher.open_text(s.text, _segment(owner, s))) for s in segments]

    # --- people ----------------------------------------------------------------------------------

    async def people(self, owner: str) -> list[PersonRecord]:
        """See `Diary`."""
        cipher = await self._keys.cipher(owner)
        found = await self._inner.people(owner)
        opened = [replace(p, name=cipher.open_text(p.name, _person(p))) for p in found]
        return sorted(opened, key=lambda p: (p.name, p.id))

    async def add_person(self, person: PersonRecord) -> None:
        """See `Diary`."""
        cipher = await self._keys.cipher(person.owner)
        await self._inner.add_person(replace(person, name=cipher.seal_text(person.name, _person(person))))

    async def delete_person(self, owner: str, person_id: str) -> None:
        """See `Diary`."""
        await self._inner.delete_person(owner, person_id)

    async def voices(self, owner: str) -> list[VoiceRecord]:
        """See `Diary`."""
        cipher = await self._keys.cipher(owner)
        return [_open_voice(cipher, voice) for voice in await self._inner.voices(owner)]

    async def set_voice(self, voice: VoiceRecord) -> None:
        """See `Diary`."""
        if voice.vector:
            cipher = await self._keys.cipher(voice.owner)
            numbers = cipher.seal(np.asarray(voice.vector, "<f8").tobytes(), _voice(voice))
            voice = replace(voice, encoder=_MARK + voice.encoder, vector=[*numbers])
        await self._inner.set_voice(voice)

    async def delete_voice(self, owner: str, person_id: str | None) -> None:
        """See `Diary`."""
        await self._inner.delete_voice(owner, person_id)

    async def listened(self, owner: str, day: date, seconds: float) -> float:
        """See `Diary`."""
        return await self._inner.listened(owner, day, seconds)

    # --- what was made of conversations ----------------------------------------------------------

    async def memories(
        self, owner: str, limit: int = 100, offset: int = 0, *, vectors: bool = False
    ) -> list[MemoryRecord]:
        """See `Diary`."""
        found = await self._inner.memories(owner, limit, offset, vectors=vectors)
        return await self._open_memories(owner, found)

    async def place_memories(self, records: Sequence[MemoryRecord]) -> None:
        """See `Diary`."""
        # What is sealed is never the same twice: a content is the same as another only opened.
        for owner in {r.owner for r in records}:
            own = {r.id: r for r in records if r.owner == owner}
            cipher = await self._keys.cipher(owner)
            stored = await self._stored(owner, own)
            same = [
                replace(own[m.id], content=m.content)
                for m in stored
                if cipher.open_text(m.content, _memory(owner, m.id)) == own[m.id].content
            ]
            await self._inner.place_memories(await asyncio.to_thread(_turned, cipher, same))

    async def nearest_memories(
        self, owner: str, encoder: str, vector: Vector, limit: int
    ) -> list[tuple[MemoryRecord, float]]:
        """See `Diary`."""
        cipher = await self._keys.cipher(owner)
        turned = await asyncio.to_thread(cipher.turn, vector)
        found = await self._inner.nearest_memories(owner, _MARK + encoder, turned, limit)
        # Those from before there were seals.
        found += await self._inner.nearest_memories(owner, encoder, vector, limit)
        nearest = sorted(found, key=lambda pair: -pair[1])[:limit]
        opened = await self._open_memories(owner, [memory for memory, _ in nearest])
        return [(memory, alike) for memory, (_, alike) in zip(opened, nearest, strict=True)]

    async def change_memory(self, owner: str, memory_id: str, content: str) -> MemoryRecord:
        """See `Diary`."""
        cipher = await self._keys.cipher(owner)
        sealed = cipher.seal_text(content, _memory(owner, memory_id))
        return replace(await self._inner.change_memory(owner, memory_id, sealed), content=content)

    async def delete_memory(self, owner: str, memory_id: str) -> None:
        """See `Diary`."""
        await self._inner.delete_memory(owner, memory_id)

    async def delete_memories(self, owner: str) -> None:
        """See `Diary`."""
        await self._inner.delete_memories(owner)

    async def _stored(self, owner: str, ids: Mapping[str, object]) -> list[MemoryRecord]:
        """These memories as they are stored."""
        found: list[MemoryRecord] = []
        offset = 0
        while page := await self._inner.memories(owner, _PAGE, offset):
            found += [m for m in page if m.id in ids]
            offset += len(page)
            if len(found) == len(ids) or len(page) < _PAGE:
                break
        return found

    async def _open_memories(self, owner: str, found: Sequence[MemoryRecord]) -> list[MemoryRecord]:
        cipher = await self._keys.cipher(owner)

        def opened() -> list[MemoryRecord]:
            return [
                replace(m, content=cipher.open_text(m.content, _memory(owner, m.id)))
                for m in _turned_back(cipher, found)
            ]

        return await asyncio.to_thread(opened) if len(found) > 100 or _placed(found) else opened()

    async def action_items(
        self,
        owner: str,
        limit: int = 100,
        offset: int = 0,
        completed: bool | None = None,
        conversation_id: str | None = None,
    ) -> list[ActionItemRecord]:
        """See `Diary`."""
        found = await self._inner.action_items(owner, limit, offset, completed, conversation_id)
        return [await self._open_item(item) for item in found]

    async def items_of(self, conversation_ids: Sequence[str]) -> dict[str, ActionItemRecord]:
        """See `Diary`."""
        found = await self._inner.items_of(conversation_ids)
        return {id_: await self._open_item(item) for id_, item in found.items()}

    async def action_item(self, owner: str, item_id: str) -> ActionItemRecord:
        """See `Diary`."""
        return await self._open_item(await self._inner.action_item(owner, item_id))

    async def change_item(self, item: ActionItemRecord) -> None:
        """See `Diary`."""
        cipher = await self._keys.cipher(item.owner)
        sealed = cipher.seal_text(item.description, _item(item))
        await self._inner.change_item(replace(item, description=sealed))

    async def delete_item(self, owner: str, item_id: str) -> None:
        """See `Diary`."""
        await self._inner.delete_item(owner, item_id)

    async def _open_item(self, item: ActionItemRecord) -> ActionItemRecord:
        cipher = await self._keys.cipher(item.owner)
        return replace(item, description=cipher.open_text(item.description, _item(item)))

    # --- users -----------------------------------------------------------------------------------

    async def user(self, owner: str) -> UserRecord:
        """See `Diary`."""
        return await self._inner.user(owner)

    async def set_user(self, user: UserRecord) -> None:
        """See `Diary`."""
        await self._inner.set_user(user)


# What a sealed value is about: its table, its column, whose it is, and which.


def _conversation(field: str, record: ConversationRecord) -> str:
    return f"conversations {field} {record.owner} {record.id}"


def _segment(owner: str, record: SegmentRecord) -> str:
    return f"segments text {owner} {record.id}"


def _person(record: PersonRecord) -> str:
    return f"people name {record.owner} {record.id}"


def _voice(record: VoiceRecord) -> str:
    return f"voices vector {record.owner} {record.id}"


def _memory(owner: str, id_: str) -> str:
    return f"memories content {owner} {id_}"


def _item(record: ActionItemRecord) -> str:
    return f"action_items description {record.owner} {record.id}"


def _sealed_conversation(cipher: Cipher, record: ConversationRecord) -> ConversationRecord:
    structured, voices = (
        value and seal_json(cipher, value, _conversation(field, record))
        for field, value in (("structured", record.structured), ("voices", record.voices))
    )
    return replace(record, structured=structured, voices=voices)


# Turning is for a thread: a key's first time takes a while.


def _placed(records: Sequence[MemoryRecord]) -> bool:
    return any(r.vector is not None for r in records)


def _turned(cipher: Cipher, records: Sequence[MemoryRecord]) -> list[MemoryRecord]:
    placed = [r for r in records if r.encoder is not None and r.vector is not None]
    turned = _turn(cipher, placed, back=False)
    return [
        replace(r, encoder=f"{_MARK}{r.encoder}", vector=turned[r.id]) if r.id in turned else r
        for r in records
    ]


def _turned_back(cipher: Cipher, records: Sequence[MemoryRecord]) -> list[MemoryRecord]:
    marked = [r for r in records if r.encoder is not None and r.encoder.startswith(_MARK)]
    names = {r.id: r.encoder.removeprefix(_MARK) for r in marked if r.encoder is not None}
    turned = _turn(cipher, [r for r in marked if r.vector is not None], back=True)
    return [replace(r, encoder=names[r.id], vector=turned.get(r.id)) if r.id in names else r for r in records]


def _turn(cipher: Cipher, records: Sequence[MemoryRecord], *, back: bool) -> dict[str, Vector]:
    """Their vectors turned, by id; those of one length at once."""
    alike: dict[int, list[tuple[str, Vector]]] = {}
    for record in records:
        if record.vector is not None:
            alike.setdefault(len(record.vector), []).append((record.id, record.vector))
    turned: dict[str, Vector] = {}
    for some in alike.values():
        columns = cipher.turn(np.stack([vector for _, vector in some], axis=1), back=back)
        turned |= {id_: columns[:, n].copy() for n, (id_, _) in enumerate(some)}
    return turned


def _open_voice(cipher: Cipher, voice: VoiceRecord) -> VoiceRecord:
    if not voice.encoder.startswith(_MARK):
        return voice
    numbers = cipher.open(bytes(int(number) for number in voice.vector), _voice(voice))
    vector = np.frombuffer(numbers, "<f8").tolist()
    return replace(voice, encoder=voice.encoder.removeprefix(_MARK), vector=vector)
