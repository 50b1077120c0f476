"""Calibrators, and the promotions that made them live.

The table of promotions is append-only and has one row for each revision of a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, insert, select, update
from sqlalchemy import Row as SqlRow

from trueprob_service.control.store.tables import calibrator, insert_into, model, promotion

__all__ = [
    "LIVE_PAIRS",
    "RECENT_PAIRS",
    "CalibratorRow",
    "CalibratorTable",
    "PromotionRow",
    "PromotionTable",
]


@dataclass(frozen=True)
class CalibratorRow:
    """A calibrator of one (model, version)."""

    id: int  # rises with time; orders the list
    model: str
    version: int
    calibrator: str  # its id in the API: its kind and a digest of its parameters
    kind: str
    document: str  # `calibrator.json`
    origin: str  # `factory` or `fit`
    admitted: bool  # a factory calibrator, or one whose fit was admitted
    calibration_set: str | None  # digest of the stored set that it was fitted on
    created_at: float
    reverted: bool = False  # labels sent it back after a promotion: only force promotes it again


class CalibratorTable:
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
        """Add a calibrator; an existing one with its id stays, and is admitted if this one is.

        One that was reverted is not admitted again.
        """
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
        """Mark a calibrator as admitted (promoted without force), unless it was reverted."""
        one = _calibrator(model, version, calibrator_id)
        unless_reverted = update(calibrator).where(one, ~calibrator.c.reverted)
        self._connection.execute(unless_reverted.values(admitted=True))

    def revert(self, model: str, version: int, calibrator_id: str) -> None:
        """Mark a calibrator as reverted: from now on only force promotes it."""
        one = _calibrator(model, version, calibrator_id)
        self._connection.execute(
            update(calibrator).where(one).values(admitted=False, reverted=True)
        )

    def get(self, model: str, version: int, calibrator_id: str) -> CalibratorRow | None:
        """The calibrator of a version with this id, if any."""
        one = _calibrator(model, version, calibrator_id)
        row = self._connection.execute(select(calibrator).where(one)).first()
        return None if row is None else CalibratorRow(**row._mapping)

    def versions_with(self, model: str, calibrator_id: str) -> list[int]:
        """Versions of a model with a calibrator of this id, highest first."""
        statement = (
            select(calibrator.c.version)
            .where(calibrator.c.model == model, calibrator.c.calibrator == calibrator_id)
            .order_by(calibrator.c.version.desc())
        )
        return list(self._connection.execute(statement).scalars())

    def page(
        self, model: str, *, version: int | None, before: int | None, limit: int
    ) -> list[CalibratorRow]:
        """A page of calibrators below an id, newest first; of all versions if none is given."""
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


def _calibrator(model: str, version: int, calibrator_id: str) -> ColumnElement[bool]:
    of_version = (calibrator.c.model == model) & (calibrator.c.version == version)
    return of_version & (calibrator.c.calibrator == calibrator_id)


_OF_MODEL: Final = select(promotion).where(promotion.c.model == bindparam("model"))
_NEWEST: Final = _OF_MODEL.order_by(promotion.c.revision.desc()).limit(1)
_NUMBERED: Final = _OF_MODEL.where(promotion.c.revision == bindparam("revision"))
_AFTER: Final = promotion.alias("after")
# Pairs that are live, or were replaced since a moment.
RECENT_PAIRS: Final = (
    select(
        promotion.c.model,
        promotion.c.version,
        promotion.c.calibrator,
        func.max(case((_AFTER.c.revision.is_(None), 1), else_=0)).label("live"),
    )
    .outerjoin(
        _AFTER,
        (_AFTER.c.model == promotion.c.model) & (_AFTER.c.revision == promotion.c.revision + 1),
    )
    .where(_AFTER.c.revision.is_(None) | (_AFTER.c.promoted_at >= bindparam("replaced_since")))
    .group_by(promotion.c.model, promotion.c.version, promotion.c.calibrator)
)


_LAST: Final = (
    select(promotion.c.model, func.max(promotion.c.revision).label("revision"))
    .group_by(promotion.c.model)
    .subquery()
)
LIVE_PAIRS: Final = select(promotion.c.model, promotion.c.version, promotion.c.calibrator).join(
    _LAST, (_LAST.c.model == promotion.c.model) & (_LAST.c.revision == promotion.c.revision)
)


@dataclass(frozen=True)
class PromotionRow:
    """A revision of a model's live pair."""

    model: str
    revision: int
    version: int
    calibrator: str
    cause: str  # `factory`, `admitted`, `forced`, `shadow`, `rollback` or `reverted`
    # For `rollback` and `reverted`: the revision whose pair it restored, itself neither of them.
    restores: int | None
    fit: int | None  # the fit that promoted it
    promoted_by: str | None  # id of the API key
    promoted_at: float


