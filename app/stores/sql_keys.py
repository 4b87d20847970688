"""Users' sealed keys in a relational database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.stores.crypt import SealedKey
from app.stores.sql import failures
from app.stores.tables import user_keys


class SqlKeys:
    """A `KeyStore`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def key(self, owner: str) -> SealedKey | None:
        """See `KeyStore`."""
        with failures():
            async with self._engine.connect() as connection:
                query = select(user_keys.c.master, user_keys.c.sealed).where(user_keys.c.owner == owner)
                row = (await connection.execute(query)).first()
        return None if row is None else SealedKey(row.master, row.sealed)

    async def add_key(self, owner: str, key: SealedKey) -> SealedKey:
        """See `KeyStore`."""
        row = {"owner": owner, "master": key.master, "sealed": key.sealed, "created_at": datetime.now(UTC)}
        try:
            with failures():
                async with self._engine.begin() as connection:
                    await connection.execute(insert(user_keys).values(row))
        except IntegrityError:
            # Another process was first.
            return await self.key(owner) or key
        return key

    async def replace_key(self, owner: str, key: SealedKey) -> None:
        """See `KeyStore`."""
        with failures():
            async with self._engine.begin() as connection:
                change = update(user_keys).where(user_keys.c.owner == owner)
                await connection.execute(change.values(master=key.master, sealed=key.sealed))

    async def destroy_key(self, owner: str) -> bool:
        """See `KeyStore`."""
        with failures():
            async with self._engine.begin() as connection:
                gone = await connection.execute(delete(user_keys).where(user_keys.c.owner == owner))
                return bool(gone.rowcount)

    async def keys(self) -> list[tuple[str, SealedKey]]:
        """See `KeyStore`."""
        with failures():
            async with self._engine.connect() as connection:
                query = select(user_keys.c.owner, user_keys.c.master, user_keys.c.sealed)
                rows = await connection.execute(query.order_by(user_keys.c.owner))
                return [(row.owner, SealedKey(row.master, row.sealed)) for row in rows]
