"""A `Diary` in the database of `sql`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Select, Table, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy import exc as sa_exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.roles import BadInput, NotFound
from app.stores.diary import (
    ActionItemRecord,
    ConversationRecord,
    MemoryRecord,
    PersonRecord,
    SegmentRecord,
    UserRecord,
)
from app.stores.interfaces import check_page
from app.stores.sql import failures, is_id, write_row
from app.stores.tables import action_items, conversations, memories, people, segments, users


class SqlDiary:
    """A `Diary`; `engine` is that of open `SqlConversations`, who close it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    # --- conversations ---------------------------------------------------------------------------

    async def keep(self, conversation: ConversationRecord, records: Sequence[SegmentRecord]) -> bool:
        """See `Diary`."""
        values = asdict(conversation)
        del values["structured"]
        c = conversations.c
        same = (c.id == conversation.id) & (c.owner == conversation.owner)
        async with self._writing() as connection:
            going_on = update(conversations).where(same, c.status == "in_progress")
            held = bool((await connection.execute(going_on.values(values))).rowcount)
            if (
                not held
                and (await connection.execute(select(c.id).where(c.id == conversation.id))).first() is None
            ):
                await connection.execute(insert(conversations).values(values))
                held = True
            for record in records:
                its = (segments.c.id == record.id) & (segments.c.conversation_id == conversation.id)
                await write_row(connection, segments, its, asdict(record))
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

    async def segments(
        self, conversation_ids: Sequence[str], last: int | None = None
    ) -> dict[str, list[SegmentRecord]]:
        """See `Diary`."""
        found: dict[str, list[SegmentRecord]] = {id_: [] for id_ in conversation_ids}
        c = segments.c
        if last is None:
            ids = [id_ for id_ in conversation_ids if is_id(id_)]
            query = select(segments).where(c.conversation_id.in_(ids)).order_by(c.start_s, c.end_s)
            for row in await self._rows(query):
                found[row.conversation_id].append(SegmentRecord(**row._mapping))
            return found
        for id_ in conversation_ids:
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
    ) -> None:
        """See `Diary`."""
        c = conversations.c
        values = {
            "status": "completed",
            "structured": conversation.structured,
            "touched_at": datetime.now(UTC),
        }
        async with self._writing() as connection:
            its = update(conversations).where(c.id == conversation.id)
            if not (await connection.execute(its.values(values))).rowcount:
                return  # deleted meanwhile
            for table, records in ((memories, new_memories), (action_items, items)):
                for record in records:
                    await write_row(connection, table, table.c.id == record.id, asdict(record))

    async def delete_conversation(self, owner: str, conversation_id: str) -> None:
        """See `Diary`."""
        await self._delete(conversations, owner, conversation_id)

    async def assign(self, owner: str, segment_ids: Sequence[str], person_id: str | None, user: bool) -> None:
        """See `Diary`."""
        ids = [id_ for id_ in segment_ids if is_id(id_)]
        own = select(conversations.c.id).where(conversations.c.owner == owner)
        query = update(segments).where(segments.c.id.in_(ids), segments.c.conversation_id.in_(own))
        async with self._writing() as connection:
            await connection.execute(query.values(person_id=person_id, is_user=user))

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

    # --- what was made of conversations ----------------------------------------------------------

    async def memories(self, owner: str, limit: int = 100, offset: int = 0) -> list[MemoryRecord]:
        """See `Diary`."""
        check_page(limit, offset)
        query = select(memories).where(memories.c.owner == owner)
        query = query.order_by(memories.c.created_at.desc(), memories.c.id).limit(limit).offset(offset)
        return [MemoryRecord(**row._mapping) for row in await self._rows(query)]

    async def action_items(
        self, owner: str, limit: int = 100, offset: int = 0, completed: bool | None = None
    ) -> list[ActionItemRecord]:
        """See `Diary`."""
        check_page(limit, offset)
        c = action_items.c
        query = select(action_items).where(c.owner == owner)
        if completed is not None:
            query = query.where(c.completed == completed)
        query = query.order_by(c.created_at.desc(), c.id).limit(limit).offset(offset)
        return [ActionItemRecord(**row._mapping) for row in await self._rows(query)]

    async def mark_item(self, owner: str, item_id: str, completed: bool) -> ActionItemRecord:
        """See `Diary`."""
        c = action_items.c
        if is_id(item_id):
            async with self._writing() as connection:
                which = update(action_items).where(c.id == item_id, c.owner == owner)
                await connection.execute(which.values(completed=completed))
        return ActionItemRecord(**(await self._own(action_items, owner, item_id))._mapping)

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

    async def _delete(self, table: Table, owner: str, id_: str) -> None:
        if is_id(id_):
            async with self._writing() as connection:
                query = delete_from(table).where(table.c.id == id_, table.c.owner == owner)
                if (await connection.execute(query)).rowcount:
                    return
        raise _missing()


def _missing() -> NotFound:
    return NotFound("there is nothing of yours with this id", field="id")
