"""Schema history (Alembic), run at start. There is no alembic.ini: nothing outside the package.

A new revision is a module in ``versions/`` that names the one before it; a test compares the
schema that the revisions build with ``tables.py`` on both databases.
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
    """The database was written by a version whose schema this one does not know."""


def check_schema(connection: Connection) -> None:
    """Refuse a database that cannot be brought up to date; an empty one can.

    Raises
    ------
    UnknownSchema
        The message is one line for the terminal.
    """
    context = MigrationContext.configure(connection)
    script = ScriptDirectory.from_config(_config())
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = sorted(set(context.get_current_heads()) - known)
    if unknown:
        raise UnknownSchema(
            f"the database has schema {unknown[0]}, which this version does not know "
            f"(its own is {script.get_current_head()}): move state_dir or the database aside to "
            "begin anew, or run the version that wrote it to export its state"
        )


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Run the revisions that this database has not seen, in the connection's transaction.

    Raises
    ------
    UnknownSchema
    """
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
