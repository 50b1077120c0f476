"""The refit window: the newest labelled rows of a version, as one calibration set.

The rows arrive in labels requests (`trueprob_service.control.labels.by_row`). The window holds
``REFIT_WINDOW_ROWS`` of them, or fewer if such a set would be larger than an upload may be.
"""

from __future__ import annotations

import numpy as np

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.labelled_rows import StoredLabelledRow
from trueprob_service.settings import Settings

__all__ = ["RefitWindow"]

_LABEL_BYTES = 8  # int64, as in a calibration set


class RefitWindow:
    """The refit windows of all models."""

    def __init__(self, store: Store, *, settings: Settings) -> None:
        self._store = store
        self._rows = settings.refit_window_rows
        self._bytes = settings.max_upload_bytes

    def cap(self, n_classes: int) -> int:
        """Largest number of rows in a window, for a model with this many classes."""
        return max(1, min(self._rows, self._bytes // (4 * n_classes + _LABEL_BYTES)))

    def size(self, model: str, version: int) -> tuple[int, int]:
        """Number of rows in the window, and of all rows ever added to it."""
        with self._store.read() as transaction:
            return transaction.labelled_rows.count(model, version)

    def read(self, model: str, version: int) -> CalibrationSet | None:
        """The window as a calibration set, rows in order of arrival; None while it is empty.

        ``groups`` is None when no row has a group.
        """
        with self._store.read() as transaction:
            row = transaction.models.version(model, version)
            if row is None:
                return None
            cap = self.cap(len(row.class_names))
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
        """Add new rows to the window, in the transaction that counts them."""
        cap = self.cap(n_classes)
        transaction.labelled_rows.add(model, version, rows, cap=cap, now=now)


def calibration_set(rows: list[StoredLabelledRow]) -> CalibrationSet:
    """Rows of one version as a calibration set.

    Groups are numbered in the order of their first rows, so that equal rows have an equal digest.
    """
    logits = np.frombuffer(b"".join(row.logits for row in rows), "<f4").reshape(len(rows), -1)
    labels = np.array([row.label for row in rows], np.int64)
    groups = None
    if any(row.row_group is not None for row in rows):
        numbers: dict[object, int] = {}
        # A row without a group is a group of its own, named by its key (bytes, so never a group).
        names = (row.row_key if row.row_group is None else row.row_group for row in rows)
        groups = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    return CalibrationSet(np.ascontiguousarray(logits, np.float32), labels, None, groups)
