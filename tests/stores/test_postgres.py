"""PostgreSQL: its schema, and what becomes of it when the server is away, slow or not ours."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from postgres_server import PostgresServer, postgres_server
from sqlalchemy import text
from store_records import a_session, spoken, typed

from app.roles import BadInput, Misconfigured
from app.stores.database import engine_to_migrate, new_engine
from app.stores.interfaces import StoreFailed
from app.stores.lock import alone
from app.stores.migrate import migrate
from app.stores.sql import open_conversations
from app.stores.tables import SCHEMA, metadata
from app.stores.vectors import PgVector

_SCHEMA = """
SELECT 'column', table_name, column_name, udt_name, is_nullable, character_maximum_length::text
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
ORDER BY 1, 2, 3
"""


@pytest.fixture
def empty(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database in which nothing is."""
    name = postgres.database()
    yield name
    postgres.drop(name)


@pytest.fixture(scope="module")
def frail() -> Iterator[PostgresServer]:
    """A server to be stopped."""
    with postgres_server() as server:
        yield server


async def _fill(url: str) -> str:
    store = await open_conversations(url)
    session = a_session()
    await store.add_session(session)
    await store.add_turn(spoken(session.id, 1))
    await store.add_turn(typed(session.id, 2))
    await store.close()
    return session.id


async def test_every_revision_goes_forward_and_back(postgres: PostgresServer, empty: str) -> None:
    url = postgres.url(empty)

    def schema() -> list[list[str]]:
        return [row for row in postgres.sql(_SCHEMA, empty) if row[1] != "alembic_version"]

    for number in range(1, int(SCHEMA) + 1):
        before = schema()
        await asyncio.to_thread(migrate, url, f"{number:04}")
        after = schema()
        assert before != after
        await asyncio.to_thread(migrate, url, "-1", "downgrade")
        assert schema() == before
        await asyncio.to_thread(migrate, url, f"{number:04}")
        assert schema() == after
    await _fill(url)
    await asyncio.to_thread(migrate, url, "base", "downgrade")
    assert schema() == []


async def test_memories_lose_their_places_not_their_words(postgres: PostgresServer, empty: str) -> None:
    """Vectors from before pgvector are made anew."""
    await asyncio.to_thread(migrate, postgres.url(empty), "0005")
    id_ = "00000000-0000-0000-0000-00000000000a"
    postgres.sql(
        f"INSERT INTO conversations VALUES ('{id_}', 'ann', now(), now(), now(), 'completed', now());"
        f"INSERT INTO memories VALUES ('{id_}', 'ann', '{id_}', 'a fact', now(), 'e', '\\x00')",
        empty,
    )
    for revision, direction in (("0006", "upgrade"), ("0005", "downgrade"), ("0006", "upgrade")):
        await asyncio.to_thread(migrate, postgres.url(empty), revision, direction)
        told = postgres.sql("SELECT content, encoder IS NULL, vector IS NULL FROM memories", empty)
        assert told == [["a fact", "t", "t"]]


async def test_the_migrations_make_the_tables_of_the_code(postgres_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differences(connection: Any) -> Any:
        connection.dialect.ischema_names = {**connection.dialect.ischema_names, "vector": PgVector}
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    engine = engine_to_migrate(postgres_url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_several_processes_open_a_new_database_at_once(postgres: PostgresServer, empty: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from app.stores.sql import open_conversations\n"
        "import alembic.command, alembic.config, asyncpg\n"  # so that they are all at the same point
        "async def main():\n"
        "    sys.stdin.readline()\n"
        f"    await (await open_conversations({postgres.url(empty)!r})).close()\n"
        "asyncio.run(main())\n"
    )
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=pipe, stderr=pipe)
        for _ in range(3)
    ]
    results = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0], results
    await _fill(postgres.url(empty))


async def test_a_migration_that_fails_changes_nothing(postgres: PostgresServer, empty: str) -> None:
    postgres.sql("CREATE TABLE transcriptions (mine integer)", empty)
    with pytest.raises(StoreFailed, match="transcriptions"):
        await open_conversations(postgres.url(empty))
    assert postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", empty) == [
        ["transcriptions"]
    ]


async def test_a_newer_database_is_left_alone(postgres: PostgresServer, postgres_url: str) -> None:
    await _fill(postgres_url)
    name = postgres_url.rpartition("/")[2]
    postgres.sql("UPDATE alembic_version SET version_num = '9999'", name)
    with pytest.raises(Misconfigured, match="newer"):
        await open_conversations(postgres_url)
    assert postgres.sql("SELECT count(*) FROM conversation_turns", name) == [["2"]]


async def test_turns_go_with_their_session(postgres: PostgresServer, postgres_url: str) -> None:
    await _fill(postgres_url)
    name = postgres_url.rpartition("/")[2]
    postgres.sql("DELETE FROM sessions", name)
    for table in ("conversation_turns", "transcriptions"):
        assert postgres.sql(f"SELECT count(*) FROM {table}", name) == [["0"]]


async def test_who_may_not_add_pgvector_is_told_what_to_do(postgres: PostgresServer, empty: str) -> None:
    postgres.sql(f"CREATE ROLE r{empty} LOGIN; GRANT CREATE ON SCHEMA public TO r{empty}", empty)
    url = postgres.url(empty).replace("tests@", f"r{empty}@")
    with pytest.raises(Misconfigured, match="CREATE EXTENSION vector"):
        await open_conversations(url)
    assert postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", empty) == []
    postgres.sql("CREATE EXTENSION vector", empty)
    await _fill(url)
    postgres.sql(f"REASSIGN OWNED BY r{empty} TO tests; DROP OWNED BY r{empty}; DROP ROLE r{empty}", empty)


