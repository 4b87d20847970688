"""Brings a database's schema to a revision, forward or back, in one transaction.

Migrations are files in `migrations/versions`, numbered; `tables.SCHEMA` names the newest.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, event

from app.roles import Misconfigured
from app.stores.database import engine_to_migrate

_LOCK = 0x636F6C6C6F717579
"""Ours among PostgreSQL's advisory locks."""


def migrate(url: str, revision: str, direction: Literal["upgrade", "downgrade"] = "upgrade") -> None:
    """Move the schema of the database at `url` to `revision` ("head", "base" or a number).

    For a thread of its own: it blocks, and runs an event loop. Of several processes one does
    the work while the others wait. `Misconfigured` if the schema is newer than this program.
    """
    asyncio.run(_migrate(url, revision, direction))


async def _migrate(url: str, revision: str, direction: Literal["upgrade", "downgrade"]) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))

    def run(connection: Connection) -> None:
        config.attributes["connection"] = connection
        try:
            getattr(command, direction)(config, revision)
        except CommandError as error:
            raise Misconfigured(
                "The database was made by another, probably newer version of this program: "
                f"use that version, or another database. ({error})"
            ) from error

    engine = engine_to_migrate(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine.sync_engine, "connect")
        def patient(connection: Any, _record: object) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout=30000")
            # Rebuilding a table drops it, which must not cascade.
            cursor.execute("PRAGMA foreign_keys=OFF")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Connection) -> None:
            # The driver begins no transaction before DDL: a crash would leave half a migration,
            # and two processes would both make the tables.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            await connection.run_sync(run)
    finally:
        await engine.dispose()