class PromotionTable:
    """The table ``promotion``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def any_revision(self) -> int:
        """The highest revision of any model, 0 without models; a very cheap query."""
        return self._connection.execute(select(func.max(promotion.c.revision))).scalar() or 0

    def revisions(self) -> dict[str, tuple[int, int]]:
        """The id of each model's row and its live revision, by model, in one query."""
        statement = (
            select(model.c.name, model.c.id, func.max(promotion.c.revision))
            .join(promotion, promotion.c.model == model.c.name)
            .group_by(model.c.name, model.c.id)
        )
        return {
            name: (row, revision) for name, row, revision in self._connection.execute(statement)
        }

    def append(self, row: PromotionRow) -> None:
        """Add a revision. The caller holds the model's lock and has read the live one."""
        self._connection.execute(insert(promotion).values(**vars(row)))

    def live(self, model: str) -> PromotionRow | None:
        """The newest revision of a model."""
        return _one(self._connection.execute(_NEWEST, {"model": model}).first())

    def get(self, model: str, revision: int) -> PromotionRow | None:
        """One revision of a model."""
        key = {"model": model, "revision": revision}
        return _one(self._connection.execute(_NUMBERED, key).first())

    def last_of_version(self, model: str, version: int) -> PromotionRow | None:
        """The newest revision in which a version was live."""
        return _one(
            self._connection.execute(
                select(promotion)
                .where(promotion.c.model == model, promotion.c.version == version)
                .order_by(promotion.c.revision.desc())
                .limit(1)
            ).first()
        )

    def page(self, model: str, *, before: int | None, limit: int) -> list[PromotionRow]:
        """A page of a model's promotions below a revision, newest first."""
        statement = (
            select(promotion)
            .where(promotion.c.model == model)
            .order_by(promotion.c.revision.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.where(promotion.c.revision < before)
        return [PromotionRow(**row._mapping) for row in self._connection.execute(statement)]

    def pairs(self, *, replaced_since: float) -> dict[tuple[str, int, str], bool]:
        """Pairs that are live or were replaced since then, and whether each is live.

        By model, the live one first; databases return groups in any order.
        """
        rows = self._connection.execute(RECENT_PAIRS, {"replaced_since": replaced_since})
        return {
            (name, version, calibrator): bool(live)
            for name, live, version, calibrator in sorted(
                ((row[0], row[3], row[1], row[2]) for row in rows),
                key=lambda row: (row[0], -row[1], *row[2:]),
            )
        }

    def stamp(self) -> tuple[object, ...]:
        """Numbers that change with `counts`, and take less time."""
        columns = (func.count(), func.sum(promotion.c.revision), func.max(promotion.c.promoted_at))
        return tuple(self._connection.execute(select(*columns).select_from(promotion)).one())

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Number of promotions, by (model, kind of calibrator, cause)."""
        statement = (
            select(promotion.c.model, calibrator.c.kind, promotion.c.cause, func.count())
            .join(
                calibrator,
                (calibrator.c.model == promotion.c.model)
                & (calibrator.c.version == promotion.c.version)
                & (calibrator.c.calibrator == promotion.c.calibrator),
            )
            .group_by(promotion.c.model, calibrator.c.kind, promotion.c.cause)
        )
        return {
            (model, kind, cause): n for model, kind, cause, n in self._connection.execute(statement)
        }


def _one(row: SqlRow[tuple[object, ...]] | None) -> PromotionRow | None:
    return None if row is None else PromotionRow(**row._mapping)
