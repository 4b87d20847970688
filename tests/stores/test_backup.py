"""Backups are made and brought back by the commands that docs/operations.md gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from postgres_server import PostgresServer, binaries
from store_records import a_session, spoken, typed

from app.stores.database import sqlite_url
from app.stores.sql import open_conversations

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def run(word: str, folder: Path, **given: str) -> None:
    """Run the commands in the docs that hold `word`, in `folder`, which is also the home."""
    (block,) = [b for b in re.findall(r"^```\w*\n(.*?)^```", DOCS.read_text(), re.S | re.M) if word in b]
    path = f"{binaries()}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-e", "-c", block.replace(".venv/bin/python", sys.executable)],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PATH": path, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


async def test_sqlite_while_it_is_used(tmp_path: Path) -> None:
    data = tmp_path / ".local" / "share" / "colloquy"
    (data / "objects" / "raw_inputs").mkdir(parents=True)
    (data / "objects" / "raw_inputs" / "a.wav").write_bytes(b"RIFF")
    store = await open_conversations(sqlite_url(data / "colloquy.db"))
    session = a_session()
    await store.add_session(session)
    turns = [spoken(session.id, 1), typed(session.id, 2)]
    for turn in turns:
        await store.add_turn(turn)
    run("sqlite3", tmp_path)
    await store.add_turn(typed(session.id, 3))
    await store.close()
    assert (tmp_path / "backup-objects" / "raw_inputs" / "a.wav").read_bytes() == b"RIFF"
    for name in ("colloquy.db-wal", "colloquy.db-shm"):
        (data / name).unlink(missing_ok=True)
    (tmp_path / "backup.db").replace(data / "colloquy.db")
    store = await open_conversations(sqlite_url(data / "colloquy.db"))
    assert await store.turns(session.id) == turns
    await store.close()


async def test_postgresql_while_it_is_used(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    store = await open_conversations(postgres_url)
    session = a_session()
    await store.add_session(session)
    turns = [spoken(session.id, 1), typed(session.id, 2)]
    for turn in turns:
        await store.add_turn(turn)
    run("pg_dump", tmp_path, DATABASE_URL=postgres_url)
    await store.add_turn(typed(session.id, 3))
    await store.close()
    empty = postgres.database()
    run("pg_restore", tmp_path, DATABASE_URL=postgres.url(empty))
    store = await open_conversations(postgres.url(empty))
    assert await store.turns(session.id) == turns
    await store.close()
    postgres.drop(empty)
