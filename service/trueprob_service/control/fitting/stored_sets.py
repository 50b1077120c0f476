"""Stored calibration sets, by digest and by name: add, append, fit, list and delete them.

A set's file is on disk before the transaction that records it commits, so a set that was
acknowledged survives a crash. Deleting a set removes it from the database only; the clean-up job
removes the file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set
from trueprob.arrays.class_names import shown
from trueprob.findings.set_check import check_set
from trueprob_service.control.fitting.queue import find_or_add_fit
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.fitting.runner import FitRunner
from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.schemas.fits import CalibrationSetSummary
from trueprob_service.control.schemas.lists import Items, Page, split
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.errors import (
    BodyTooLarge,
    CalibrationSetNotFound,
    Conflict,
    InvalidRequest,
    ModelNotFound,
    Unavailable,
)
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.settings import Settings

__all__ = [
    "ROWS_NOT_FOUND",
    "StoredSets",
    "concatenate_sets",
    "contains_rows",
    "find_set",
    "lock_version",
]


ROWS_NOT_FOUND: Final = "the rows of this set are not on this host, nor at another artifact_url"
_DIGEST_BYTES: Final = 16  # of one row
# Attempts of an append: the set is read again if another request appended to it meanwhile.
_ATTEMPTS: Final = 20


class StoredSets:
    """The calibration sets of all models."""

    def __init__(
        self,
        store: Store,
        set_files: SetFiles,
        runner: FitRunner,
        *,
        settings: Settings,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._set_files = set_files
        self._runner = runner
        self._settings = settings
        self._clock = clock

    def accept(
        self, served: ServedVersion, rows: CalibrationSet, request: FitRequest
    ) -> tuple[int, Future[None]]:
        """Store a set and queue its fit, unless the same fit exists.

        Returns the fit's id and a future that is done when the fit ends. Raises `InvalidRequest`
        for too few rows.
        """
        self._require_rows(rows.n, request)
        size_bytes = self._set_files.keep(rows)
        with self._store.write() as transaction:
            lock_version(transaction, served)
            if request.trigger is not None:
                earlier = transaction.policy_fits.triggered(served.model, request.trigger)
                if earlier is not None:
                    return earlier, self._runner.submit(earlier)
            self._add(transaction, served, rows, size_bytes, name=request.name, by=request.by)
            fit_id = self._fit(transaction, served, rows.digest, request)
        self._set_files.keep(rows)  # the clean-up job may have removed it meanwhile
        return fit_id, self._runner.submit(fit_id)

    def fit(
        self, served: ServedVersion, digest_or_name: str, request: FitRequest
    ) -> tuple[int, Future[None]]:
        """Queue a fit of a stored set; otherwise like `accept`."""
        model = served.model
        with self._store.write() as transaction:
            lock_version(transaction, served)
            row = find_set(transaction, model, digest_or_name)
            _require_classes(row, served)
            self._require_rows(row.n_rows, request)
            fit_id = self._fit(transaction, served, row.digest, request)
        return fit_id, self._runner.submit(fit_id)

    def append(
        self, served: ServedVersion, name: str, rows: CalibrationSet, *, by: str | None
    ) -> CalibrationSetRow:
        """Append rows to the set of this name, or make the set of the first rows.

        The name then refers to the new, longer set. Rows that the set contains already, as a whole
        and in order, are not appended again: an earlier attempt of the same request added them.

        Raises `InvalidRequest` if the rows do not fit those of the set, `BodyTooLarge` if the set
        would be larger than an upload may be, and `Conflict` if too many requests append to it at
        the same time.
        """
        model = served.model
        for _ in range(_ATTEMPTS):
            with self._store.read() as transaction:
                base = transaction.calibration_sets.get(model, name)
            combined = rows
            if base is not None:
                _require_classes(base, served)
                stored = self._rows(base)
                combined = concatenate_sets(stored, rows)
                if contains_rows(stored, rows):
                    return base
            size = combined.logits.nbytes + combined.labels.nbytes
            if size > self._settings.max_upload_bytes:
                raise BodyTooLarge(
                    f"set {name!r} must have at most {self._settings.max_upload_bytes} bytes, "
                    f"with these rows it would have {size}"
                )
            size_bytes = self._set_files.keep(combined)
            with self._store.write() as transaction:
                lock_version(transaction, served)
                current = transaction.calibration_sets.get(model, name)
                if (current and current.digest) != (base and base.digest):
                    continue
                self._add(transaction, served, combined, size_bytes, name=name, by=by)
                if base is not None and base.digest != combined.digest:
                    self._delete_if_unused(transaction, base)
                row = find_set(transaction, model, combined.digest)
            self._set_files.keep(combined)  # the clean-up job may have removed it meanwhile
            return row
        raise Conflict(f"too many requests append to set {name!r} at the same time: try again")

    def delete(self, model: str, digest_or_name: str) -> None:
        """Delete a set and its names; raises `Conflict` while a fit on it has not ended."""
        with self._store.write() as transaction:
            transaction.models.lock(model)
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            row = find_set(transaction, model, digest_or_name)
            waiting = transaction.fits.n_unfinished(model, row.digest)
            if waiting:
                raise Conflict(f"{waiting} fits on this set have not ended: cancel them, or wait")
            now = self._clock()
            transaction.calibration_sets.delete(model, row.digest, now=now)
            detail = {"set": row.digest, "rows": row.n_rows}
            transaction.audit.add("set.delete", model, now=now, detail=detail)

    def _require_rows(self, n: int, request: FitRequest) -> None:
        minimum = self._settings.min_calibration_rows
        if n < minimum and not request.force:
            raise InvalidRequest(
                f"labels must have at least {minimum} rows for a fit that can be judged, "
                f"got {n}; ?force=true fits them anyway"
            )

    def _rows(self, row: CalibrationSetRow) -> CalibrationSet:
        path = self._set_files.find(row.digest)
        if path is None:
            raise Unavailable(ROWS_NOT_FOUND)
        return load_calibration_set(path, n_classes=row.n_classes)

    def _add(
        self,
        transaction: Transaction,
        served: ServedVersion,
        rows: CalibrationSet,
        size_bytes: int,
        *,
        name: str | None,
        by: str | None,
    ) -> None:
        now, sets = self._clock(), transaction.calibration_sets
        detail = {"set": rows.digest, "name": name, "rows": rows.n}
        named = None if name is None else sets.get(served.model, name)
        if sets.get(served.model, rows.digest) is None:
            transaction.audit.add("set.add", served.model, now=now, detail=detail)
        elif name is not None and (named is None or named.digest != rows.digest):
            transaction.audit.add("set.name", served.model, now=now, detail=detail)
        sets.add(
            served.model,
            rows.digest,
            n_rows=rows.n,
            class_names=served.class_names,
            size_bytes=size_bytes,
            row_digests=rows.row_digests.tobytes(),
            created_by=by,
            now=now,
        )
        if name is not None:
            sets.name(served.model, name, rows.digest, now=now)

    def _delete_if_unused(self, transaction: Transaction, row: CalibrationSetRow) -> None:
        """Delete a set that was appended to, unless it has another name or a fit."""
        named = row.digest in transaction.calibration_sets.names(row.model)
        if not named and not transaction.fits.exist_for(row.model, row.digest):
            now = self._clock()
            transaction.calibration_sets.delete(row.model, row.digest, now=now)
            detail = {"set": row.digest, "rows": row.n_rows, "appended_to": True}
            transaction.audit.add("set.delete", row.model, now=now, detail=detail)

    def _fit(
        self, transaction: Transaction, served: ServedVersion, digest: str, request: FitRequest
    ) -> int:
        now, settings = self._clock(), self._settings
        fit_id = find_or_add_fit(transaction, served, digest, request, settings=settings, now=now)
        self._runner.remember(fit_id)
        return fit_id

    def page(
        self,
        model: str,
        page: Page,
        *,
        name: str | None,  # only the set that has this name
    ) -> Items[CalibrationSetSummary]:
        """A page of the model's sets."""
        with self._store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            sets = transaction.calibration_sets
            if name is not None:
                named = sets.get(model, name)
                found = [] if named is None else [named]
            else:
                found = sets.page(model, before=page.before, limit=page.limit + 1)
            rows, cursor = split(found, page, lambda row: row.id)
            names = sets.names(model)
        items = [CalibrationSetSummary.from_row(row, names.get(row.digest, ())) for row in rows]
        return Items(items=items, next=cursor)

    def get(self, model: str, digest_or_name: str) -> CalibrationSetSummary:
        """The set of a digest or name, as `describe`."""
        with self._store.read() as transaction:
            row = find_set(transaction, model, digest_or_name)
        return self.describe(row)

    def describe(self, row: CalibrationSetRow) -> CalibrationSetSummary:
        """A stored set with its names and findings; without findings if its rows are elsewhere."""
        with self._store.read() as transaction:
            names = transaction.calibration_sets.names(row.model)
        try:
            findings = check_set(self._rows(row))
        except Unavailable:
            findings = None
        return CalibrationSetSummary.from_row(row, names.get(row.digest, ()), findings)

    def file(self, model: str, digest_or_name: str) -> Path:
        """The `.npz` of a set, on this host, for a download that the audit trail then tells of.

        Raises `Unavailable` if it is neither here nor at `artifact_url`.
        """
        with self._store.read() as transaction:
            row = find_set(transaction, model, digest_or_name)
        path = self._set_files.find(row.digest)
        if path is None:
            raise Unavailable(ROWS_NOT_FOUND)
        detail = {"set": row.digest, "rows": row.n_rows}
        with self._store.write() as transaction:
            transaction.audit.add("set.download", model, now=self._clock(), detail=detail)
        return path


