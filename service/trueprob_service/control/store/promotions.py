"""The history of what was live: append-only, one row a revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, insert, select
from sqlalchemy import Row as SqlRow

from trueprob_service.control.store.tables import calibrator, model, promotion

__all__ = ["PromotionRow", "Promotions"]

_OF_MODEL: Final = select(promotion).where(promotion.c.model == bindparam("model"))
_NEWEST: Final = _OF_MODEL.order_by(promotion.c.revision.desc()).limit(1)
_NUMBERED: Final = _OF_MODEL.where(promotion.c.revision == bindparam("revision"))


@dataclass(frozen=True)
class PromotionRow:
    """A revision of a model's live pair."""

    model: str
    revision: int
    version: int
    calibrator: str
    cause: str  # `factory`, `admitted`, `forced`, `shadow` or `rollback`
    # of a rollback: the revision whose pair it put back, itself never a rollback
    restores: int | None
    fit: int | None  # the fit that promoted it
    promoted_by: str | None  # id of the API key
    promoted_at: float


class Promotions:
    """The table ``promotion``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def any_revision(self) -> int:
        """The highest revision of any model, 0 without one: the cheapest question there is."""
        return self._connection.execute(select(func.max(promotion.c.revision))).scalar() or 0

    def revisions(self) -> dict[str, tuple[int, int]]:
        """Of each model its row's id and its live revision, in one query."""
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
        """Newest first, from below a revision."""
        statement = (
            select(promotion)
            .where(promotion.c.model == model)
            .order_by(promotion.c.revision.desc())
            .limit(limit)
        )
        if before is not None:
            statement = statement.where(promotion.c.revision < before)
        return [PromotionRow(**row._mapping) for row in self._connection.execute(statement)]

    def all(self) -> list[PromotionRow]:
        """Every revision of every model, by model and rising revision."""
        statement = select(promotion).order_by(promotion.c.model, promotion.c.revision)
        return [PromotionRow(**row._mapping) for row in self._connection.execute(statement)]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Promotions ever, by (model, kind of calibrator, cause)."""
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
