"""Which database a URL names, and how it is opened."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.roles import Misconfigured
from app.stores.vectors import distance_of_bytes

_TRIES, _TRY_S = 500, 0.02
_CONNECT_S, _ANSWER_S, _PLACE_S = 5.0, 30.0, 5.0
_POOL, _MORE = 5, 10
"""Connections that are kept, and more that are opened when all are busy."""
_POSTGRES = ("postgresql", "postgres", "postgresql+asyncpg")


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite database in a file."""
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string(hide_password=False)


def new_engine(url: str) -> AsyncEngine:
    """The database at `url`, `postgresql://USER:PASSWORD@HOST/NAME` (as libpq has it, with `sslmode` and the
    like) or SQLite's; nothing is connected to yet. Raises `Misconfigured`."""
    if _is_postgres(url):
        return _postgres(
            url,
            _ANSWER_S,
            pool_size=_POOL,
            max_overflow=_MORE,
            pool_timeout=_PLACE_S,
            pool_pre_ping=True,
            pool_recycle=1800,
        )
    engine = _sqlite(url)
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    return engine


def engine_to_migrate(url: str) -> AsyncEngine:
    """The same for changes of the schema: no connection is kept, and a statement may take long."""
    if _is_postgres(url):
        return _postgres(url, None, poolclass=NullPool)
    return _sqlite(url, poolclass=NullPool)


def _is_postgres(url: str) -> bool:
    return url.partition("://")[0] in _POSTGRES


def _sqlite(url: str, **given: Any) -> AsyncEngine:
    try:
        where = make_url(url)
    except ArgumentError:
        where = None
    if where is None or where.get_backend_name() != "sqlite":
        raise Misconfigured("DATABASE_URL is postgresql://USER:PASSWORD@HOST:PORT/NAME, or not set")
    # Statements are shown in errors, and so in logs; what people said must not be.
    return create_async_engine(where, hide_parameters=True, **given)


def _postgres(url: str, answer_s: float | None, **given: Any) -> AsyncEngine:
    try:
        import asyncpg  # type: ignore[import-untyped] # noqa: F401
    except ImportError:
        raise Misconfigured("DATABASE_URL is PostgreSQL's: pip install colloquy[postgres]") from None
    creator = _connecting(f"postgresql://{url.partition('://')[2]}", answer_s)
    # The driver reads the URL: it knows what libpq knows.
    return create_async_engine("postgresql+asyncpg://", async_creator=creator, hide_parameters=True, **given)


def _connecting(url: str, answer_s: float | None) -> Callable[[], Awaitable[Any]]:
    async def connect() -> Any:
        from asyncpg import InterfaceError, PostgresError
        from asyncpg import connect as open_connection

        try:
            return await open_connection(
                url,
                timeout=_CONNECT_S,
                command_timeout=answer_s,
                server_settings={"application_name": "colloquy", "timezone": "UTC"},
            )
        except (PostgresError, InterfaceError) as error:
            raise ConnectionError(str(error)) from error
        except TimeoutError:
            raise ConnectionError(f"no connection within {_CONNECT_S:.0f} s") from None

    return connect


def _set_up_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    wanted = (
        "busy_timeout=10000",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
    )
    for pragma in wanted:
        _set(cursor, pragma)
    cursor.close()
    connection.create_function("cosine_distance", 2, distance_of_bytes, deterministic=True)


def _set(cursor: Any, pragma: str) -> None:
    # Changing the journal is refused at once, whatever the timeout, while another process that opens the
    # new database does it too, or makes its tables.
    for _ in range(_TRIES):
        try:
            cursor.execute(f"PRAGMA {pragma}")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(_TRY_S)
    cursor.execute(f"PRAGMA {pragma}")


async def make_place(engine: AsyncEngine) -> None:
    """Make the folder of an SQLite file if it is missing."""
    if engine.dialect.name == "sqlite" and engine.url.database:
        folder = Path(engine.url.database).parent
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
