"""Fits: what was asked for, where it stands, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, case, func, insert, select, update

from service.control.store.tables import fit

__all__ = ["ENDED", "FitRow", "Fits"]

WAITING: Final = ("queued", "running")
ENDED: Final = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class FitRow:
    """A fit of one method on one calibration set.

    Attributes
    ----------
    promote : str
        ``auto``, ``never`` or ``always``.
    state : str
        ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
    attempts : int
        How often it was begun.
    verdict, scores : dict or None
        As in the report, once done.
    promoted : bool
    revision : int or None
        Of its promotion.
    error : str or None
        One sentence, when failed.
    """

    id: int
    model: str
    version: int
    calibration_set: str
    method: str
    promote: str
    state: str
    attempts: int
    created_at: float
    created_by: str | None
    started_at: float | None
    finished_at: float | None
    seconds: float | None
    verdict: dict[str, Any] | None
    scores: dict[str, Any] | None
    calibrator: str | None
    admitted: bool | None
    promoted: bool
    revision: int | None
    error: str | None


class Fits:
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
        created_by: str | None,
        now: float,
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
                state="queued",
                attempts=0,
                promoted=False,
                created_by=created_by,
                created_at=now,
            )
            .returning(fit.c.id)
        )
        return int(self._connection.execute(statement).scalar_one())

    def begin(self, fit_id: int, *, now: float) -> bool:
        """Mark a waiting fit as running; False when it has ended meanwhile."""
        statement = (
            update(fit)
            .where(fit.c.id == fit_id, fit.c.state.in_(WAITING))
            .values(state="running", started_at=now, attempts=fit.c.attempts + 1)
            .returning(fit.c.id)
        )
        return self._connection.execute(statement).first() is not None

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

    def unfinished(self) -> list[int]:
        """Ids of fits that wait or were interrupted, oldest first."""
        statement = select(fit.c.id).where(fit.c.state.in_(WAITING)).order_by(fit.c.id)
        return list(self._connection.execute(statement).scalars())

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
