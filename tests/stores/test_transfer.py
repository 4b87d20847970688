"""Everything moved from one database to the other kind, with something in every table and column."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import JSON, Boolean, Date, DateTime, Float, Integer, LargeBinary, Uuid, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.roles import Misconfigured
from app.stores.database import sqlite_url
from app.stores.interfaces import StoreFailed
from app.stores.sql import open_conversations
from app.stores.tables import UtcDateTime, metadata, sessions
from app.stores.transfer import transfer
from app.stores.vectors import Floats

ROOT = Path(__file__).parents[2]
ROWS = 7
TABLES = metadata.sorted_tables
TEXT = 'Ça va? 你好 🎙 it\'s "fine"\nyes'


def _value(table: str, name: str, kind: Any, n: int) -> Any:
    values: dict[type, Any] = {
        UtcDateTime: datetime(2026, 11, 21, 23, 59, 58, 123456 + n, tzinfo=UTC),
        Floats: np.array([0.1, -1 / 3, n], np.float32),
        DateTime: None,
        Date: date(2026, 11, 1) + timedelta(days=n),
        Uuid: str(uuid4()),
        JSON: {"ß": [0.1 + 0.2, None, True, TEXT], "n": n},
        Boolean: n % 2 == 0,
        Float: 0.1 + 0.2 + n % 90,
        Integer: n,
        LargeBinary: bytes(range(n % 200, n % 200 + 40)),
    }
    if name == "mode":
        return ("fast", "hq")[n % 2]
    return values.get(type(kind), f"{table} {n} {TEXT}"[: getattr(kind, "length", None) or 1000])


async def _fill(engine: AsyncEngine, rows: int = ROWS) -> None:
    """Rows with a value in every column; of the first row null where that may be."""
    ids: dict[str, list[Any]] = {}
    async with engine.begin() as connection:
        for table in TABLES:
            made = []
            for n in range(rows):
                row: dict[str, Any] = {}
                for column in table.c:
                    if n == 0 and column.nullable:
                        row[column.name] = None
                    elif column.foreign_keys:
                        (key,) = column.foreign_keys
                        row[column.name] = ids[key.column.table.name][n]
                    else:
                        row[column.name] = _value(table.name, column.name, column.type, n)
                made.append(row)
            ids[table.name] = [row.get("id") for row in made]
            await connection.execute(insert(table), made)


async def _all(url: str) -> dict[str, list[Any]]:
    store = await open_conversations(url)
    async with store.engine.connect() as connection:
        found = {}
        for table in TABLES:
            rows = [list(row) for row in await connection.execute(select(table))]
            for row in rows:
                row[:] = [value.tolist() if isinstance(value, np.ndarray) else value for value in row]
            found[table.name] = sorted(rows, key=repr)
    await store.close()
    return found


async def _filled(url: str, rows: int = ROWS) -> None:
    store = await open_conversations(url)
    await _fill(store.engine, rows)
    await store.close()


async def test_there_and_back(tmp_path: Path, postgres_url: str) -> None:
    first, last = sqlite_url(tmp_path / "a.db"), sqlite_url(tmp_path / "new" / "b.db")
    await _filled(first)
    told: list[tuple[int, int]] = []
    counts = await transfer(first, postgres_url, lambda done, of: told.append((done, of)))
    assert counts == {table.name: ROWS for table in TABLES}
    assert told[-1] == (ROWS * len(TABLES),) * 2 and len(told) == len(TABLES)
    assert await _all(postgres_url) == await _all(first)
    assert await transfer(postgres_url, last) == counts
    assert await _all(last) == await _all(first)


async def test_batches(tmp_path: Path, postgres_url: str) -> None:
    source = sqlite_url(tmp_path / "a.db")
    await _filled(source, 1203)
    counts = await transfer(source, postgres_url)
    assert set(counts.values()) == {1203}


async def test_a_target_with_something_in_it_is_left_as_it_is(tmp_path: Path, database: str) -> None:
    source = sqlite_url(tmp_path / "source.db")
    await _filled(source)
    await _filled(database, 1)
    before = await _all(database)
    with pytest.raises(Misconfigured, match="not empty"):
        await transfer(source, database)
    assert await _all(database) == before


async def test_what_the_target_does_not_take_leaves_it_empty(tmp_path: Path, postgres_url: str) -> None:
    """SQLite holds longer owners than PostgreSQL."""
    source = sqlite_url(tmp_path / "a.db")
    await _filled(source)
    store = await open_conversations(source)
    async with store.engine.begin() as connection:
        await connection.execute(sessions.update().values(owner="o" * 300))
    await store.close()
    with pytest.raises(StoreFailed, match="sessions"):
        await transfer(source, postgres_url)
    assert not any((await _all(postgres_url)).values())


async def test_what_arrives_otherwise_leaves_it_empty(
    tmp_path: Path, postgres_url: str, postgres: Any
) -> None:
    """As a trigger of somebody's may do."""
    source = sqlite_url(tmp_path / "a.db")
    await _filled(source)
    name = postgres_url.rpartition("/")[2]
    postgres.sql(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.content := NEW.content || '!'; RETURN NEW; END $$;"
        "CREATE TRIGGER spoil BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION spoil()",
        name,
    )
    with pytest.raises(StoreFailed, match="memories is not there as it was sent"):
        await transfer(source, postgres_url)
    assert not any((await _all(postgres_url)).values())


async def test_the_command(tmp_path: Path, postgres_url: str) -> None:
    source = sqlite_url(tmp_path / "data" / "colloquy.db")
    await _filled(source)

    def colloquy(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from app.cli import main; main()", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DATA_DIR": str(tmp_path / "data"), **more},
            capture_output=True,
            text=True,
            check=False,
        )

    done = colloquy("db", "move", "--to", postgres_url)
    assert done.returncode == 0, done.stderr
    assert f"{ROWS * len(TABLES)} rows copied and verified" in done.stdout and "DATABASE_URL" in done.stdout
    assert f"{ROWS * len(TABLES)} of {ROWS * len(TABLES)}" in done.stderr
    assert await _all(postgres_url) == await _all(source)
    again = colloquy("db", "move", "--to", postgres_url)
    assert again.returncode == 2 and "not empty" in again.stderr
    back = colloquy("db", "move", DATABASE_URL=postgres_url, DATA_DIR=str(tmp_path / "other"))
    assert back.returncode == 0, back.stderr
    assert await _all(sqlite_url(tmp_path / "other" / "colloquy.db")) == await _all(source)
    nowhere = colloquy("db", "move")
    assert nowhere.returncode == 2 and "--to" in nowhere.stderr
