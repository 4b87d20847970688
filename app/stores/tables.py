"""The relational schema, the same on every database. `migrations/versions` makes it; a test
holds the two together."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
)

SCHEMA = "0001"
"""Revision of the newest migration: a database that is there already needs no alembic."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware in, UTC out. SQLite has no time zones and is given UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; a time without zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time to be stored needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("language", String(16)),
    Column("settings", JSON, nullable=False),
    Index(None, "owner", "created_at"),
)

conversation_turns = Table(
    "conversation_turns",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("session_id", Uuid(as_uuid=False), ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("source", String(16), nullable=False),
    Column("transcript", Text, nullable=False),
    Column("language", String(16)),
    Column("reply", Text, nullable=False),
    Column("reply_full", Text, nullable=False),
    Column("interrupted", Boolean, nullable=False),
    Column("latency", JSON, nullable=False),
    UniqueConstraint("session_id", "number"),
)

transcriptions = Table(
    "transcriptions",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column(
        "turn_id",
        Uuid(as_uuid=False),
        ForeignKey("conversation_turns.id", ondelete="CASCADE"),
        nullable=False,
        unique=True,
    ),
    Column("text", Text, nullable=False),
    Column("words", JSON, nullable=False),
    Column("partials", JSON, nullable=False),
    Column("confidence", Float),
    Column("language", String(16)),
    Column("audio_key", String(500)),
    Column("audio_seconds", Float),
    Column("latency_ms", Float),
)
