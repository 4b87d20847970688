"""All that a relational database holds of one owner, whatever the tables are: to be erased.

A table is an owner's if it has a column `owner`, or a row cannot be without another row that is theirs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Table, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from app.stores.sql import failures
from app.stores.tables import conversation_turns, listened, metadata, sessions

_KEYS = "user_keys"


@dataclass(frozen=True, slots=True)
class Span:
    """A session, and the days on which something may have been recorded in it."""

    session_id: str
    first: date
    last: date


class SqlOwned:
    """What owners have in the database of `engine`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def object_keys(self, owner: str) -> set[str]:
        """The objects that rows of `owner` name."""
        found: set[str] = set()
        with failures():
            async with self._engine.connect() as connection:
                for table in owned():
                    for column in table.c:
                        if column.name in ("audio_key", "profile_key"):
                            query = select(column).where(_whose(table, owner), column.is_not(None))
                            found |= set((await connection.execute(query)).scalars())
        return found

    async def spans(self, owner: str) -> list[Span]:
        """`owner`'s sessions."""
        last = func.max(conversation_turns.c.created_at, type_=conversation_turns.c.created_at.type)
        query = (
            select(sessions.c.id, sessions.c.created_at, sessions.c.ended_at, last)
            .outerjoin_from(sessions, conversation_turns)
            .where(sessions.c.owner == owner)
            .group_by(sessions.c.id, sessions.c.created_at, sessions.c.ended_at)
        )
        with failures():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        # What was being said when a process died has no row: it is of that day or the next.
        return [
            Span(id_, began.date(), max(t for t in (began, ended, turn) if t).date() + timedelta(days=1))
            for id_, began, ended, turn in rows
        ]

    async def listened(self, owner: str) -> list[tuple[date, float]]:
        """For how long `owner` was listened to, by day, in seconds."""
        query = select(listened.c.day, listened.c.seconds).where(listened.c.owner == owner)
        with failures():
            async with self._engine.connect() as connection:
                rows = await connection.execute(query.order_by(listened.c.day))
                return [(row.day, row.seconds) for row in rows]

    async def erase(self, owner: str) -> Counter[str]:
        """Delete all rows of `owner` but their key, at once; how many, by table."""
        gone: Counter[str] = Counter()
        with failures():
            async with self._engine.begin() as connection:
                for table in reversed(owned()):
                    if table.name != _KEYS:
                        done = await connection.execute(delete(table).where(_whose(table, owner)))
                        gone[table.name] += done.rowcount
        return +gone

    async def scrub(self) -> None:
        """What was deleted is overwritten as far as the database can do that by itself."""
        if self._engine.dialect.name == "sqlite":
            with failures():
                async with self._engine.connect() as connection:
                    # The pages are zeroed (secure_delete); older ones are still in the journal.
                    await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))


def owned() -> list[Table]:
    """The tables that hold something of owners, those that others need first."""
    return [table for table in metadata.sorted_tables if "owner" in table.c or _holder(table) is not None]


def _holder(table: Table) -> tuple[ColumnElement[str], Table] | None:
    """The column that names a row of an owner's table without which a row of this one cannot be."""
    for column in table.c:
        for key in column.foreign_keys:
            other = key.column.table
            if not column.nullable and ("owner" in other.c or _holder(other) is not None):
                return column, other
    return None


def _whose(table: Table, owner: str) -> ColumnElement[bool]:
    if "owner" in table.c:
        own: ColumnElement[bool] = table.c.owner == owner
        return own
    holder = _holder(table)
    assert holder is not None, table.name
    column, other = holder
    (id_,) = other.primary_key.columns
    return column.in_(select(id_).where(_whose(other, owner)))
