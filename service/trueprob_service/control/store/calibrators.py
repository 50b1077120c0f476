"""Calibrators: their documents, and whether they may go live without force."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from trueprob_service.control.store.insertion import insert_into
from trueprob_service.control.store.tables import calibrator

__all__ = ["CalibratorRow", "Calibrators"]


@dataclass(frozen=True)
class CalibratorRow:
    """A calibrator of one (model, version)."""

    id: int  # place in the list
    model: str
    version: int
    calibrator: str  # its id in the API: the kind and a digest of its parameters
    kind: str
    document: str  # `calibrator.json`
    origin: str  # `factory` or `fit`
    admitted: bool  # a factory calibrator, or one whose fit was admitted
    calibration_set: str | None  # digest of the stored set on which it was fitted
    created_at: float


class Calibrators:
    """The table ``calibrator``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        model: str,
        version: int,
        *,
        calibrator_id: str,
        kind: str,
        document: str,
        origin: str,
        admitted: bool,
        calibration_set: str | None,
        now: float,
    ) -> None:
        """Keep a calibrator; one with the same parameters stays, and may become admitted."""
        statement = (
            insert_into(self._connection, calibrator)
            .values(
                model=model,
                version=version,
                calibrator=calibrator_id,
                kind=kind,
                document=document,
                origin=origin,
                admitted=admitted,
                calibration_set=calibration_set,
                created_at=now,
            )
            .on_conflict_do_nothing()
            .returning(calibrator.c.id)
        )
        is_new = self._connection.execute(statement).first() is not None
        if not is_new and admitted:
            self.admit(model, version, calibrator_id)

    def admit(self, model: str, version: int, calibrator_id: str) -> None:
        """Let a calibrator go live without force from now on."""
        self._connection.execute(
            update(calibrator)
            .where(
                calibrator.c.model == model,
                calibrator.c.version == version,
                calibrator.c.calibrator == calibrator_id,
            )
            .values(admitted=True)
        )

    def get(self, model: str, version: int, calibrator_id: str) -> CalibratorRow | None:
        """The calibrator of a version with this id."""
        row = self._connection.execute(
            select(calibrator).where(
                calibrator.c.model == model,
                calibrator.c.version == version,
                calibrator.c.calibrator == calibrator_id,
            )
        ).first()
        return None if row is None else CalibratorRow(**row._mapping)

    def versions_with(self, model: str, calibrator_id: str) -> list[int]:
        """Versions of a model that have a calibrator of this id."""
        statement = (
            select(calibrator.c.version)
            .where(calibrator.c.model == model, calibrator.c.calibrator == calibrator_id)
            .order_by(calibrator.c.version.desc())
        )
        return list(self._connection.execute(statement).scalars())

    def page(
        self, model: str, *, version: int | None, before: int | None, limit: int
    ) -> list[CalibratorRow]:
        """Newest first, from below an id; of every version when none is named."""
        statement = (
            select(calibrator)
            .where(calibrator.c.model == model)
            .order_by(calibrator.c.id.desc())
            .limit(limit)
        )
        if version is not None:
            statement = statement.where(calibrator.c.version == version)
        if before is not None:
            statement = statement.where(calibrator.c.id < before)
        return [CalibratorRow(**row._mapping) for row in self._connection.execute(statement)]
