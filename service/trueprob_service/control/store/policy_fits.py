"""Fits that the refit policy asked for: the rows of ``fit`` that have a trigger."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from trueprob_service.control.store.fits import WAITING
from trueprob_service.control.store.tables import fit

__all__ = ["PolicyFits"]


class PolicyFits:
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

        The trigger is ``alarm`` or ``rows``; the outcome ``promoted``, or as of `Fits.counts`.
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
