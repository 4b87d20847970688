"""A `Diary` in the database of `sql`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Row, Select, Table, literal, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.roles import BadInput, NotFound, Vector
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    MemoryRecord,
    PersonRecord,
    SegmentRecord,
    UserRecord,
    VoiceRecord,
    Whose,
)
from app.stores.interfaces import check_page
from app.stores.sql import add_row, failures, is_id, write_row
from app.stores.tables import (
    action_items,
    conversations,
    listened,
    memories,
    people,
    segments,
    users,
    voices,
)
from app.stores.vectors import cosine_distance


class SqlDiary:
    """A `Diary`; `engine` is that of open `SqlConversations`, who close it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    # --- conversations ---------------------------------------------------------------------------

    async def keep(self, conversation: ConversationRecord, records: Sequence[SegmentRecord]) -> bool:
        """See `Diary`."""
        values = asdict(conversation)
        del values["structured"]
        if conversation.voices is None:
            del values["voices"]
        c = conversations.c
        same = (c.id == conversation.id) & (c.owner == conversation.owner)
        async with self._writing() as connection:
            going_on = update(conversations).where(same, c.status == "in_progress")
            held = bool((await connection.execute(going_on.values(values))).rowcount)
            if not held:
                there = (await connection.execute(select(c.id).where(c.id == conversation.id))).first()
                held = there is None and await add_row(connection, conversations, values)
                if not held:  # somebody else may just have added it
                    held = bool((await connection.execute(going_on.values(values))).rowcount)
            for record in records:
                its = (segments.c.id == record.id) & (segments.c.conversation_id == conversation.id)
                whose = _known_person(conversation.owner, record.person_id)
                await write_row(connection, segments, its, {**asdict(record), "person_id": whose})
        return held

    async def conversation(self, owner: str, conversation_id: str) -> ConversationRecord:
        """See `Diary`."""
        row = await self._own(conversations, owner, conversation_id)
        return ConversationRecord(**row._mapping)

    async def conversations(
        self, owner: str, statuses: Sequence[str] = (), limit: int = 100, offset: int = 0
    ) -> list[ConversationRecord]:
        """See `Diary`."""
        check_page(limit, offset)
        c = conversations.c
        query = select(conversations).where(c.owner == owner)
        if statuses:
            query = query.where(c.status.in_(statuses))
        query = query.order_by(c.started_at.desc(), c.id).limit(limit).offset(offset)
        return [ConversationRecord(**row._mapping) for row in await self._rows(query)]

    async def owners(self, conversation_ids: Sequence[str]) -> dict[str, str]:
        """See `Diary`."""
        c = conversations.c
        ids = [id_ for id_ in conversation_ids if is_id(id_)]
        return {row.id: row.owner for row in await self._rows(select(c.id, c.owner).where(c.id.in_(ids)))}

    async def segments(
        self, conversation_ids: Sequence[str], last: int | None = None
    ) -> dict[str, list[SegmentRecord]]:
        """See `Diary`."""
        found: dict[str, list[SegmentRecord]] = {id_: [] for id_ in conversation_ids}
        c = segments.c
        ids = [id_ for id_ in conversation_ids if is_id(id_)]
        if last is None:
            query = select(segments).where(c.conversation_id.in_(ids)).order_by(c.start_s, c.end_s)
            for row in await self._rows(query):
                found[row.conversation_id].append(SegmentRecord(**row._mapping))
            return found
        for id_ in ids:
            query = select(segments).where(c.conversation_id == id_)
            query = query.order_by(c.start_s.desc(), c.end_s.desc()).limit(last)
            found[id_] = [SegmentRecord(**row._mapping) for row in await self._rows(query)][::-1]
        return found

    async def overdue(self, ended: datetime, stale: datetime) -> list[ConversationRecord]:
        """See `Diary`."""
        c = conversations.c
        left = (c.status == "processing") & (c.touched_at < stale)
        over = (c.status == "in_progress") & (c.ends_at < ended)
        rows = await self._rows(select(conversations).where(left | over).limit(100))
        return [ConversationRecord(**row._mapping) for row in rows]

    async def claim(self, conversation_id: str, touched_at: datetime | None = None) -> bool:
        """See `Diary`."""
        c = conversations.c
        query = update(conversations).where(c.id == conversation_id)
        if touched_at is None:
            query = query.where(c.status == "in_progress")
        else:
            query = query.where(c.status == "processing", c.touched_at == touched_at)
        async with self._writing() as connection:
            values = {"status": "processing", "touched_at": datetime.now(UTC)}
            return bool((await connection.execute(query.values(values))).rowcount)

    async def complete(
        self,
        conversation: ConversationRecord,
        new_memories: Sequence[MemoryRecord] = (),
        items: Sequence[ActionItemRecord] = (),
        *,
        again: bool = False,
    ) -> None:
        """See `Diary`."""
        c = conversations.c
        values = {
            "status": "completed",
            "structured": conversation.structured,
            "voices": None,
            "touched_at": datetime.now(UTC),
        }
        async with self._writing() as connection:
            its = update(conversations).where(c.id == conversation.id)
            if not (await connection.execute(its.values(values))).rowcount:
                return  # deleted meanwhile
            if again:
                kept = {i.id for i in items}
                a = action_items.c
                undone = (a.conversation_id == conversation.id) & ~a.completed & a.id.not_in(kept)
                await connection.execute(delete_from(action_items).where(undone))
                gone = memories.c.conversation_id == conversation.id
                await connection.execute(delete_from(memories).where(gone))
            for table, records in ((memories, new_memories), (action_items, items)):
                for record in records:
                    await write_row(connection, table, table.c.id == record.id, asdict(record))

    async def delete_conversation(self, owner: str, conversation_id: str) -> None:
        """See `Diary`."""
        await self._delete(conversations, owner, conversation_id)

    async def assign(
        self, owner: str, segment_ids: Sequence[str], person_id: str | None, user: bool
    ) -> list[SegmentRecord]:
        """See `Diary`."""
        ids = [id_ for id_ in segment_ids if is_id(id_)]
        own = select(conversations.c.id).where(conversations.c.owner == owner)
        query = update(segments).where(segments.c.id.in_(ids), segments.c.conversation_id.in_(own))
        async with self._writing() as connection:
            changed = query.values(person_id=_known_person(owner, person_id), is_user=user)
            rows = (await connection.execute(changed.returning(segments))).all()
        return [SegmentRecord(**row._mapping) for row in rows]

    async def relabel(
        self,
        conversation_id: str,
        speaker: int,
        new_speaker: int,
        was: Whose | None = None,
        now: Whose | None = None,
    ) -> list[SegmentRecord]:
        """See `Diary`."""
        c = segments.c
        query = update(segments).where(c.conversation_id == conversation_id, c.speaker == speaker)
        if was is not None:
            query = query.where(c.is_user == was[0], c.person_id.is_not_distinct_from(was[1]))
        values: dict[str, Any] = {"speaker": new_speaker}
        if now is not None:
            owner = select(conversations.c.owner).where(conversations.c.id == conversation_id)
            values |= {"is_user": now[0], "person_id": _known_person(owner.scalar_subquery(), now[1])}
        async with self._writing() as connection:
            rows = (await connection.execute(query.values(values).returning(segments))).all()
        return sorted((SegmentRecord(**row._mapping) for row in rows), key=lambda s: s.start_s)

    # --- people ----------------------------------------------------------------------------------

    async def people(self, owner: str) -> list[PersonRecord]:
        """See `Diary`."""
        query = select(people).where(people.c.owner == owner).order_by(people.c.name, people.c.id)
        return [PersonRecord(**row._mapping) for row in await self._rows(query)]

    async def add_person(self, person: PersonRecord) -> None:
        """See `Diary`."""
        same = (people.c.id == person.id) & (people.c.owner == person.owner)
        async with self._writing() as connection:
            await write_row(connection, people, same, asdict(person))

    async def delete_person(self, owner: str, person_id: str) -> None:
        """See `Diary`."""
        await self._delete(people, owner, person_id)

    async def voices(self, owner: str) -> list[VoiceRecord]:
        """See `Diary`."""
        rows = await self._rows(select(voices).where(voices.c.owner == owner).order_by(voices.c.id))
        return [VoiceRecord(**{k: v for k, v in row._mapping.items() if k != "id"}) for row in rows]

    async def set_voice(self, voice: VoiceRecord) -> None:
        """See `Diary`."""
        if voice.person_id is not None:
            await self._own(people, voice.owner, voice.person_id)
        async with self._writing() as connection:
            await write_row(connection, voices, voices.c.id == voice.id, {"id": voice.id, **asdict(voice)})

    async def delete_voice(self, owner: str, person_id: str | None) -> None:
        """See `Diary`."""
        if person_id is None or is_id(person_id):
            its = (voices.c.owner == owner) & voices.c.person_id.is_not_distinct_from(person_id)
            async with self._writing() as connection:
                await connection.execute(delete_from(voices).where(its))

    async def listened(self, owner: str, day: date, seconds: float) -> float:
        """See `Diary`."""
        its = (listened.c.owner == owner) & (listened.c.day == day)
        async with self._writing() as connection:
            added = update(listened).where(its).values(seconds=listened.c.seconds + seconds)
            total = await connection.scalar(added.returning(listened.c.seconds))
            if total is None:
                row = {"owner": owner, "day": day, "seconds": seconds}
                if not await add_row(connection, listened, row):  # another process was first
                    total = await connection.scalar(added.returning(listened.c.seconds))
        return seconds if total is None else float(total)

    # --- what was made of conversations ----------------------------------------------------------

    async def memories(
        self, owner: str, limit: int = 100, offset: int = 0, *, vectors: bool = False
    ) -> list[MemoryRecord]:
        """See `Diary`."""
        check_page(limit, offset)
        columns = [column for column in memories.c if vectors or column.name != "vector"]
        query = select(*columns).where(memories.c.owner == owner)
        query = query.order_by(memories.c.created_at.desc(), memories.c.id).limit(limit).offset(offset)
        return [MemoryRecord(**row._mapping) for row in await self._rows(query)]

    async def place_memories(self, records: Sequence[MemoryRecord]) -> None:
        """See `Diary`."""
        c = memories.c
        async with self._writing() as connection:
            for record in records:
                its = update(memories).where(c.id == record.id, c.content == record.content)
                await connection.execute(its.values(encoder=record.encoder, vector=record.vector))

    async def nearest_memories(
        self, owner: str, encoder: str, vector: Vector, limit: int
    ) -> list[tuple[MemoryRecord, float]]:
        """See `Diary`."""
        check_page(limit, 0)
        c = memories.c
        distance = cosine_distance(c.vector, literal(vector, c.vector.type)).label("distance")
        columns = [column for column in c if column.name != "vector"]
        its = select(*columns, distance).where(c.owner == owner, c.encoder == encoder).subquery()
        query = select(its).where(its.c.distance.is_not(None)).order_by(its.c.distance, its.c.id)
        found = []
        for row in await self._rows(query.limit(limit)):
            values = dict(row._mapping)
            distance_of_row = values.pop("distance")
            found.append((MemoryRecord(**values), 1.0 - distance_of_row))
        return found

    async def change_memory(self, owner: str, memory_id: str, content: str) -> MemoryRecord:
        """See `Diary`."""
        await self._change(memories, owner, memory_id, content=content, encoder=None, vector=None)
        return MemoryRecord(**(await self._own(memories, owner, memory_id))._mapping)

    async def delete_memory(self, owner: str, memory_id: str) -> None:
        """See `Diary`."""
        await self._delete(memories, owner, memory_id)

    async def delete_memories(self, owner: str) -> None:
        """See `Diary`."""
        async with self._writing() as connection:
            await connection.execute(delete_from(memories).where(memories.c.owner == owner))

    async def action_items(
        self,
        owner: str,
        limit: int = 100,
        offset: int = 0,
        completed: bool | None = None,
        conversation_id: str | None = None,
    ) -> list[ActionItemRecord]:
        """See `Diary`."""
        check_page(limit, offset)
        c = action_items.c
        query = select(action_items).where(c.owner == owner)
        if completed is not None:
            query = query.where(c.completed == completed)
        if conversation_id is not None:
            if not is_id(conversation_id):
                return []
            query = query.where(c.conversation_id == conversation_id)
        query = query.order_by(c.created_at.desc(), c.id).limit(limit).offset(offset)
        return [ActionItemRecord(**row._mapping) for row in await self._rows(query)]

    async def items_of(self, conversation_ids: Sequence[str]) -> dict[str, ActionItemRecord]:
        """See `Diary`."""
        ids = [id_ for id_ in conversation_ids if is_id(id_)]
        query = select(action_items).where(action_items.c.conversation_id.in_(ids))
        return {row.id: ActionItemRecord(**row._mapping) for row in await self._rows(query)}

    async def action_item(self, owner: str, item_id: str) -> ActionItemRecord:
        """See `Diary`."""
        return ActionItemRecord(**(await self._own(action_items, owner, item_id))._mapping)

    async def change_item(self, item: ActionItemRecord) -> None:
        """See `Diary`."""
        values = {
            name: getattr(item, name) for name in ("description", "completed", "completed_at", "due_at")
        }
        await self._change(action_items, item.owner, item.id, **values)

    async def delete_item(self, owner: str, item_id: str) -> None:
        """See `Diary`."""
        await self._delete(action_items, owner, item_id)

    # --- users -----------------------------------------------------------------------------------

    async def user(self, owner: str) -> UserRecord:
        """See `Diary`."""
        rows = await self._rows(select(users).where(users.c.owner == owner))
        return UserRecord(**rows[0]._mapping) if rows else UserRecord(owner)

    async def set_user(self, user: UserRecord) -> None:
        """See `Diary`."""
        async with self._writing() as connection:
            await write_row(connection, users, users.c.owner == user.owner, asdict(user))

    # --- small things ----------------------------------------------------------------------------

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        try:
            with failures():
                async with self._engine.begin() as connection:
                    yield connection
        except sa_exc.IntegrityError as error:
            raise BadInput("An id is taken by somebody else's, or names nothing.", field="id") from error

    async def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with failures():
            async with self._engine.connect() as connection:
                rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
                return rows

    async def _own(self, table: Table, owner: str, id_: str) -> Row[Any]:
        if is_id(id_):
            rows = await self._rows(select(table).where(table.c.id == id_, table.c.owner == owner))
            if rows:
                return rows[0]
        raise _missing()

    async def _change(self, table: Table, owner: str, id_: str, **values: Any) -> None:
        if is_id(id_):
            async with self._writing() as connection:
                query = update(table).where(table.c.id == id_, table.c.owner == owner)
                if (await connection.execute(query.values(values))).rowcount:
                    return
        raise _missing()

    async def _delete(self, table: Table, owner: str, id_: str) -> None:
        if is_id(id_):
            async with self._writing() as connection:
                query = delete_from(table).where(table.c.id == id_, table.c.owner == owner)
                if (await connection.execute(query)).rowcount:
                    return
        raise _missing()


def _known_person(owner: Any, person_id: str | None) -> Any:
    """The id if `owner` knows somebody with it, else null: a person may have been deleted meanwhile."""
    if person_id is None or not is_id(person_id):
        return None
    c = people.c
    return select(c.id).where(c.id == person_id, c.owner == owner).scalar_subquery()


def _missing() -> NotFound:
    return NotFound("there is nothing of yours with this id", field="id")
