"""The first schema.

Revision: 0001, after nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bin_running",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("bin", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("correct", sa.Double(), nullable=False),
        sa.Column("variance", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "model", "version", "calibrator", "bin", name=op.f("pk_bin_running")
        ),
    )
    op.create_table(
        "label_key",
        sa.Column("nonce", sa.LargeBinary(length=24), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_label_key")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_label_key_expires_at"), "label_key", ["expires_at"], unique=False)
    op.create_table(
        "model",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model")),
        sa.UniqueConstraint("name", name=op.f("uq_model_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "window_block",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "model", "version", "calibrator", "slot", name=op.f("pk_window_block")
        ),
    )
    op.create_table(
        "calibration_set",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("n_classes", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("row_digests", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name=op.f("fk_calibration_set_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibration_set")),
        sa.UniqueConstraint("model", "digest", name=op.f("uq_calibration_set_model_digest")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "model_version",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("class_names", sa.JSON(), nullable=False),
        sa.Column("factory_calibrator", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name=op.f("fk_model_version_model")),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_model_version")),
    )
    op.create_table(
        "promotion",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("cause", sa.String(length=10), nullable=False),
        sa.Column("restores", sa.Integer(), nullable=True),
        sa.Column("fit", sa.Integer(), nullable=True),
        sa.Column("promoted_by", sa.String(length=100), nullable=True),
        sa.Column("promoted_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name=op.f("fk_promotion_model")),
        sa.PrimaryKeyConstraint("model", "revision", name=op.f("pk_promotion")),
    )
    op.create_table(
        "bin_total",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("bin", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("correct", sa.Double(), nullable=False),
        sa.Column("variance", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "revision"],
            ["promotion.model", "promotion.revision"],
            name=op.f("fk_bin_total_model_revision"),
        ),
        sa.PrimaryKeyConstraint("model", "revision", "hour", "bin", name=op.f("pk_bin_total")),
    )
    op.create_table(
        "calibration_set_name",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "digest"],
            ["calibration_set.model", "calibration_set.digest"],
            name=op.f("fk_calibration_set_name_model_digest"),
        ),
        sa.PrimaryKeyConstraint("model", "name", name=op.f("pk_calibration_set_name")),
    )
    op.create_table(
        "calibrator",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("origin", sa.String(length=10), nullable=False),
        sa.Column("admitted", sa.Boolean(), nullable=False),
        sa.Column("calibration_set", sa.String(length=71), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"],
            ["model_version.model", "model_version.version"],
            name=op.f("fk_calibrator_model_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibrator")),
        sa.UniqueConstraint(
            "model", "version", "calibrator", name=op.f("uq_calibrator_model_version_calibrator")
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "fit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("calibration_set", sa.String(length=71), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("promote", sa.String(length=10), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("verdict", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("scores", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("calibrator", sa.String(length=100), nullable=True),
        sa.Column("admitted", sa.Boolean(), nullable=True),
        sa.Column("promoted", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model", "calibration_set"],
            ["calibration_set.model", "calibration_set.digest"],
            name=op.f("fk_fit_model_calibration_set"),
        ),
        sa.ForeignKeyConstraint(
            ["model", "version"],
            ["model_version.model", "model_version.version"],
            name=op.f("fk_fit_model_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fit")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_fit_model"), "fit", ["model"], unique=False)
    op.create_index(op.f("ix_fit_state"), "fit", ["state"], unique=False)
