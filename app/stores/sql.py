"""Conversations in a relational database, SQLite or PostgreSQL, by SQL that both take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Table, func, insert, inspect, literal, select, text, update
from sqlalchemy import delete as delete_from
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects.postgresql import insert as insert_into_postgres
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from app.observability.clock import Stage
from app.roles import BadInput, NotFound, Word
from app.stores.database import make_place, new_engine
from app.stores.database import sqlite_url as sqlite_url
from app.stores.interfaces import SessionRecord, StoreFailed, TurnRecord, check_page
from app.stores.migrate import migrate
from app.stores.tables import SCHEMA, conversation_turns, sessions, transcriptions

logger = logging.getLogger(__name__)


async def open_conversations(url: str) -> SqlConversations:
    """Open the database at `url` (see `database.new_engine`; an SQLite file is made with its folder if
    missing) and bring its schema up to date."""
    engine = new_engine(url)
    try:
        with failures():
            await make_place(engine)
            if await _revision(engine) != SCHEMA:
                logger.info("bringing the database's schema to revision %s", SCHEMA)
                await asyncio.to_thread(migrate, url, "head")
    except BaseException:
        await engine.dispose()
        raise
    return SqlConversations(engine)


async def _revision(engine: AsyncEngine) -> str | None:
    """What alembic noted in the database, asked without alembic, whose import is slow."""
    async with engine.connect() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
            return None
        revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if revision is None else str(revision)


@contextmanager
def failures() -> Iterator[None]:
    """Trouble with the database itself, as opposed to what was asked of it, is `StoreFailed`; a value that it
    does not take `BadInput`."""
    try:
        yield
    except (sa_exc.DBAPIError, sa_exc.TimeoutError, OSError) as error:
        if _is_of_values(error):
            # Without the driver's words: they hold the value.
            raise BadInput("The database does not take a value that it was given.") from None
        if _is_ours(error):
            raise
        reason = getattr(error, "orig", None) or error
        raise StoreFailed(
            f"The database cannot be used ({reason}): "
            "check that it is ours, is there, may be written, and that its disk is not full."
        ) from error


def _state(error: BaseException) -> str:
    """PostgreSQL's SQLSTATE; empty for SQLite."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _is_of_values(error: BaseException) -> bool:
    refused_by_driver = isinstance(getattr(error, "orig", None), BaseException) and isinstance(
        error.orig.__cause__,  # type: ignore[attr-defined]
        ValueError,
    )
    return refused_by_driver or _state(error).startswith("22")


def _is_ours(error: BaseException) -> bool:
    """A rule of the schema that was broken, or a statement that is none. On PostgreSQL also a table that is
    not there or may not be used is a `ProgrammingError`, and that is trouble with the database."""
    if isinstance(error, sa_exc.ProgrammingError):
        return _state(error) in ("", "42601")
    return isinstance(error, sa_exc.IntegrityError | sa_exc.DataError)


def is_id(given: str) -> bool:
    """Whether `given` is a UUID as we write them."""
    try:
        return str(UUID(given)) == given
    except ValueError:
        return False


def _known(session_id: str) -> str:
    """`session_id`, unless it can be nobody's."""
    if not is_id(session_id):
        raise _no_session(session_id)
    return session_id


def _no_session(session_id: str) -> NotFound:
    return NotFound(f"There is no session {session_id[:64]!r}.", field="session_id")


def _check_ids(**ids: str | None) -> None:
    for name, value in ids.items():
        if value is not None and not is_id(value):
            raise BadInput(f"{name} must be a UUID in lower case with hyphens.", field=name)


_TURNS = (
    select(
        conversation_turns,
        transcriptions.c.id.label("transcription_id"),
        *(
            transcriptions.c[name]
            for name in ("words", "partials", "confidence", "audio_key", "audio_seconds")
        ),
    )
    .outerjoin_from(conversation_turns, transcriptions)
    .order_by(conversation_turns.c.number)
)


def _turn(row: Row[Any]) -> TurnRecord:
    values = dict(row._mapping)
    values["words"] = tuple(Word(**word) for word in values["words"] or ())
    values["partials"] = tuple(values["partials"] or ())
    return TurnRecord(**values)


def _turn_values(turn: TurnRecord) -> dict[str, Any]:
    return {column.name: getattr(turn, column.name) for column in conversation_turns.c}


def _transcription_values(turn: TurnRecord) -> dict[str, Any]:
    return {
        "id": turn.transcription_id,
        "turn_id": turn.id,
        "text": turn.transcript,
        "words": [asdict(word) for word in turn.words],
        "partials": list(turn.partials),
        "confidence": turn.confidence,
        "language": turn.language,
        "audio_key": turn.audio_key,
        "audio_seconds": turn.audio_seconds,
        "latency_ms": turn.latency.get(Stage.STT_FINAL),
    }


