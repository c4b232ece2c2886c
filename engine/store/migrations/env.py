"""Alembic's way in: runs the migrations on the connection that ``upgrade`` hands over."""

from __future__ import annotations

from alembic import context

from engine.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    # ALTER as SQLite understands it: copy and move.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
