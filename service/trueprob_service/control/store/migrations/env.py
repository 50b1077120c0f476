"""What Alembic executes: the revisions, on the connection that `upgrade` was given.

Logging is the service's own affair and is not configured here.
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
