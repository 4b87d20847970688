"""What memories mean, to find them by; when action items are due, and when they were done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("memories", sa.Column("encoder", sa.String(255)))
    op.add_column("memories", sa.Column("vector", sa.LargeBinary()))
    op.add_column("action_items", sa.Column("completed_at", sa.DateTime(timezone=True)))
    op.add_column("action_items", sa.Column("due_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("action_items", "due_at")
    op.drop_column("action_items", "completed_at")
    op.drop_column("memories", "vector")
    op.drop_column("memories", "encoder")
