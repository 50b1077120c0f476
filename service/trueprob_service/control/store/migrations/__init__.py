"""Schema migrations (Alembic), run at start; there is no ``alembic.ini``.

A new revision is a module in ``versions/`` that names the one before it. A test compares the
schema that the revisions build with the tables of this package, on both databases.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

__all__ = ["UnknownSchema", "check_schema", "upgrade"]


class UnknownSchema(ValueError):
    """The database has a schema that is not in this version's history."""


def check_schema(connection: Connection) -> None:
    """Raise `UnknownSchema`, with one line for the terminal, unless `upgrade` can run.

    An empty database can be upgraded.
    """
    context = MigrationContext.configure(connection)
    script = ScriptDirectory.from_config(_config())
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = sorted(set(context.get_current_heads()) - known)
    if unknown:
        raise UnknownSchema(
            f"the database has schema {unknown[0]}, which this version does not know "
            f"(its own is {script.get_current_head()}): move state_dir or the database away to "
            "start empty, or run the version that wrote it to export its state"
        )


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Run the missing revisions in the connection's transaction, or raise `UnknownSchema`."""
    check_schema(connection)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _config() -> Config:
    config = Config()
    # Config reads through configparser, for which a percent sign starts an interpolation.
    folder = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config
