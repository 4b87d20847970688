"""Work that only one process at a time may do, of all that use one database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

from filelock import FileLock, Timeout
from sqlalchemy import BigInteger, bindparam, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.stores.interfaces import StoreFailed
from app.stores.sql import failures


@asynccontextmanager
async def alone(engine: AsyncEngine, work: str) -> AsyncIterator[bool]:
    """Whether nobody else does this `work` now; then nobody begins it while the block runs. A process that
    dies holds nothing up."""
    if engine.dialect.name == "sqlite":
        if not engine.url.database or engine.url.database == ":memory:":
            yield True  # nobody else can have it
            return
        lock = FileLock(f"{engine.url.database}.{work}.lock", mode=0o600)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()
        return
    number = int.from_bytes(sha256(f"colloquy {work}".encode()).digest()[:8], "big", signed=True)
    given = bindparam("number", number, BigInteger)
    with failures():
        connection = await engine.connect()
    # The lock belongs to the connection, and is gone with it.
    try:
        with failures():
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            lock_it = text("SELECT pg_try_advisory_lock(:number)").bindparams(given)
            mine = bool(await connection.scalar(lock_it))
        try:
            yield mine
        finally:
            if mine:
                with suppress(StoreFailed), failures():
                    await connection.execute(text("SELECT pg_advisory_unlock(:number)").bindparams(given))
    finally:
        with suppress(StoreFailed), failures():
            await connection.close()