class SqlConversations:
    """A `ConversationStore`; made by `open_conversations`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @property
    def engine(self) -> AsyncEngine:
        """The database, for stores beside this one."""
        return self._engine

    async def add_session(self, session: SessionRecord) -> None:
        """See `ConversationStore`."""
        _check_ids(id=session.id)
        values = asdict(session)
        if session.ended_at is None:
            del values["ended_at"]  # to add it again, late, must not undo its end
        try:
            with failures():
                async with self._engine.begin() as connection:
                    same = (sessions.c.id == session.id) & (sessions.c.owner == session.owner)
                    await write_row(connection, sessions, same, values)
        except sa_exc.IntegrityError as error:
            raise BadInput("This session id belongs to somebody else.", field="id") from error

    async def end_session(self, session_id: str, at: datetime | None = None) -> None:
        """See `ConversationStore`."""
        ended = func.coalesce(sessions.c.ended_at, literal(at or datetime.now(UTC), sessions.c.ended_at.type))
        with failures():
            async with self._engine.begin() as connection:
                which = update(sessions).where(sessions.c.id == _known(session_id))
                if (await connection.execute(which.values(ended_at=ended))).rowcount == 0:
                    raise _no_session(session_id)

    async def get_session(self, session_id: str) -> SessionRecord:
        """See `ConversationStore`."""
        with failures():
            async with self._engine.connect() as connection:
                found = await connection.execute(select(sessions).where(sessions.c.id == _known(session_id)))
                row = found.one_or_none()
        if row is None:
            raise _no_session(session_id)
        return SessionRecord(**row._mapping)

    async def sessions(self, owner: str, limit: int = 100, offset: int = 0) -> list[SessionRecord]:
        """See `ConversationStore`."""
        check_page(limit, offset)
        query = select(sessions).where(sessions.c.owner == owner)
        query = query.order_by(sessions.c.created_at.desc(), sessions.c.id).limit(limit).offset(offset)
        with failures():
            async with self._engine.connect() as connection:
                return [SessionRecord(**row._mapping) for row in await connection.execute(query)]

    async def add_turn(self, turn: TurnRecord) -> None:
        """See `ConversationStore`."""
        _check_ids(id=turn.id, session_id=turn.session_id, transcription_id=turn.transcription_id)
        try:
            with failures():
                async with self._engine.begin() as connection:
                    same = (conversation_turns.c.id == turn.id) & (
                        conversation_turns.c.session_id == turn.session_id
                    )
                    await write_row(connection, conversation_turns, same, _turn_values(turn))
                    its = transcriptions.c.turn_id == turn.id
                    if turn.transcription_id is None:
                        await connection.execute(delete_from(transcriptions).where(its))
                    else:
                        await write_row(connection, transcriptions, its, _transcription_values(turn))
        except sa_exc.IntegrityError as error:
            await self.get_session(turn.session_id)
            raise BadInput(
                f"Another turn of this session has the number {turn.number}, or another turn has the id of "
                "this one or of its transcription.",
                field="number",
            ) from error

    async def get_turn(self, session_id: str, turn_id: str) -> TurnRecord:
        """See `ConversationStore`."""
        if is_id(session_id) and is_id(turn_id):
            turns = conversation_turns.c
            query = _TURNS.where(turns.session_id == session_id, turns.id == turn_id)
            with failures():
                async with self._engine.connect() as connection:
                    if (row := (await connection.execute(query)).first()) is not None:
                        return _turn(row)
        raise NotFound("There is no such turn in this session.", field="turn_id")

    async def turns(self, session_id: str, limit: int = 100, offset: int = 0) -> list[TurnRecord]:
        """See `ConversationStore`."""
        check_page(limit, offset)
        if not is_id(session_id):
            return []
        query = _TURNS.where(conversation_turns.c.session_id == session_id).limit(limit).offset(offset)
        with failures():
            async with self._engine.connect() as connection:
                return [_turn(row) for row in await connection.execute(query)]

    async def close(self) -> None:
        """See `ConversationStore`."""
        await self._engine.dispose()


async def write_row(
    connection: AsyncConnection, table: Table, same: ColumnElement[bool], values: dict[str, Any]
) -> None:
    """Update the row that is the `same`, else insert. The write comes first and takes SQLite's
    write lock at once; to read first and then write may fail without waiting for it."""
    its = update(table).where(same).values(values)
    if (await connection.execute(its)).rowcount or await add_row(connection, table, values):
        return
    if not (await connection.execute(its)).rowcount:
        await connection.execute(insert(table).values(values))  # says what it is that is taken


async def add_row(connection: AsyncConnection, table: Table, values: dict[str, Any]) -> bool:
    """Insert; on PostgreSQL, where others write at the same time, False if something of it is there
    meanwhile."""
    if connection.dialect.name == "postgresql":
        query = insert_into_postgres(table).values(values).on_conflict_do_nothing()
        return bool((await connection.execute(query)).rowcount)
    await connection.execute(insert(table).values(values))
    return True
