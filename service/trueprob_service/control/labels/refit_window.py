"""The newest labelled rows of a version, as one calibration set that can be fitted.

Rows come with labels sent as rows (`trueprob_service.control.labels.by_row`). The ring holds
``REFIT_WINDOW_ROWS`` of them, fewer where a set of that many would be larger than an upload may be.
"""

from __future__ import annotations

import numpy as np

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.labelled_rows import StoredLabelledRow
from trueprob_service.settings import Settings

__all__ = ["RefitWindow"]

_LABEL_BYTES = 8  # int64, as a calibration set has it


class RefitWindow:
    """The refit windows of every model."""

    def __init__(self, store: Store, *, settings: Settings) -> None:
        self._store = store
        self._rows = settings.refit_window_rows
        self._bytes = settings.max_upload_bytes

    def cap(self, n_classes: int) -> int:
        """How many rows a window of so many classes holds."""
        return max(1, min(self._rows, self._bytes // (4 * n_classes + _LABEL_BYTES)))

    def size(self, model: str, version: int) -> tuple[int, int]:
        """How many rows the window has, and how many ever came into it.

        The second number only rises: a policy that wants to refit after so many new rows keeps
        the one that it saw.
        """
        with self._store.read() as transaction:
            return transaction.labelled_rows.count(model, version)

    def read(self, model: str, version: int) -> CalibrationSet | None:
        """The window as a calibration set; None while it is empty.

        Returns: ``logits``, ``labels``, ``groups`` (None when no row came with one) in the order
        in which the rows came; ``digest`` names exactly these rows.
        """
        with self._store.read() as transaction:
            known = transaction.models.version(model, version)
            if known is None:
                return None
            cap = self.cap(len(known.class_names))
            rows = transaction.labelled_rows.newest(model, version, cap=cap)
        return calibration_set(rows) if rows else None

    def add(
        self,
        transaction: Transaction,
        model: str,
        version: int,
        rows: list[StoredLabelledRow],
        *,
        n_classes: int,
        now: float,
    ) -> None:
        """Put new rows into the window, in the transaction that counts them."""
        cap = self.cap(n_classes)
        transaction.labelled_rows.add(model, version, rows, cap=cap, now=now)


def calibration_set(rows: list[StoredLabelledRow]) -> CalibrationSet:
    """Rows of one version as a set.

    Returns: groups are numbered in the order of their first rows, so that the same rows have the
    same digest.
    """
    logits = np.frombuffer(b"".join(row.logits for row in rows), "<f4").reshape(len(rows), -1)
    labels = np.array([row.label for row in rows], np.int64)
    groups = None
    if any(row.row_group is not None for row in rows):
        numbers: dict[object, int] = {}
        # A row without a group has one of its own: its key is no other row's, and is no number.
        names = (row.row_key if row.row_group is None else row.row_group for row in rows)
        groups = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    return CalibrationSet(np.ascontiguousarray(logits, np.float32), labels, None, groups)
