"""Checked rows into the store: kept once by digest, named, appended to, deleted, fitted.

A set's file is on disk before the transaction that knows it commits, so what was acknowledged
survives a crash. Deleting a set forgets it in the database; the sweep removes the file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set
from trueprob_service.control.appended_rows import holds, joined
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.fitting.requested_fit import requested_fit
from trueprob_service.control.fitting.runner import Refits
from trueprob_service.control.fitting.set_files import Artifacts
from trueprob_service.control.known_sets import known_set, lock_version
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.errors import (
    BodyTooLarge,
    Conflict,
    InvalidRequest,
    ModelNotFound,
    Unavailable,
)
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.settings import Settings

__all__ = ["NO_ROWS", "StoredSets"]

NO_ROWS: Final = "the rows of this set are not on this host, nor at another artifact_url"
# Appends to one name at the same time: each but the first reads the set anew.
_ATTEMPTS: Final = 20


class StoredSets:
    """The sets of every model."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        refits: Refits,
        *,
        settings: Settings,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._refits = refits
        self._settings = settings
        self._clock = clock

    def accept(
        self, served: ServedVersion, rows: CalibrationSet, request: FitRequest
    ) -> tuple[int, Future[None]]:
        """Keep a set and see to its fit; the fit's id, and a future that is done when it ends.

        Raises `InvalidRequest`: too few rows.
        """
        self._require_rows(rows.n, request)
        size_bytes = self._artifacts.keep(rows)
        with self._store.write() as transaction:
            lock_version(transaction, served)
            if request.trigger is not None:
                known = transaction.policy_fits.triggered(served.model, request.trigger)
                if known is not None:
                    return known, self._refits.submit(known)
            self._add(transaction, served, rows, size_bytes, by=request.by)
            if request.name is not None:
                sets = transaction.calibration_sets
                sets.name(served.model, request.name, rows.digest, now=self._clock())
            fit_id = self._fit(transaction, served, rows.digest, request)
        self._artifacts.keep(rows)  # a sweep may have come between
        return fit_id, self._refits.submit(fit_id)

    def fit(
        self, served: ServedVersion, digest_or_name: str, request: FitRequest
    ) -> tuple[int, Future[None]]:
        """See to a fit of a stored set; as `accept`."""
        model = served.model
        with self._store.write() as transaction:
            lock_version(transaction, served)
            row = known_set(transaction, model, digest_or_name)
            if row.n_classes != served.n_classes:
                raise Conflict(
                    f"the set has {row.n_classes} classes, version {served.version} has "
                    f"{served.n_classes}"
                )
            self._require_rows(row.n_rows, request)
            fit_id = self._fit(transaction, served, row.digest, request)
        return fit_id, self._refits.submit(fit_id)

    def append(
        self, served: ServedVersion, name: str, rows: CalibrationSet, *, by: str | None
    ) -> CalibrationSetRow:
        """Let a name mean its set with these rows after it; the first ones make it.

        Rows that an earlier request has appended are not appended again.

        Raises `InvalidRequest`: the rows do not go together with those that are there. Raises
        `BodyTooLarge`: the set would be larger than an upload may be. Raises `Conflict`: too many
        others append to it at the same time.
        """
        model = served.model
        for _ in range(_ATTEMPTS):
            with self._store.read() as transaction:
                base = transaction.calibration_sets.get(model, name)
            whole = rows
            if base is not None:
                known = self._rows(base)
                whole = joined(known, rows)
                if holds(known, rows):
                    return base
            size = whole.logits.nbytes + whole.labels.nbytes
            if size > self._settings.max_upload_bytes:
                raise BodyTooLarge(
                    f"set {name!r} would have {size} bytes, at most "
                    f"{self._settings.max_upload_bytes} are kept"
                )
            size_bytes = self._artifacts.keep(whole)
            with self._store.write() as transaction:
                lock_version(transaction, served)
                now_base = transaction.calibration_sets.get(model, name)
                if (now_base and now_base.digest) != (base and base.digest):
                    continue
                self._add(transaction, served, whole, size_bytes, by=by)
                transaction.calibration_sets.name(model, name, whole.digest, now=self._clock())
                if base is not None and base.digest != whole.digest:
                    self._let_go(transaction, base)
                row = known_set(transaction, model, whole.digest)
            self._artifacts.keep(whole)  # a sweep may have come between
            return row
        raise Conflict(f"set {name!r} is being appended to by many at the same time: try again")

    def delete(self, model: str, digest_or_name: str) -> None:
        """Forget a set and its names.

        Raises `Conflict`: a fit on it has not ended.
        """
        with self._store.write() as transaction:
            transaction.models.lock(model)
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            row = known_set(transaction, model, digest_or_name)
            waiting = transaction.fits.using(model, row.digest)
            if waiting:
                raise Conflict(f"{waiting} fits on this set have not ended: cancel them, or wait")
            transaction.calibration_sets.delete(model, row.digest, now=self._clock())

    def _require_rows(self, n: int, request: FitRequest) -> None:
        least = self._settings.min_calibration_rows
        if n < least and not request.force:
            raise InvalidRequest(
                f"labels must have at least {least} rows for a fit that can be judged, "
                f"got {n}; ?force=true fits them all the same"
            )

    def _rows(self, row: CalibrationSetRow) -> CalibrationSet:
        path = self._artifacts.find(row.digest)
        if path is None:
            raise Unavailable(NO_ROWS)
        return load_calibration_set(path, n_classes=row.n_classes)

    def _add(
        self,
        transaction: Transaction,
        served: ServedVersion,
        rows: CalibrationSet,
        size_bytes: int,
        *,
        by: str | None,
    ) -> None:
        transaction.calibration_sets.add(
            served.model,
            rows.digest,
            n_rows=rows.n,
            n_classes=served.n_classes,
            size_bytes=size_bytes,
            row_digests=rows.row_digests.tobytes(),
            created_by=by,
            now=self._clock(),
        )

    def _let_go(self, transaction: Transaction, row: CalibrationSetRow) -> None:
        """Forget a set that was appended to, when nothing else means it."""
        named = row.digest in transaction.calibration_sets.names(row.model)
        if not named and not transaction.fits.ever(row.model, row.digest):
            transaction.calibration_sets.delete(row.model, row.digest, now=self._clock())

    def _fit(
        self, transaction: Transaction, served: ServedVersion, digest: str, request: FitRequest
    ) -> int:
        now, settings = self._clock(), self._settings
        return requested_fit(transaction, served, digest, request, settings=settings, now=now)
