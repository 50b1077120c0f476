"""Fits that were asked for before: of the same rows, in the same way."""

from __future__ import annotations

from sqlalchemy import Connection, select

from trueprob_service.control.store.fits import FitRow
from trueprob_service.control.store.tables import calibrator, fit

__all__ = ["EarlierFits"]


class EarlierFits:
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
