"""The first schema.

Earlier development versions used the numbers below 0010, and 0011 for a part of this schema. No
later revision may have one of these numbers.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deleted_model",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_deleted_model")),
    )
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
        sa.Column("deleted_at", sa.Double(), nullable=True),
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
        sa.Column("warnings", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("judged_revision", sa.Integer(), nullable=True),
        sa.Column("calibrator", sa.String(length=100), nullable=True),
        sa.Column("admitted", sa.Boolean(), nullable=True),
        sa.Column("promoted", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("owner", sa.String(length=100), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("progress", sa.Double(), nullable=True),
        sa.Column("allow_prediction_change", sa.Boolean(), nullable=False),
        sa.Column("trigger", sa.String(length=100), nullable=True),
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
    op.create_index(op.f("ix_fit_model_trigger"), "fit", ["model", "trigger"], unique=True)
    op.create_index(op.f("ix_fit_state"), "fit", ["state"], unique=False)
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
        "group_count",
        sa.Column("model_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "revision", "digest", name=op.f("pk_group_count")),
        sqlite_with_rowid=False,
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
        "swept",
        sa.Column("what", sa.String(length=40), nullable=False),
        sa.Column("before", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("what", name=op.f("pk_swept")),
    )
    op.create_table(
        "webhook_event",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("message", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_event")),
        sa.UniqueConstraint("message", name=op.f("uq_webhook_event_message")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_webhook_event_state_due_at"), "webhook_event", ["state", "due_at"], unique=False
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
        "alarm",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("statistic", sa.String(length=10), nullable=False),
        sa.Column("log10", sa.Double(), nullable=False),
        sa.Column("threshold_log10", sa.Double(), nullable=False),
        sa.Column("tolerance", sa.Double(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("raised_at", sa.Double(), nullable=False),
        sa.Column("acknowledged_at", sa.Double(), nullable=True),
        sa.Column("acknowledged_by", sa.String(length=100), nullable=True),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model", "revision"],
            ["promotion.model", "promotion.revision"],
            name=op.f("fk_alarm_model_revision"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_alarm_answered_at"), "alarm", ["answered_at"], unique=False)
    op.create_index(op.f("ix_alarm_model_revision"), "alarm", ["model", "revision"], unique=False)
    op.create_table(
        "alarm_state",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("change", sa.JSON(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.Column("repeated", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "revision"],
            ["promotion.model", "promotion.revision"],
            name=op.f("fk_alarm_state_model_revision"),
        ),
        sa.PrimaryKeyConstraint("model", "revision", name=op.f("pk_alarm_state")),
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
        "labelled_row",
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row_key", sa.LargeBinary(length=24), nullable=False),
        sa.Column("logits", sa.LargeBinary(), nullable=False),
        sa.Column("label", sa.Integer(), nullable=False),
        sa.Column("row_group", sa.BigInteger(), nullable=True),
        sa.Column("labelled_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model", "version"],
            ["model_version.model", "model_version.version"],
            name=op.f("fk_labelled_row_model_version"),
        ),
        sa.PrimaryKeyConstraint("model", "version", "sequence", name=op.f("pk_labelled_row")),
        sa.UniqueConstraint(
            "model", "version", "row_key", name=op.f("uq_labelled_row_model_version_row_key")
        ),
    )
    op.create_table(
        "shadow",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("calibrator", sa.String(length=100), nullable=False),
        sa.Column("policy", sa.String(length=10), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("changes_prediction", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("comparison", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("better_log10", sa.Double(), nullable=False),
        sa.Column("worse_log10", sa.Double(), nullable=False),
        sa.Column("promoted", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("started_by", sa.String(length=100), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model", "revision"],
            ["promotion.model", "promotion.revision"],
            name=op.f("fk_shadow_model_revision"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_shadow_model_state"), "shadow", ["model", "state"], unique=False)
