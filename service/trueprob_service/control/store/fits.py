"""Fits: what was asked for, where it stands, and what came of it.

Fits that the refit policy asked for: the rows of ``fit`` that have a trigger.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from trueprob_service.control.store.tables import calibrator, fit

__all__ = ["ENDED", "WAITING", "EarlierFitTable", "FitRow", "FitTable", "PolicyFitTable"]


WAITING: Final = ("queued", "running")
ENDED: Final = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class FitRow:
    """A fit of one method on one calibration set."""

    id: int
    model: str
    version: int
    calibration_set: str
    method: str
    promote: str  # `auto`, `never`, `always` or `shadow`
    state: str  # `queued`, `running`, `done`, `failed` or `cancelled`
    attempts: int  # how often it was begun
    created_at: float
    created_by: str | None
    started_at: float | None
    finished_at: float | None
    seconds: float | None
    verdict: dict[str, Any] | None  # as in the report, once done
    scores: dict[str, Any] | None  # as in the report, once done
    warnings: list[str] | None  # of fitting itself; they are among the reasons of the verdict too
    judged_revision: int | None  # what was live when it was judged
    calibrator: str | None
    admitted: bool | None
    promoted: bool
    revision: int | None  # of its promotion
    error: str | None  # one sentence, when failed
    owner: str | None  # the process that runs it
    lease_until: float | None  # until then no other process does
    progress: float | None  # 0 to 1, while it runs
    allow_prediction_change: bool
    trigger: str | None  # why the refit policy asked for it; None for one that a client did


class FitTable:
    """The table ``fit``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        model: str,
        version: int,
        *,
        calibration_set: str,
        method: str,
        promote: str,
        allow_prediction_change: bool,
        created_by: str | None,
        now: float,
        trigger: str | None = None,
    ) -> int:
        """Queue a fit; its id."""
        statement = (
            insert(fit)
            .values(
                model=model,
                version=version,
                calibration_set=calibration_set,
                method=method,
                promote=promote,
                allow_prediction_change=allow_prediction_change,
                state="queued",
                attempts=0,
                promoted=False,
                created_by=created_by,
                created_at=now,
                trigger=trigger,
            )
            .returning(fit.c.id)
        )
        return int(self._connection.execute(statement).scalar_one())

    def claim(
        self, fit_ids: Sequence[int], *, owner: str, now: float, lease_until: float
    ) -> FitRow | None:
        """Give one of these fits, the oldest that may be run now, to a process.

        One statement: of processes that claim the same fit at the same time one gets it. On
        PostgreSQL the others pass over the row that is locked; SQLite has one writer anyway.
        """
        free = (
            select(fit.c.id)
            .where(fit.c.id.in_(fit_ids), _may_run(owner, now))
            .order_by(fit.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(fit)
            .where(fit.c.id == free)
            .values(
                state="running",
                started_at=now,
                attempts=fit.c.attempts + 1,
                owner=owner,
                lease_until=lease_until,
                progress=0.0,
            )
            .returning(fit)
        )
        row = self._connection.execute(statement).first()
        return None if row is None else FitRow(**row._mapping)

    def renew(self, fit_id: int, *, owner: str, lease_until: float, progress: float) -> bool:
        """Extend a process's lease; False when the fit is not its any more, or was cancelled."""
        statement = (
            update(fit)
            .where(fit.c.id == fit_id, fit.c.state == "running", fit.c.owner == owner)
            .values(lease_until=lease_until, progress=progress)
            .returning(fit.c.id)
        )
        return self._connection.execute(statement).first() is not None

    def release(self, fit_id: int, *, owner: str) -> None:
        """Put a fit that a process began and will not end back into the queue."""
        self._connection.execute(
            update(fit)
            .where(fit.c.id == fit_id, fit.c.state == "running", fit.c.owner == owner)
            .values(state="queued", owner=None, lease_until=None, progress=None)
        )

    def using(self, model: str, digest: str) -> int:
        """How many fits on a set have not ended."""
        statement = select(func.count()).where(
            fit.c.model == model, fit.c.calibration_set == digest, fit.c.state.in_(WAITING)
        )
        return int(self._connection.execute(statement).scalar_one())

    def ever(self, model: str, digest: str) -> bool:
        """Whether there was any fit on a set."""
        statement = select(fit.c.id).where(fit.c.model == model, fit.c.calibration_set == digest)
        return self._connection.execute(statement.limit(1)).first() is not None

    def end(self, fit_id: int, state: str, *, now: float, **fields: object) -> None:
        """Record how a fit ended."""
        self._connection.execute(
            update(fit).where(fit.c.id == fit_id).values(state=state, finished_at=now, **fields)
        )

    def get(self, model: str, fit_id: int) -> FitRow | None:
        """A fit of this model."""
        row = self._connection.execute(
            select(fit).where(fit.c.id == fit_id, fit.c.model == model)
        ).first()
        return None if row is None else FitRow(**row._mapping)

    def by_id(self, fit_id: int, *, lock: bool = False) -> FitRow | None:
        """A fit of any model; locked until the end of the transaction when asked."""
        statement = select(fit).where(fit.c.id == fit_id)
        row = self._connection.execute(statement.with_for_update() if lock else statement).first()
        return None if row is None else FitRow(**row._mapping)

    def waiting(self, *, owner: str, now: float) -> list[FitRow]:
        """Fits that this process might run now, oldest first."""
        statement = select(fit).where(_may_run(owner, now)).order_by(fit.c.id)
        return [FitRow(**row._mapping) for row in self._connection.execute(statement)]

    def ended(self, fit_ids: Collection[int]) -> set[int]:
        """Those of these fits that have ended, or are gone with their model."""
        statement = select(fit.c.id).where(fit.c.id.in_(fit_ids), fit.c.state.in_(WAITING))
        return set(fit_ids) - set(self._connection.execute(statement).scalars())

    def page(self, model: str, *, before: int | None, limit: int) -> list[FitRow]:
        """Newest first, from below an id."""
        statement = select(fit).where(fit.c.model == model).order_by(fit.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(fit.c.id < before)
        return [FitRow(**row._mapping) for row in self._connection.execute(statement)]

    def counts(self) -> tuple[dict[tuple[str, str, str], int], dict[tuple[str, str], int]]:
        """Fits that ended by (model, method, outcome), and those that wait by (model, method).

        The outcome of a fit that is done is whether it was admitted or refused.
        """
        outcome = case(
            (fit.c.state != "done", fit.c.state),
            (fit.c.admitted, "admitted"),
            else_="refused",
        ).label("outcome")
        statement = select(fit.c.model, fit.c.method, outcome, func.count()).group_by(
            fit.c.model, fit.c.method, outcome
        )
        ended: dict[tuple[str, str, str], int] = {}
        waiting: dict[tuple[str, str], int] = {}
        for model, method, state, n in self._connection.execute(statement):
            if state in WAITING:
                waiting[model, method] = waiting.get((model, method), 0) + n
            else:
                ended[model, method, state] = n
        return ended, waiting


def _may_run(owner: str, now: float) -> ColumnElement[bool]:
    """Nobody runs it, or whoever did has not said so for too long, or did so before it failed."""
    nobody = or_(fit.c.lease_until.is_(None), fit.c.lease_until < now, fit.c.owner == owner)
    return or_(fit.c.state == "queued", and_(fit.c.state == "running", nobody))


class EarlierFitTable:
    """What is asked of the table ``fit`` before another fit is made."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(
        self,
        model: str,
        version: int,
        digest: str,
        *,
        method: str,
        allow_prediction_change: bool,
        promote: str,
    ) -> FitRow | None:
        """The last fit that a client has asked for like this."""
        statement = (
            select(fit)
            .where(
                fit.c.model == model,
                fit.c.version == version,
                fit.c.calibration_set == digest,
                fit.c.method == method,
                fit.c.allow_prediction_change == allow_prediction_change,
                fit.c.promote == promote,
                fit.c.trigger.is_(None),
            )
            .order_by(fit.c.id.desc())
            .limit(1)
        )
        row = self._connection.execute(statement).first()
        return None if row is None else FitRow(**row._mapping)

    def fitted(self, of: FitRow) -> tuple[str, list[str]] | None:
        """What fitting the same rows in the same way came to before: document and warnings."""
        statement = (
            select(calibrator.c.document, fit.c.warnings)
            .join(
                calibrator,
                (calibrator.c.model == fit.c.model)
                & (calibrator.c.version == fit.c.version)
                & (calibrator.c.calibrator == fit.c.calibrator),
            )
            .where(
                fit.c.model == of.model,
                fit.c.version == of.version,
                fit.c.calibration_set == of.calibration_set,
                fit.c.method == of.method,
                fit.c.allow_prediction_change == of.allow_prediction_change,
                fit.c.state == "done",
            )
            .order_by(fit.c.id.desc())
            .limit(1)
        )
        row = self._connection.execute(statement).first()
        return None if row is None else (row.document, row.warnings or [])


class PolicyFitTable:
    """What the policy asks of the table ``fit``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def triggered(self, model: str, trigger: str) -> int | None:
        """The fit that a trigger has led to."""
        statement = select(fit.c.id).where(fit.c.model == model, fit.c.trigger == trigger)
        return self._connection.execute(statement).scalar()

    def waiting(self) -> set[str]:
        """Models with a fit of the policy that has not ended."""
        statement = select(fit.c.model).where(fit.c.trigger.is_not(None), fit.c.state.in_(WAITING))
        return set(self._connection.execute(statement).scalars())

    def promoted(self, model: str, *, since: float) -> int:
        """How many of the policy's fits went live from a time on."""
        statement = select(func.count()).where(
            fit.c.model == model,
            fit.c.trigger.is_not(None),
            fit.c.promoted,
            fit.c.finished_at >= since,
        )
        return int(self._connection.execute(statement).scalar_one())

    def counts(self) -> dict[tuple[str, str, str], int]:
        """The policy's fits that ended, by (model, trigger, outcome).

        The trigger is ``alarm`` or ``rows``; the outcome ``promoted``, or as of `FitTable.counts`.
        """
        statement = select(fit.c.model, fit.c.trigger, fit.c.state, fit.c.admitted, fit.c.promoted)
        found: dict[tuple[str, str, str], int] = {}
        for row in self._connection.execute(statement.where(fit.c.trigger.is_not(None))):
            if row.state in WAITING:
                continue
            outcome = "admitted" if row.admitted else "refused"
            outcome = row.state if row.state != "done" else "promoted" if row.promoted else outcome
            key = (row.model, row.trigger.partition(":")[0], outcome)
            found[key] = found.get(key, 0) + 1
        return found
