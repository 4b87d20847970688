"""The schema, forward and back, with data in it, and opening a database in whatever state."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from store_records import a_session, spoken, typed

from app.roles import Misconfigured
from app.stores.interfaces import StoreFailed
from app.stores.migrate import migrate
from app.stores.sql import open_conversations, sqlite_url
from app.stores.tables import SCHEMA, metadata


def _tables(path: Path) -> set[str]:
    return {name for (name,) in _ask(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def _ask(path: Path, question: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


async def _fill(url: str) -> str:
    store = await open_conversations(url)
    session = a_session()
    await store.add_session(session)
    await store.add_turn(spoken(session.id, 1))
    await store.add_turn(typed(session.id, 2))
    await store.close()
    return session.id


async def test_back_and_forth_with_data(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    url = sqlite_url(path)
    await _fill(url)
    assert _tables(path) == {*metadata.tables, "alembic_version"}
    await asyncio.to_thread(migrate, url, "base", "downgrade")
    assert _tables(path) == {"alembic_version"}
    assert _ask(path, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL") == []
    session_id = await _fill(url)
    store = await open_conversations(url)
    assert [turn.number for turn in await store.turns(session_id)] == [1, 2]
    await store.close()


async def test_every_revision_goes_forward_and_back(tmp_path: Path) -> None:
    from alembic.script import ScriptDirectory

    import app.stores.migrate

    scripts = ScriptDirectory(str(Path(app.stores.migrate.__file__).parent / "migrations"))
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    assert scripts.get_heads() == [SCHEMA], "tables.SCHEMA must name the newest migration"
    path = tmp_path / "a.db"
    for revision in revisions:
        before = _ask(path, "SELECT sql FROM sqlite_master ORDER BY name") if path.exists() else []
        await asyncio.to_thread(migrate, sqlite_url(path), revision)
        after = _ask(path, "SELECT sql FROM sqlite_master ORDER BY name")
        assert before != after
        await asyncio.to_thread(migrate, sqlite_url(path), "-1", "downgrade")
        left = _ask(path, "SELECT sql FROM sqlite_master WHERE name NOT LIKE '%alembic%' AND sql IS NOT NULL")
        # A table that is made anew has its name in quotes.
        assert {sql.replace('"', "") for (sql,) in left} == {
            sql.replace('"', "") for (sql,) in before if sql and "alembic" not in sql
        }
        await asyncio.to_thread(migrate, sqlite_url(path), revision)
        assert _ask(path, "SELECT sql FROM sqlite_master ORDER BY name") == after


async def test_the_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine

    path = tmp_path / "a.db"
    await asyncio.to_thread(migrate, sqlite_url(path), "head")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_turns_go_with_their_session(tmp_path: Path) -> None:
    """The foreign keys cascade, and are enforced on the store's own connections."""
    path = tmp_path / "a.db"
    session_id = await _fill(sqlite_url(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("DELETE FROM sessions WHERE id = ?", (session_id.replace("-", ""),))
    connection.commit()
    counts = [
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("sessions", "conversation_turns", "transcriptions")
    ]
    connection.close()
    assert counts == [0, 0, 0]


async def test_a_database_that_is_up_to_date_opens_without_alembic(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    await _fill(url)
    script = (
        "import asyncio, sys\n"
        "from app.stores.sql import open_conversations\n"
        "async def main():\n"
        f"    await (await open_conversations({url!r})).close()\n"
        "asyncio.run(main())\n"
        "assert not [name for name in sys.modules if name.startswith('alembic')]\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)  # noqa: ASYNC221
    assert ran.returncode == 0, ran.stderr


async def test_several_processes_open_a_new_database_at_once(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    script = (
        "import asyncio, sys\n"
        "from app.stores.sql import open_conversations\n"
        "import alembic.command, alembic.config\n"  # so that they are all at the same point
        "async def main():\n"
        "    sys.stdin.readline()\n"
        f"    await (await open_conversations({url!r})).close()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    results = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0], results
    await _fill(url)


async def test_several_openings_in_one_process(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "a.db")
    stores = await asyncio.gather(*(open_conversations(url) for _ in range(4)))
    session = a_session()
    await stores[0].add_session(session)
    assert await stores[3].get_session(session.id) == session
    for store in stores:
        await store.close()


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A table in the way of the third step: the first two must not stay."""
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE transcriptions (mine)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreFailed, match="transcriptions"):
        await open_conversations(sqlite_url(path))
    assert _tables(path) == {"transcriptions"}


async def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await _fill(sqlite_url(path))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(Misconfigured, match="newer"):
        await open_conversations(sqlite_url(path))
    assert _ask(path, "SELECT count(*) FROM conversation_turns") == [(2,)]


async def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"RIFF" + bytes(5000))
    with pytest.raises(StoreFailed, match="not a database"):
        await open_conversations(sqlite_url(path))
    (tmp_path / "in_the_way").write_text("")
    with pytest.raises(StoreFailed):
        await open_conversations(sqlite_url(tmp_path / "in_the_way" / "a.db"))


async def test_no_transcript_is_in_an_error(tmp_path: Path) -> None:
    """Errors are logged; SQLAlchemy would print the parameters of the statement."""
    path = tmp_path / "a.db"
    store = await open_conversations(sqlite_url(path))
    session = a_session()
    await store.add_session(session)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE transcriptions")
    connection.commit()
    connection.close()
    with pytest.raises(Exception, match="no such table") as failed:
        await store.add_turn(spoken(session.id, transcript="a secret", words=(), partials=("a secr",)))
    await store.close()
    error: BaseException | None = failed.value
    while error is not None:
        assert "secr" not in str(error)
        error = error.__cause__ or error.__context__
