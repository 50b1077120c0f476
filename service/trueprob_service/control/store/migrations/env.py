"""The script that Alembic runs: applies the revisions on the connection of `upgrade`.

It does not configure logging; the service does.
"""

from __future__ import annotations

from alembic import context

from trueprob_service.control.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
