"""Everything in one database, brought to another: from SQLite to PostgreSQL, or back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from hashlib import sha256
from typing import Any

import numpy as np
from sqlalchemy import Row, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.roles import BadInput, Misconfigured
from app.stores.interfaces import StoreFailed
from app.stores.sql import failures, open_conversations
from app.stores.tables import metadata

_BATCH = 500

Counts = dict[str, int]
"""Rows by table."""


async def transfer(
    from_url: str, to_url: str, tell: Callable[[int, int], None] = lambda done, of: None
) -> Counts:
    """Copy all rows of the database at `from_url`, as it is at this moment, to the one at `to_url`, which is
    made if it is SQLite's, and must be empty. All of it is read again there, and counts and SHA-256 of each
    table are compared, before any of it is there for others. `tell` hears how many rows of how many are
    there. Raises `Misconfigured` and `StoreFailed`; then nothing is there."""
    source = await open_conversations(from_url)
    try:
        target = await open_conversations(to_url)
        try:
            with failures():
                return await _transfer(source.engine, target.engine, tell)
        finally:
            await target.close()
    finally:
        await source.close()


async def _transfer(source: AsyncEngine, target: AsyncEngine, tell: Callable[[int, int], None]) -> Counts:
    # Those that others name come first.
    tables = metadata.sorted_tables
    async with _one_moment(source) as here, target.begin() as there:
        for table in tables:
            if await _count(there, table):
                raise Misconfigured(
                    f"the target is not empty ({table.name} has rows): give it an empty database"
                )
        counts = {table.name: await _count(here, table) for table in tables}
        done, of = 0, sum(counts.values())
        for table in tables:
            added, sums = 0, 0
            async for rows in _rows(here, table):
                await _add(there, table, rows)
                sums += sum(map(_sum, rows))
                added += len(rows)
                done += len(rows)
                tell(done, of)
            if (added, sums) != await _summed(there, table):
                raise StoreFailed(f"{table.name} is not there as it was sent: nothing was changed there.")
            counts[table.name] = added
    return counts


@asynccontextmanager
async def _one_moment(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection to which all is as it was when it began."""
    async with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            await connection.exec_driver_sql("BEGIN")
        else:
            await connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def _rows(connection: AsyncConnection, table: Table) -> AsyncIterator[list[Row[Any]]]:
    async with connection.stream(select(table)) as result:
        async for rows in result.partitions(_BATCH):
            yield list(rows)


async def _add(connection: AsyncConnection, table: Table, rows: list[Row[Any]]) -> None:
    try:
        with failures():
            await connection.execute(insert(table), [dict(row._mapping) for row in rows])
    except BadInput as error:
        raise StoreFailed(
            f"the target does not take a value in {table.name}: nothing was changed there."
        ) from error


async def _summed(connection: AsyncConnection, table: Table) -> tuple[int, int]:
    count, sums = 0, 0
    async for rows in _rows(connection, table):
        count += len(rows)
        sums += sum(map(_sum, rows))
    return count, sums


def _sum(row: Row[Any]) -> int:
    """SHA-256 of a row; rows are added up, since each database has an order of its own."""
    return int.from_bytes(sha256(json.dumps(list(row), default=_plain, sort_keys=True).encode()).digest())


def _plain(value: Any) -> Any:
    if isinstance(value, date):  # also a datetime
        return value.isoformat()
    if isinstance(value, np.ndarray):
        return value.tobytes().hex()
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(type(value).__name__)
