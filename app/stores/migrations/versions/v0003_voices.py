"""Voices that are known, those of a conversation that goes on, and how long who was listened to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables and the column."""
    op.create_table(
        "voices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("person_id", sa.Uuid()),
        sa.Column("encoder", sa.String(255), nullable=False),
        sa.Column("vector", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("audio_key", sa.String(500)),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_voices"),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name="fk_voices_person_id_people", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_voices_owner", "voices", ["owner"])
    op.create_table(
        "listened",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "day", name="pk_listened"),
    )
    op.add_column("conversations", sa.Column("voices", sa.JSON()))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("conversations", "voices")
    op.drop_table("listened")
    op.drop_index("ix_voices_owner", "voices")
    op.drop_table("voices")
