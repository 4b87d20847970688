"""Vectors as pgvector has them, on PostgreSQL; names as long as they are; tables for what is measured and
made of what was said."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.roles import Misconfigured
from app.stores.vectors import PgVector

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Change the columns, make the tables."""
    if op.get_bind().dialect.name == "postgresql":
        _extension()
        _vectors(PgVector())
    with op.batch_alter_table("people") as people:
        people.alter_column("name", type_=sa.Text(), existing_type=sa.String(255), existing_nullable=False)
    op.create_table(
        "prosody_scores",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("transcription_id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("confidence", "stability", "affability")),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.CheckConstraint(f"{name} BETWEEN 0 AND 100", name=op.f(f"ck_prosody_scores_{name}"))
            for name in ("confidence", "stability", "affability")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_prosody_scores"),
        sa.ForeignKeyConstraint(
            ["transcription_id"],
            ["transcriptions.id"],
            name="fk_prosody_scores_transcription_id_transcriptions",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("transcription_id", name="uq_prosody_scores_transcription_id"),
    )
    op.create_table(
        "voice_profiles",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("audio_key", sa.String(500), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("encoder", sa.String(255)),
        sa.Column("vector", _vector()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_voice_profiles"),
    )
    op.create_index("ix_voice_profiles_owner", "voice_profiles", ["owner"])
    op.create_table(
        "synthesized_audios",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("voice_profile_id", sa.Uuid()),
        sa.Column("audio_key", sa.String(500)),
        sa.Column("audio_seconds", sa.Float(), nullable=False),
        sa.Column("synthesis_ms", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("mode IN ('fast', 'hq')", name=op.f("ck_synthesized_audios_mode")),
        sa.PrimaryKeyConstraint("id", name="pk_synthesized_audios"),
        sa.ForeignKeyConstraint(
            ["turn_id"],
            ["conversation_turns.id"],
            name="fk_synthesized_audios_turn_id_conversation_turns",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["voice_profile_id"],
            ["voice_profiles.id"],
            name="fk_synthesized_audios_voice_profile_id_voice_profiles",
            ondelete="SET NULL",
        ),
    )
    op.create_index("ix_synthesized_audios_turn_id", "synthesized_audios", ["turn_id"])
    op.create_table(
        "system_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.String(64)),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_system_logs"),
    )
    op.create_index("ix_system_logs_created_at", "system_logs", ["created_at"])


def downgrade() -> None:
    """Undo it. The extension stays: others may use it."""
    for name, index in (
        ("system_logs", "created_at"),
        ("synthesized_audios", "turn_id"),
        ("voice_profiles", "owner"),
    ):
        op.drop_index(f"ix_{name}_{index}", name)
        op.drop_table(name)
    op.drop_table("prosody_scores")
    with op.batch_alter_table("people") as people:
        people.alter_column("name", type_=sa.String(255), existing_type=sa.Text(), existing_nullable=False)
    if op.get_bind().dialect.name == "postgresql":
        _vectors(sa.LargeBinary())


def _vector() -> PgVector | sa.LargeBinary:
    return PgVector() if op.get_bind().dialect.name == "postgresql" else sa.LargeBinary()


def _vectors(kind: PgVector | sa.LargeBinary) -> None:
    """Memories that have no vector are placed anew when they are looked at."""
    op.drop_column("memories", "vector")
    op.execute("UPDATE memories SET encoder = NULL")
    op.add_column("memories", sa.Column("vector", kind))


def _extension() -> None:
    if op.get_bind().scalar(sa.text("SELECT 1 FROM pg_extension WHERE extname = 'vector'")):
        return
    try:
        op.execute("CREATE EXTENSION vector")
    except sa.exc.DBAPIError as error:
        raise Misconfigured(
            "The database needs pgvector: install it on the PostgreSQL server, and have somebody who may do "
            f"it run CREATE EXTENSION vector in this database. ({error.orig})"
        ) from error
