"""Schema history (Alembic), run at start. There is no alembic.ini: nothing outside the package.

A new revision is a module in ``versions/`` that names the one before it; a test compares the
schema that the revisions build with ``tables.py`` on both databases.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

__all__ = ["upgrade"]


def upgrade(connection: Connection, *, to: str = "head") -> None:
    """Run the revisions that this database has not seen, in the connection's transaction."""
    config = Config()
    # Config reads through configparser, for which a percent sign starts an interpolation.
    folder = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
