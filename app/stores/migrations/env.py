"""Run by alembic for each migration command; `app.stores.migrate` gives the connection."""

from __future__ import annotations

from alembic import context

from app.stores.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Alembic takes SQLite for a database without transactional DDL, which it is not once the
    # transaction is begun by hand, as `migrate` does.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