def find_set(transaction: Transaction, model: str, digest_or_name: str) -> CalibrationSetRow:
    """A stored set of a model; raises `CalibrationSetNotFound`."""
    row = transaction.calibration_sets.get(model, digest_or_name)
    if row is None:
        raise CalibrationSetNotFound(f"model {model!r} has no calibration set {digest_or_name!r}")
    return row


def lock_version(transaction: Transaction, served: ServedVersion) -> None:
    """Lock the model of a version; raises `ModelNotFound` if it was deleted or replaced since."""
    transaction.models.lock(served.model)
    current = transaction.models.version(served.model, served.version)
    if current is None or current.class_names != served.class_names:
        raise ModelNotFound(f"model {served.model!r} was just deleted")


def _require_classes(row: CalibrationSetRow, served: ServedVersion) -> None:
    """Raise `Conflict` unless the columns of a set are the classes of a version, in order."""
    if row.class_names is None and row.n_classes != served.n_classes:
        raise Conflict(
            f"the set has {row.n_classes} classes, version {served.version} has {served.n_classes}"
        )
    if row.class_names is not None and tuple(row.class_names) != served.class_names:
        raise Conflict(
            f"the set has the classes {shown(row.class_names)}, version {served.version} has "
            f"{shown(served.class_names)}: send the rows for this version"
        )


