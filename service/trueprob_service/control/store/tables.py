"""Tables that several modules use, and INSERT ... ON CONFLICT for both databases.

Times are seconds since 1970 UTC, sums are float64, digests are bytes or hex. Other tables are
defined in the module of their accessor; `metadata` has them all once the package is imported. The
migrations build the same schema; a test compares the two.

SQLAlchemy takes longer to build most statements than the database takes to run them. Statements on
the path of a request are therefore built once: upserts here, selects as constants of their modules.
"""

from __future__ import annotations

import functools
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects import postgresql, sqlite

__all__ = [
    "bin_running",
    "bin_total",
    "calibration_set",
    "calibration_set_name",
    "calibrator",
    "class_running",
    "fit",
    "insert_into",
    "label_key",
    "metadata",
    "model",
    "model_version",
    "promotion",
    "swept",
    "upsert",
    "window_block",
]


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return _insert(connection.dialect.name, table)


def upsert(
    connection: Connection, table: Table, *, adds: bool = False
) -> sqlite.Insert | postgresql.Insert:
    """An INSERT of whole rows that replaces rows with the same keys, or with ``adds`` adds to them.

    Built once for each table.
    """
    return _upsert(connection.dialect.name, table, adds)


@functools.cache
def _upsert(dialect: str, table: Table, adds: bool) -> sqlite.Insert | postgresql.Insert:
    statement = _insert(dialect, table)
    given = statement.excluded
    values = [column.name for column in table.columns if not column.primary_key]
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: table.c[name] + given[name] if adds else given[name] for name in values},
    )


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


# Named constraints, so that later migrations can drop them on both databases.
metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_NAME: Final = String(100)
_ID: Final = String(100)
_DIGEST: Final = String(71)  # "sha256:" and 64 hex digits

model = Table(
    "model",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", _NAME, nullable=False, unique=True),
    Column(
        "declared", Boolean, nullable=False
    ),  # declared over HTTP; otherwise found in the repository
    Column("created_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

model_version = Table(
    "model_version",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("class_names", JSON, nullable=False),
    Column("factory_calibrator", _ID, nullable=False),
    Column("created_at", Double, nullable=False),
    ForeignKeyConstraint(["model"], ["model.name"]),
)

calibration_set = Table(
    "calibration_set",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", _NAME, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("n_rows", Integer, nullable=False),
    Column("n_classes", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("row_digests", LargeBinary, nullable=False),  # 16 bytes a row
    Column("created_at", Double, nullable=False),
    Column("created_by", _ID),
    Column("deleted_at", Double),  # the rows are gone, their digests stay
    Column("class_names", JSON(none_as_null=True)),  # of the version that it was sent for
    UniqueConstraint("model", "digest"),
    ForeignKeyConstraint(["model"], ["model.name"]),
    sqlite_autoincrement=True,
)

calibration_set_name = Table(
    "calibration_set_name",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("digest", _DIGEST, nullable=False),
    Column("updated_at", Double, nullable=False),
    ForeignKeyConstraint(["model", "digest"], ["calibration_set.model", "calibration_set.digest"]),
)

fit = Table(
    "fit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("calibration_set", _DIGEST, nullable=False),
    Column("method", String(40), nullable=False),
    Column("promote", String(10), nullable=False),  # auto, never, always, shadow
    Column("state", String(10), nullable=False),  # as `fits` says
    Column("attempts", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", _ID),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("seconds", Double),
    Column("verdict", JSON(none_as_null=True)),
    Column("scores", JSON(none_as_null=True)),
    Column("warnings", JSON(none_as_null=True)),  # of fitting itself
    Column("judged_revision", Integer),  # the live revision that it was compared with
    Column("calibrator", _ID),
    Column("admitted", Boolean),
    Column("promoted", Boolean, nullable=False),
    Column("revision", Integer),
    Column("error", Text),
    Column("owner", _ID),  # the process that runs it
    Column("lease_until", Double),  # when other processes may take it over
    Column("progress", Double),  # 0 to 1
    Column("allow_prediction_change", Boolean, nullable=False),
    Column("keep_prediction", Boolean, nullable=False, server_default=false()),
    Column("trigger", String(100)),  # of the refit policy; a trigger has one fit
    Column(
        "held", Boolean, nullable=False, server_default=false()
    ),  # a finding keeps it from going live
    ForeignKeyConstraint(
        ["model", "calibration_set"], ["calibration_set.model", "calibration_set.digest"]
    ),
    ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.version"]),
    Index(None, "model"),
    Index(None, "state"),
    Index(None, "model", "trigger", unique=True),
    sqlite_autoincrement=True,
)

calibrator = Table(
    "calibrator",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("calibrator", _ID, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("document", Text, nullable=False),  # `calibrator.json`, with the floats as written
    Column("origin", String(10), nullable=False),  # factory, fit
    Column("admitted", Boolean, nullable=False),  # can be promoted without force
    Column("calibration_set", _DIGEST),  # the stored set that it was fitted on
    Column("created_at", Double, nullable=False),
    # labels sent it back after a promotion: only force promotes it again
    Column("reverted", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("model", "version", "calibrator"),
    ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.version"]),
    sqlite_autoincrement=True,
)

promotion = Table(  # append-only
    "promotion",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("calibrator", _ID, nullable=False),
    Column(
        "cause", String(10), nullable=False
    ),  # factory, admitted, forced, shadow, rollback, reverted
    # for rollback and reverted: the revision whose pair it restored
    Column("restores", Integer),
    Column("fit", Integer),
    Column("promoted_by", _ID),
    Column("promoted_at", Double, nullable=False),
    ForeignKeyConstraint(["model"], ["model.name"]),
)

label_key = Table(
    "label_key",
    metadata,
    Column("nonce", LargeBinary(24), primary_key=True),
    Column("expires_at", Double, nullable=False),
    Column("label", Integer),  # class index that counted; of ids of callers only
    Index(None, "expires_at"),
    sqlite_with_rowid=False,
)


def _sums() -> list[Column[float]]:
    return [
        Column(name, Double, nullable=False)
        for name in ("count", "confidence", "correct", "variance")
    ]


bin_total = Table(
    "bin_total",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("hour", Integer, primary_key=True, autoincrement=False),  # since 1970 UTC
    Column("bin", Integer, primary_key=True, autoincrement=False),
    *_sums(),
    ForeignKeyConstraint(["model", "revision"], ["promotion.model", "promotion.revision"]),
)

bin_running = Table(  # only increases: the counters of Prometheus must not fall
    "bin_running",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("calibrator", _ID, primary_key=True),
    Column("bin", Integer, primary_key=True, autoincrement=False),
    *_sums(),
)

class_running = Table(  # as `bin_running`, by predicted class; for models with few classes
    "class_running",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("calibrator", _ID, primary_key=True),
    Column("predicted", Integer, primary_key=True, autoincrement=False),  # class index
    *(
        Column(name, Double, nullable=False)
        for name in ("labels", "confidence", "correct", "squared")
    ),
)

window_block = Table(  # a ring of ten blocks for "the last N labels"
    "window_block",
    metadata,
    Column("model", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("calibrator", _ID, primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),  # sequence mod 10
    Column("sequence", Integer, nullable=False),
    Column("labels", Integer, nullable=False),
    Column("sums", LargeBinary, nullable=False),  # (4, 15) little-endian float64
)

swept = Table(  # high-water marks of the clean-up job
    "swept",
    metadata,
    Column("what", String(40), primary_key=True),
    Column("before", Double, nullable=False),
)
