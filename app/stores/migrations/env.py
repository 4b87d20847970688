"""Run by alembic for each migration command; `app.stores.migrate` gives the connection."""

from __future__ import annotations

from alembic import context

from app.stores.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
