"""What the database says of recordings: whose they are, how old, where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.stores.sql import failures
from app.stores.tables import conversation_turns, sessions, transcriptions


@dataclass(frozen=True, slots=True)
class Recording:
    """What was heard in one turn of `owner`'s."""

    id: str
    """Of the transcription."""
    owner: str
    key: str
    created_at: datetime


class SqlRecordings:
    """Recordings of all owners, for the upkeep of the store; it asks nobody's leave."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @property
    def engine(self) -> AsyncEngine:
        """The database."""
        return self._engine

    async def older(
        self, than: datetime, *, ending: str = "", after: Recording | None = None, limit: int = 100
    ) -> list[Recording]:
        """Recordings of turns before `than` whose keys end so, the oldest first: those that come `after`
        one."""
        turns, its = conversation_turns.c, transcriptions.c
        query = (
            select(its.id, sessions.c.owner, its.audio_key, turns.created_at)
            .select_from(transcriptions)
            .join(conversation_turns)
            .join(sessions)
            .where(its.audio_key.endswith(ending, autoescape=True), turns.created_at < than)
            .order_by(turns.created_at, its.id)
            .limit(limit)
        )
        if after is not None:
            later = turns.created_at > after.created_at
            query = query.where(later | ((turns.created_at == after.created_at) & (its.id > after.id)))
        with failures():
            async with self._engine.connect() as connection:
                return [Recording(*row) for row in await connection.execute(query)]

    async def forget(self, recordings: Sequence[Recording]) -> None:
        """They are gone: their turns name none any more."""
        its = transcriptions.c
        gone = its.id.in_([r.id for r in recordings]) & its.audio_key.in_([r.key for r in recordings])
        with failures():
            async with self._engine.begin() as connection:
                await connection.execute(update(transcriptions).where(gone).values(audio_key=None))

    async def moved(self, recording: Recording, key: str) -> bool:
        """It lies under another `key` now. False if it was forgotten or moved meanwhile."""
        its = transcriptions.c
        this = (its.id == recording.id) & (its.audio_key == recording.key)
        with failures():
            async with self._engine.begin() as connection:
                changed = await connection.execute(update(transcriptions).where(this).values(audio_key=key))
                return changed.rowcount == 1

    async def named(self, key: str) -> bool:
        """Whether a turn's recording lies under `key`."""
        query = select(transcriptions.c.id).where(transcriptions.c.audio_key == key).limit(1)
        with failures():
            async with self._engine.connect() as connection:
                return (await connection.scalar(query)) is not None
