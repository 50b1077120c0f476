"""Shadows: calibrators that labels compare with the live pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    insert,
    select,
    update,
)

from trueprob_service.control.store.promotions import CalibratorRow
from trueprob_service.control.store.tables import calibrator, metadata

__all__ = ["ShadowRow", "ShadowTable", "shadow"]

shadow: Final = Table(
    "shadow",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(100), nullable=False),
    Column("revision", Integer, nullable=False),  # of the live pair
    Column("version", Integer, nullable=False),
    Column("calibrator", String(100), nullable=False),  # the one in shadow
    Column("policy", String(10), nullable=False),  # act, tell
    Column("alpha", Double, nullable=False),
    Column("changes_prediction", Boolean, nullable=False),  # the one in shadow or the live one
    # running, better, worse, kept, removed, superseded
    Column("state", String(10), nullable=False),
    Column("labels", Integer, nullable=False),
    Column("comparison", JSON(none_as_null=True)),  # state of the betting test
    Column("better_log10", Double, nullable=False),
    Column("worse_log10", Double, nullable=False),
    Column("promoted", Integer),  # the revision of its promotion
    Column("started_at", Double, nullable=False),
    Column("started_by", String(100)),
    Column("ended_at", Double),
    Column("role", String(12), nullable=False, server_default="candidate"),  # or predecessor
    ForeignKeyConstraint(["model", "revision"], ["promotion.model", "promotion.revision"]),
    Index(None, "model", "state"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class ShadowRow:
    """A calibrator in the shadow of a live pair."""

    id: int
    model: str
    revision: int  # of the live pair
    version: int
    calibrator: str
    policy: str  # `act` or `tell`
    alpha: float  # probability of a wrong claim, for each of "better" and "worse"
    changes_prediction: bool  # the two may predict different classes
    # `running`, `better`, `worse`, `removed`, `superseded`, or `kept`: as many labels as a
    # predecessor is compared on did not prove that it is better
    state: str
    labels: int  # scored so far
    # State of the test (`trueprob.drift.ComparisonState`); None before the first label.
    comparison: dict[str, Any] | None
    better_log10: float  # evidence that it is better than the live pair
    worse_log10: float  # evidence that it is worse
    promoted: int | None  # the revision of its promotion
    started_at: float
    started_by: str | None
    ended_at: float | None
    role: str = "candidate"  # or `predecessor`: what was live before, watched after a promotion


class ShadowTable:
    """The table ``shadow``.

    A model has at most one running row for each role; writers hold the model's lock.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(
        self,
        model: str,
        revision: int,
        role: str,
        *,
        version: int,
        calibrator_id: str,
        policy: str,
        alpha: float,
        changes_prediction: bool,
        by: str | None,
        now: float,
    ) -> None:
        """Add a running shadow; the caller has ended the earlier one."""
        self._connection.execute(
            insert(shadow).values(
                model=model,
                revision=revision,
                role=role,
                version=version,
                calibrator=calibrator_id,
                policy=policy,
                alpha=alpha,
                changes_prediction=changes_prediction,
                state="running",
                labels=0,
                better_log10=0.0,
                worse_log10=0.0,
                started_at=now,
                started_by=by,
            )
        )

    def running(self, model: str, role: str, *, lock: bool = False) -> ShadowRow | None:
        """The running shadow of a role; with ``lock``, locked until the transaction ends."""
        statement = select(shadow).where(
            shadow.c.model == model, shadow.c.state == "running", shadow.c.role == role
        )
        row = self._connection.execute(statement.with_for_update() if lock else statement).first()
        return None if row is None else ShadowRow(**row._mapping)

    def newest(self, model: str, role: str) -> ShadowRow | None:
        """The newest shadow of a role, running or ended."""
        statement = select(shadow).where(shadow.c.model == model, shadow.c.role == role)
        newest_first = statement.order_by(shadow.c.id.desc())
        row = self._connection.execute(newest_first.limit(1)).first()
        return None if row is None else ShadowRow(**row._mapping)

    def all_running(self) -> list[ShadowRow]:
        """The running shadows of all models, ordered by model."""
        statement = select(shadow).where(shadow.c.state == "running").order_by(shadow.c.model)
        return [ShadowRow(**row._mapping) for row in self._connection.execute(statement)]

    def calibrators(self) -> dict[tuple[str, str], tuple[int, CalibratorRow]]:
        """Running shadows by model and role: the live revision and the calibrator in shadow."""
        statement = (
            select(shadow.c.revision, shadow.c.role, calibrator)
            .join(
                calibrator,
                (calibrator.c.model == shadow.c.model)
                & (calibrator.c.version == shadow.c.version)
                & (calibrator.c.calibrator == shadow.c.calibrator),
            )
            .where(shadow.c.state == "running")
        )
        found = {}
        for revision, role, *columns in self._connection.execute(statement):
            row = CalibratorRow(*columns)
            found[row.model, str(role)] = int(revision), row
        return found

    def score(
        self,
        shadow_id: int,
        *,
        labels: int,
        comparison: dict[str, Any],
        better_log10: float,
        worse_log10: float,
    ) -> None:
        """Store the state of the comparison."""
        self._connection.execute(
            update(shadow)
            .where(shadow.c.id == shadow_id)
            .values(
                labels=labels,
                comparison=comparison,
                better_log10=better_log10,
                worse_log10=worse_log10,
            )
        )

    def end(
        self, model: str, role: str, state: str, *, now: float, promoted: int | None = None
    ) -> bool:
        """End the running shadow of a role; False if there is none."""
        statement = (
            update(shadow)
            .where(shadow.c.model == model, shadow.c.state == "running", shadow.c.role == role)
            .values(state=state, ended_at=now, promoted=promoted)
            .returning(shadow.c.id)
        )
        return self._connection.execute(statement).first() is not None