async def test_no_transcript_is_in_an_error(postgres: PostgresServer, postgres_url: str) -> None:
    store = await open_conversations(postgres_url)
    session = a_session()
    await store.add_session(session)
    name = postgres_url.rpartition("/")[2]
    postgres.sql("ALTER TABLE transcriptions RENAME TO away", name)
    turn = spoken(session.id, transcript="a secret", words=(), partials=("a secr",))
    with pytest.raises(StoreFailed, match="transcriptions") as failed:
        await store.add_turn(turn)
    assert "secr" not in _told(failed.value)
    # What can never be stored is no trouble of the database, and is not tried for ever.
    with pytest.raises(BadInput) as refused:
        await store.add_session(a_session(owner="secret" * 100))
    assert "secr" not in _told(refused.value)
    with pytest.raises(BadInput) as refused:
        await store.sessions("\ud800 secret")
    assert "secr" not in _told(refused.value)
    postgres.sql("ALTER TABLE away RENAME TO transcriptions", name)
    await store.add_turn(turn)
    await store.close()


def _told(error: BaseException | None) -> str:
    """What a log would show of it."""
    told = ""
    while error is not None:
        told += f"{error}\n"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told


@pytest.mark.parametrize(
    "url", ["mysql://a/b", "postgresql+psycopg://a/b", "nonsense", "postgresql:/a", "sqlite3://x"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="DATABASE_URL"):
        new_engine(url)


async def test_a_url_may_say_what_libpqs_says(postgres_url: str) -> None:
    for url in (f"{postgres_url}?sslmode=prefer", postgres_url.replace("sql:", "s:")):
        store = await open_conversations(url)
        assert await store.sessions("ann") == []
        await store.close()
    with pytest.raises(StoreFailed, match="does not exist"):
        await open_conversations(f"{postgres_url}x")
    with pytest.raises(StoreFailed, match="SSL"):
        await open_conversations(f"{postgres_url}?sslmode=require")


async def test_a_server_that_is_stopped_and_comes_back(frail: PostgresServer) -> None:
    url = frail.url(frail.database())
    store = await open_conversations(url)
    session = a_session()
    await store.add_session(session)
    await store.add_turn(spoken(session.id, 1))
    waiting = await _in_a_transaction(store.engine)
    await asyncio.to_thread(frail.stop)
    with pytest.raises(StoreFailed):
        await waiting
    for attempt in (store.add_turn(spoken(session.id, 2)), store.turns(session.id), open_conversations(url)):
        with pytest.raises(StoreFailed) as failed:
            await attempt
        assert failed.value.retryable
    await asyncio.to_thread(frail.start)
    await store.add_turn(spoken(session.id, 2))
    assert [turn.number for turn in await store.turns(session.id)] == [1, 2]
    await store.close()


async def _in_a_transaction(engine: Any) -> asyncio.Task[None]:
    """A task that has written and not committed, and waits for an answer."""
    from app.stores.sql import failures

    written = asyncio.Event()

    async def write() -> None:
        with failures():
            async with engine.begin() as connection:
                await connection.execute(text("UPDATE sessions SET owner = 'somebody else'"))
                written.set()
                await connection.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(write())
    await written.wait()
    return task


async def test_a_server_that_does_not_answer_is_waited_for_5_s(monkeypatch: pytest.MonkeyPatch) -> None:
    import app.stores.database as database

    monkeypatch.setattr(database, "_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(StoreFailed, match="no connection within"):
            await open_conversations(f"postgresql://a@127.0.0.1:{port}/b")


async def test_more_work_than_connections_waits_its_turn(postgres: PostgresServer, postgres_url: str) -> None:
    store = await open_conversations(postgres_url)
    session = a_session()
    await store.add_session(session)
    await asyncio.gather(*(store.add_turn(spoken(session.id, n)) for n in range(1, 101)))
    name = postgres_url.rpartition("/")[2]
    ((count,),) = postgres.sql(
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'colloquy'"
    )
    assert 1 <= int(count) <= 15
    assert len(await store.turns(session.id)) == 100
    await store.close()


async def test_work_that_one_process_may_do(postgres_url: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from app.stores.database import new_engine\n"
        "from app.stores.lock import alone\n"
        "async def main():\n"
        f"    async with alone(new_engine({postgres_url!r}), 'sweep') as mine:\n"
        "        print(mine, flush=True)\n"
        "        sys.stdin.readline()\n"
        "asyncio.run(main())\n"
    )
    engine = new_engine(postgres_url)
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=pipe, stdout=pipe)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"True\n"
    async with alone(engine, "sweep") as mine, alone(engine, "something else") as free:
        assert (mine, free) == (False, True)
    other.kill()  # a process that dies holds nothing up
    await other.communicate()
    async with asyncio.timeout(20):
        while True:
            async with alone(engine, "sweep") as mine:
                if mine:
                    async with alone(engine, "sweep") as again:
                        assert not again
                    break
            await asyncio.sleep(0.05)
    async with alone(engine, "sweep") as mine:
        assert mine, "it was let go of"
    await engine.dispose()


async def test_the_lock_needs_the_database(frail: PostgresServer) -> None:
    engine = new_engine(frail.url())
    async with alone(engine, "sweep") as mine:
        assert mine
        await asyncio.to_thread(frail.stop)
    with pytest.raises(StoreFailed):
        async with alone(engine, "sweep"):
            pass
    await asyncio.to_thread(frail.start)
    await engine.dispose()
