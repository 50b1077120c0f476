"""Binned label statistics: by hour for windows, and running totals that never fall."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sqlalchemy import Connection, Table, delete, func, select

from trueprob.scores.binned import N_BINS, BinnedCalibration
from trueprob_service.control.store.insertion import upsert
from trueprob_service.control.store.tables import bin_running, bin_total, model, promotion

__all__ = ["Bins"]

_SUMS = ("count", "confidence", "correct", "variance")


class Bins:
    """The tables ``bin_total`` and ``bin_running``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        model: str,
        revision: int,
        *,
        version: int,
        calibrator: str,
        hour: int,
        new: BinnedCalibration,
    ) -> None:
        """Add the statistics of newly counted labels to one promotion and its pair."""
        self._add(bin_total, {"model": model, "revision": revision, "hour": hour}, new)
        self._add(bin_running, {"model": model, "version": version, "calibrator": calibrator}, new)

    def _add(self, table: Table, key: dict[str, object], new: BinnedCalibration) -> None:
        sums = {name: getattr(new, name) for name in _SUMS}
        rows = [
            {**key, "bin": int(index), **{name: float(sums[name][index]) for name in _SUMS}}
            for index in np.flatnonzero(new.count)
        ]
        if not rows:
            return
        self._connection.execute(upsert(self._connection, table, adds=True), rows)

    def roll_up(self, *, before_hour: int, limit: int) -> int:
        """Add hours before this one to the first of their day; how many rows went.

        The models' locks are taken here, in the order of names.
        """
        table = bin_total
        old = (
            select(table)
            .where(table.c.hour < before_hour, table.c.hour % 24 != 0)
            .order_by(table.c.model, table.c.revision, table.c.hour, table.c.bin)
            .limit(limit)
        )
        names = sorted({row.model for row in self._connection.execute(old)})
        for name in names:
            lock = select(model.c.id).where(model.c.name == name).with_for_update()
            self._connection.execute(lock)
        rows = [row for row in self._connection.execute(old) if row.model in names]
        for row in rows:
            values = dict(row._mapping)
            key = [table.c[name] == values[name] for name in ("model", "revision", "hour", "bin")]
            self._connection.execute(delete(table).where(*key))
            first_hour = {**values, "hour": row.hour - row.hour % 24}
            self._connection.execute(upsert(self._connection, table, adds=True), first_hour)
        return len(rows)

    def running(self) -> dict[tuple[str, int, str], BinnedCalibration]:
        """Totals of every (model, version, calibrator) that has labels."""
        rows = self._connection.execute(
            select(
                bin_running.c.model,
                bin_running.c.version,
                bin_running.c.calibrator,
                bin_running.c.bin,
                *(bin_running.c[name] for name in _SUMS),
            )
        )
        grouped: dict[tuple[str, int, str], list[tuple[float, ...]]] = {}
        for name, version, calibrator, *sums in rows:
            grouped.setdefault((name, version, calibrator), []).append(tuple(sums))
        return {pair: _binned(bins) for pair, bins in grouped.items()}

    def since(self, model: str, *, version: int, calibrator: str, hour: int) -> BinnedCalibration:
        """Statistics of a pair's labels that came in or after an hour, over its promotions."""
        statement = (
            select(bin_total.c.bin, *(func.sum(bin_total.c[name]) for name in _SUMS))
            .join(
                promotion,
                (promotion.c.model == bin_total.c.model)
                & (promotion.c.revision == bin_total.c.revision),
            )
            .where(
                bin_total.c.model == model,
                bin_total.c.hour >= hour,
                promotion.c.version == version,
                promotion.c.calibrator == calibrator,
            )
            .group_by(bin_total.c.bin)
        )
        return _binned(tuple(row) for row in self._connection.execute(statement))


def _binned(rows: Iterable[tuple[float, ...]]) -> BinnedCalibration:
    sums = np.zeros((4, N_BINS))
    for index, *values in rows:
        sums[:, int(index)] = values
    count, confidence, correct, variance = sums
    return BinnedCalibration(count=count, confidence=confidence, correct=correct, variance=variance)
