"""What Alembic runs: the chain, on the connection and in the transaction that `upgrade` opened."""

from __future__ import annotations

from alembic import context

from minuet.infra.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
