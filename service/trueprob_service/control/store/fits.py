"""Fits: what was requested, the state of the run, and the result.

`FitTable` holds the queue; `EarlierFitTable` and `PolicyFitTable` are queries on the same table:
fits of the same rows with the same options, and fits that the refit policy requested.
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

from trueprob_service.control.store.promotions import CalibratorRow
from trueprob_service.control.store.tables import calibrator, fit

__all__ = ["ENDED", "WAITING", "EarlierFitTable", "FitRow", "FitTable", "PolicyFitTable"]


WAITING: Final = ("queued", "running")
ENDED: Final = ("done", "failed", "cancelled", "superseded")


@dataclass(frozen=True)
class FitRow:
    """A fit of one method on one calibration set."""

    id: int
    model: str
    version: int
    calibration_set: str
    method: str
    promote: str  # `auto`, `never`, `always` or `shadow`
    state: str  # one of `WAITING` or `ENDED`
    attempts: int  # how often it was started
    created_at: float
    created_by: str | None
    started_at: float | None
    finished_at: float | None
    seconds: float | None
    # Once done, as in the report:
    verdict: dict[str, Any] | None
    scores: dict[str, Any] | None
    warnings: list[str] | None  # from fitting itself; the verdict's reasons include them
    judged_revision: int | None  # the live revision that it was compared with
    calibrator: str | None
    admitted: bool | None
    promoted: bool
    revision: int | None  # of its promotion
    error: str | None  # one sentence, unless done
    owner: str | None  # the process that runs it
    lease_until: float | None  # when other processes may take it over
    progress: float | None  # 0 to 1, while it runs
    allow_prediction_change: bool
    keep_prediction: bool
    trigger: str | None  # why the refit policy requested it; None for a client's fit
    held: bool = False  # a finding keeps its calibrator from going live without force


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
        keep_prediction: bool,
        allow_prediction_change: bool,
        created_by: str | None,
        now: float,
        trigger: str | None = None,
    ) -> int:
        """Queue a fit and return its id."""
        statement = (
            insert(fit)
            .values(
                model=model,
                version=version,
                calibration_set=calibration_set,
                method=method,
                promote=promote,
                keep_prediction=keep_prediction,
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

    def supersede_like(self, fit_id: int, *, now: float) -> list[int]:
        """End the older fits that wait with the options of this one, on other rows.

        Returns their ids.
        """
        new, old = fit.alias(), fit.c
        same = [
            old[name] == new.c[name]
            for name in (
                "model", "version", "method", "promote", "keep_prediction",
                "allow_prediction_change",
            )
        ]  # fmt: skip
        like = select(new.c.id).where(new.c.id == fit_id, *same).exists()
        statement = (
            update(fit)
            .where(old.state == "queued", old.trigger.is_(None), old.id < fit_id, like)
            .values(
                state="superseded",
                finished_at=now,
                error=f"superseded by fit {fit_id}, which was requested later",
            )
            .returning(old.id)
        )
        return sorted(self._connection.execute(statement).scalars())

    def n_queued(self, model: str, *, before: int) -> int:
        """Number of a model's waiting fits that clients requested before a fit."""
        statement = select(func.count()).where(
            fit.c.model == model,
            fit.c.state == "queued",
            fit.c.trigger.is_(None),
            fit.c.id < before,
        )
        return int(self._connection.execute(statement).scalar_one())

    def last_starts(self, models: Collection[str]) -> dict[str, float]:
        """When the last fit of each of these models began."""
        statement = (
            select(fit.c.model, func.max(fit.c.started_at).label("at"))
            .where(fit.c.model.in_(models), fit.c.started_at.is_not(None))
            .group_by(fit.c.model)
        )
        return {row.model: row.at for row in self._connection.execute(statement)}

    def claim(
        self, fit_ids: Sequence[int], *, owner: str, now: float, lease_until: float
    ) -> FitRow | None:
        """Lease the oldest of these fits that can run now to a process.

        It is one statement, so only one of several processes that claim at the same time gets the
        fit: on PostgreSQL the others skip the locked row, and SQLite has one writer.
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
        """Extend the lease; False when the process has lost the fit, or it was cancelled."""
        statement = (
            update(fit)
            .where(fit.c.id == fit_id, fit.c.state == "running", fit.c.owner == owner)
            .values(lease_until=lease_until, progress=progress)
            .returning(fit.c.id)
        )
        return self._connection.execute(statement).first() is not None

    def release(self, fit_id: int, *, owner: str) -> None:
        """Return a fit that the process will not finish to the queue."""
        self._connection.execute(
            update(fit)
            .where(fit.c.id == fit_id, fit.c.state == "running", fit.c.owner == owner)
            .values(state="queued", owner=None, lease_until=None, progress=None)
        )

    def n_unfinished(self, model: str, digest: str) -> int:
        """Number of waiting and running fits on a set."""
        statement = select(func.count()).where(
            fit.c.model == model, fit.c.calibration_set == digest, fit.c.state.in_(WAITING)
        )
        return int(self._connection.execute(statement).scalar_one())

    def exist_for(self, model: str, digest: str) -> bool:
        """Whether a fit on the set exists, in any state."""
        statement = select(fit.c.id).where(fit.c.model == model, fit.c.calibration_set == digest)
        return self._connection.execute(statement.limit(1)).first() is not None

    def end(self, fit_id: int, state: str, *, now: float, **fields: object) -> None:
        """Record how a fit ended."""
        self._connection.execute(
            update(fit).where(fit.c.id == fit_id).values(state=state, finished_at=now, **fields)
        )

    def get(self, model: str, fit_id: int) -> FitRow | None:
        """A fit, if it is of this model."""
        row = self._connection.execute(
            select(fit).where(fit.c.id == fit_id, fit.c.model == model)
        ).first()
        return None if row is None else FitRow(**row._mapping)

    def by_id(self, fit_id: int, *, lock: bool = False) -> FitRow | None:
        """A fit of any model; with ``lock``, locked until the transaction ends."""
        statement = select(fit).where(fit.c.id == fit_id)
        row = self._connection.execute(statement.with_for_update() if lock else statement).first()
        return None if row is None else FitRow(**row._mapping)

    def waiting(self, *, owner: str, now: float) -> list[FitRow]:
        """Fits that this process could run now, oldest first."""
        statement = select(fit).where(_may_run(owner, now)).order_by(fit.c.id)
        return [FitRow(**row._mapping) for row in self._connection.execute(statement)]

    def ended(self, fit_ids: Collection[int]) -> set[int]:
        """The fits among these that have ended, or were deleted with their model."""
        statement = select(fit.c.id).where(fit.c.id.in_(fit_ids), fit.c.state.in_(WAITING))
        return set(fit_ids) - set(self._connection.execute(statement).scalars())

    def page(self, model: str, *, before: int | None, limit: int) -> list[FitRow]:
        """A page of a model's fits below an id, newest first."""
        statement = select(fit).where(fit.c.model == model).order_by(fit.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(fit.c.id < before)
        return [FitRow(**row._mapping) for row in self._connection.execute(statement)]

    def hold_on(self, of: CalibratorRow) -> str | None:
        """The finding that holds a calibrator, as its newest fit says; None if it is not held."""
        statement = (
            select(fit.c.held, fit.c.verdict)
            .where(
                fit.c.model == of.model,
                fit.c.version == of.version,
                fit.c.calibrator == of.calibrator,
                fit.c.state == "done",
            )
            .order_by(fit.c.id.desc())
            .limit(1)
        )
        row = self._connection.execute(statement).first()
        if of.origin == "factory" or row is None or not row.held:
            return None
        return str(row.verdict["reasons"][0])

    def counts(self) -> tuple[dict[tuple[str, str, str], int], dict[tuple[str, str], int]]:
        """Number of ended fits by (model, method, outcome), of unfinished fits by (model, method).

        The outcome of a fit that is done is ``held``, ``admitted`` or ``refused``.
        """
        outcome = case(
            (fit.c.state != "done", fit.c.state),
            (fit.c.held, "held"),
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
    """Condition: queued, or running with no lease, an expired one, or one of this process."""
    # A lease of this process remains when an error ended its last attempt.
    claimable = or_(fit.c.lease_until.is_(None), fit.c.lease_until < now, fit.c.owner == owner)
    return or_(fit.c.state == "queued", and_(fit.c.state == "running", claimable))


class EarlierFitTable:
    """Queries of the table ``fit`` for fits like a new one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(
        self,
        model: str,
        version: int,
        digest: str,
        *,
        method: str,
        keep_prediction: bool,
        allow_prediction_change: bool,
        promote: str,
    ) -> FitRow | None:
        """The newest fit that a client requested with these options."""
        statement = (
            select(fit)
            .where(
                fit.c.model == model,
                fit.c.version == version,
                fit.c.calibration_set == digest,
                fit.c.method == method,
                fit.c.keep_prediction == keep_prediction,
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
        """Calibrator document and warnings of a fit of the same rows and options."""
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
                fit.c.keep_prediction == of.keep_prediction,
                fit.c.allow_prediction_change == of.allow_prediction_change,
                fit.c.state == "done",
            )
            .order_by(fit.c.id.desc())
            .limit(1)
        )
        row = self._connection.execute(statement).first()
        return None if row is None else (row.document, row.warnings or [])


class PolicyFitTable:
    """Queries of the table ``fit`` for fits that the refit policy requested."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def triggered(self, model: str, trigger: str) -> int | None:
        """The id of the fit that a trigger led to."""
        statement = select(fit.c.id).where(fit.c.model == model, fit.c.trigger == trigger)
        return self._connection.execute(statement).scalar()

    def waiting(self) -> set[str]:
        """Models with a fit of the policy that waits or runs."""
        statement = select(fit.c.model).where(fit.c.trigger.is_not(None), fit.c.state.in_(WAITING))
        return set(self._connection.execute(statement).scalars())

    def promoted(self, model: str, *, since: float) -> int:
        """Number of the policy's fits promoted since a time."""
        statement = select(func.count()).where(
            fit.c.model == model,
            fit.c.trigger.is_not(None),
            fit.c.promoted,
            fit.c.finished_at >= since,
        )
        return int(self._connection.execute(statement).scalar_one())

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Number of the policy's ended fits, by (model, trigger, outcome).

        The trigger is ``alarm`` or ``rows``, the outcome ``promoted`` or one of `FitTable.counts`.
        """
        columns = (fit.c.model, fit.c.trigger, fit.c.state, fit.c.admitted, fit.c.promoted)
        statement = select(*columns, fit.c.held)
        found: dict[tuple[str, str, str], int] = {}
        for row in self._connection.execute(statement.where(fit.c.trigger.is_not(None))):
            if row.state in WAITING:
                continue
            outcome = "held" if row.held else "admitted" if row.admitted else "refused"
            outcome = row.state if row.state != "done" else "promoted" if row.promoted else outcome
            key = (row.model, row.trigger.partition(":")[0], outcome)
            found[key] = found.get(key, 0) + 1
        return found
