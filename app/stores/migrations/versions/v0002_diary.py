"""Conversations that a wearable heard: segments, people, memories, action items; users' settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "users",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("language", sa.String(16)),
        sa.Column("profile_key", sa.String(500)),
        sa.Column("profile_seconds", sa.Float()),
        sa.PrimaryKeyConstraint("owner", name="pk_users"),
    )
    op.create_table(
        "people",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_people"),
    )
    op.create_index("ix_people_owner", "people", ["owner"])
    op.create_table(
        "conversations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("language", sa.String(16)),
        sa.Column("source", sa.String(64)),
        sa.Column("structured", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_owner_started_at", "conversations", ["owner", "started_at"])
    op.create_index("ix_conversations_status_ends_at", "conversations", ["status", "ends_at"])
    op.create_table(
        "segments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("speaker", sa.Integer(), nullable=False),
        sa.Column("is_user", sa.Boolean(), nullable=False),
        sa.Column("person_id", sa.Uuid()),
        sa.Column("start_s", sa.Float(), nullable=False),
        sa.Column("end_s", sa.Float(), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_segments"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_segments_conversation_id_conversations",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["people.id"], name="fk_segments_person_id_people", ondelete="SET NULL"
        ),
    )
    op.create_index("ix_segments_conversation_id_start_s", "segments", ["conversation_id", "start_s"])
    _of_a_conversation("memories", sa.Column("content", sa.Text(), nullable=False))
    _of_a_conversation(
        "action_items",
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("completed", sa.Boolean(), nullable=False),
    )


def _of_a_conversation(name: str, *columns: sa.Column[str] | sa.Column[bool]) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        *columns,
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=f"fk_{name}_conversation_id_conversations",
            ondelete="CASCADE",
        ),
    )
    op.create_index(f"ix_{name}_owner_created_at", name, ["owner", "created_at"])


def downgrade() -> None:
    """Drop the tables."""
    for name in ("action_items", "memories"):
        op.drop_index(f"ix_{name}_owner_created_at", name)
        op.drop_table(name)
    op.drop_index("ix_segments_conversation_id_start_s", "segments")
    op.drop_table("segments")
    op.drop_index("ix_conversations_status_ends_at", "conversations")
    op.drop_index("ix_conversations_owner_started_at", "conversations")
    op.drop_table("conversations")
    op.drop_index("ix_people_owner", "people")
    op.drop_table("people")
    op.drop_table("users")
