"""The relational schema, the same on every database. `migrations/versions` makes it; a test
holds the two together."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
)

from app.stores.vectors import Floats

SCHEMA = "0006"
"""Revision of the newest migration: a database that is there already needs no alembic."""

_NEVER = dict.fromkeys((0, *range(0xD800, 0xE000)), "\ufffd")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
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


class AnyText(TypeDecorator[str]):
    """Text without the characters that a database does not take: PostgreSQL no NUL, none of them half a pair
    of UTF-16. U+FFFD stands for them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """What can be stored."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.translate(_NEVER)


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
    Column("transcript", AnyText, nullable=False),
    Column("language", String(16)),
    Column("reply", AnyText, nullable=False),
    Column("reply_full", AnyText, nullable=False),
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
    Column("text", AnyText, nullable=False),
    Column("words", JSON, nullable=False),
    Column("partials", JSON, nullable=False),
    Column("confidence", Float),
    Column("language", String(16)),
    Column("audio_key", String(500)),
    Column("audio_seconds", Float),
    Column("latency_ms", Float),
)

users = Table(
    "users",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("language", String(16)),
    Column("profile_key", String(500)),
    Column("profile_seconds", Float),
)

user_keys = Table(
    "user_keys",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("master", String(16), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

people = Table(
    "people",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("owner", String(255), nullable=False, index=True),
    Column("name", AnyText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

voices = Table(
    "voices",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("owner", String(255), nullable=False, index=True),
    Column("person_id", Uuid(as_uuid=False), ForeignKey("people.id", ondelete="CASCADE")),
    Column("encoder", String(255), nullable=False),
    Column("vector", JSON, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("audio_key", String(500)),
    Column("updated_at", UtcDateTime, nullable=False),
)

listened = Table(
    "listened",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("seconds", Float, nullable=False),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("touched_at", UtcDateTime, nullable=False),
    Column("status", String(16), nullable=False),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("language", String(16)),
    Column("source", String(64)),
    Column("structured", JSON),
    Column("voices", JSON),
    Index(None, "owner", "started_at"),
    Index(None, "status", "ends_at"),
)

segments = Table(
    "segments",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column(
        "conversation_id",
        Uuid(as_uuid=False),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("text", AnyText, nullable=False),
    Column("speaker", Integer, nullable=False),
    Column("is_user", Boolean, nullable=False),
    Column("person_id", Uuid(as_uuid=False), ForeignKey("people.id", ondelete="SET NULL")),
    Column("start_s", Float, nullable=False),
    Column("end_s", Float, nullable=False),
    Column("provider", String(64), nullable=False),
    Index(None, "conversation_id", "start_s"),
)

memories = Table(
    "memories",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column(
        "conversation_id",
        Uuid(as_uuid=False),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("content", AnyText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("encoder", String(255)),
    Column("vector", Floats),
    Index(None, "owner", "created_at"),
)

action_items = Table(
    "action_items",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column(
        "conversation_id",
        Uuid(as_uuid=False),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("description", AnyText, nullable=False),
    Column("completed", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    Column("due_at", UtcDateTime),
    Index(None, "owner", "created_at"),
)

prosody_scores = Table(
    "prosody_scores",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column(
        "transcription_id",
        Uuid(as_uuid=False),
        ForeignKey("transcriptions.id", ondelete="CASCADE"),
        nullable=False,
        unique=True,
    ),
    Column("confidence", Float, nullable=False),
    Column("stability", Float, nullable=False),
    Column("affability", Float, nullable=False),
    Column("features", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("confidence BETWEEN 0 AND 100", name="confidence"),
    CheckConstraint("stability BETWEEN 0 AND 100", name="stability"),
    CheckConstraint("affability BETWEEN 0 AND 100", name="affability"),
)

voice_profiles = Table(
    "voice_profiles",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("owner", String(255), nullable=False, index=True),
    Column("name", AnyText, nullable=False),
    Column("audio_key", String(500), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("encoder", String(255)),
    Column("vector", Floats),
    Column("created_at", UtcDateTime, nullable=False),
)

synthesized_audios = Table(
    "synthesized_audios",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column(
        "turn_id",
        Uuid(as_uuid=False),
        ForeignKey("conversation_turns.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("mode", String(8), nullable=False),
    Column("voice_profile_id", Uuid(as_uuid=False), ForeignKey("voice_profiles.id", ondelete="SET NULL")),
    Column("audio_key", String(500)),
    Column("audio_seconds", Float, nullable=False),
    Column("synthesis_ms", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint("mode IN ('fast', 'hq')", name="mode"),
)

system_logs = Table(
    "system_logs",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("level", String(16), nullable=False),
    Column("message", AnyText, nullable=False),
    Column("trace_id", String(64)),
    Column("metadata", JSON, nullable=False),
)
