"""Sessions, their turns, and the transcriptions of spoken turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("language", sa.String(16)),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_owner_created_at", "sessions", ["owner", "created_at"])
    op.create_table(
        "conversation_turns",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("transcript", sa.Text(), nullable=False),
        sa.Column("language", sa.String(16)),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("reply_full", sa.Text(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("latency", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversation_turns"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["sessions.id"],
            name="fk_conversation_turns_session_id_sessions",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("session_id", "number", name="uq_conversation_turns_session_id_number"),
    )
    op.create_table(
        "transcriptions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("words", sa.JSON(), nullable=False),
        sa.Column("partials", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.Float()),
        sa.Column("language", sa.String(16)),
        sa.Column("audio_key", sa.String(500)),
        sa.Column("audio_seconds", sa.Float()),
        sa.Column("latency_ms", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_transcriptions"),
        sa.ForeignKeyConstraint(
            ["turn_id"],
            ["conversation_turns.id"],
            name="fk_transcriptions_turn_id_conversation_turns",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("turn_id", name="uq_transcriptions_turn_id"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("transcriptions")
    op.drop_table("conversation_turns")
    op.drop_index("ix_sessions_owner_created_at", "sessions")
    op.drop_table("sessions")
