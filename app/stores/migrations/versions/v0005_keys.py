"""Users' keys, sealed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "user_keys",
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("master", sa.String(16), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", name="pk_user_keys"),
    )


def downgrade() -> None:
    """Drop it: what is sealed can then not be opened any more."""
    op.drop_table("user_keys")
