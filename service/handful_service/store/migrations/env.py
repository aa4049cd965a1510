"""Alembic's way in: `database.upgrade` gives the connection and has begun the transaction."""

from alembic import context

from handful_service.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