def concatenate_sets(first: CalibrationSet, second: CalibrationSet) -> CalibrationSet:
    """The rows of one set followed by those of another.

    Raises `InvalidRequest` if only one of them has weights, or groups, or if the groups of one are
    integers and those of the other are texts.
    """
    optional: dict[str, NDArray[Any] | None] = {}
    for name in ("weights", "groups"):
        left, right = getattr(first, name), getattr(second, name)
        if (left is None) != (right is None):
            has = "has" if right is None else "has no"
            raise InvalidRequest(
                f"{name} must come with every row or with none: the set {has} {name}"
            )
        if left is not None and (left.dtype.kind == "U") != (right.dtype.kind == "U"):
            raise InvalidRequest("groups must be integers or texts, as those of the set are")
        optional[name] = None if left is None else np.concatenate([left, right])
    return CalibrationSet(
        np.concatenate([first.logits, second.logits]),
        np.concatenate([first.labels, second.labels]),
        optional["weights"],
        optional["groups"],
    )


def contains_rows(outer: CalibrationSet, inner: CalibrationSet) -> bool:
    """Whether a set contains all rows of another in one run, with equal weights and groups.

    Both sets have weights, or neither does; the same for groups.
    """
    rows, wanted = outer.row_digests.tobytes(), inner.row_digests.tobytes()
    position = rows.find(wanted)
    while position >= 0:
        start, remainder = divmod(position, _DIGEST_BYTES)
        if remainder == 0 and _same_weights_and_groups(outer, inner, start):
            return True
        position = rows.find(wanted, position + 1)
    return False


def _same_weights_and_groups(outer: CalibrationSet, inner: CalibrationSet, start: int) -> bool:
    """Whether weights and groups, from a row on, equal those of the other set."""
    stop = start + inner.n
    pairs = ((outer.weights, inner.weights), (outer.groups, inner.groups))
    return all(
        left is None or right is None or np.array_equal(left[start:stop], right)
        for left, right in pairs
    )
