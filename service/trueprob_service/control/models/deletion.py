"""Deleting a model: everything that the database knows of it, in one transaction.

Fits that wait or run end with it; a running one is stopped when it next extends its lease. The
sweep removes the files of its sets. Other processes stop answering for the model when they next
look. Labels of its predictions are for nobody any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from trueprob.repository.model_repository import ModelRepository
from trueprob_service.control.fitting.runner import FitRunner
from trueprob_service.control.models.other_replicas import Following
from trueprob_service.control.models.promotion import locked
from trueprob_service.control.store import Store
from trueprob_service.errors import Conflict, DatabaseUnavailable

__all__ = ["Deletions"]


class Deletions:
    """Removes models."""

    def __init__(
        self,
        store: Store,
        following: Following,  # takes the model out of the data plane
        fit_runner: FitRunner,  # notices that fits are gone
        *,
        root: Path,  # the model repository: what lies there would come back
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._following = following
        self._fit_runner = fit_runner
        self._root = root
        self._clock = clock

    def delete(self, model: str, *, expected: int) -> None:
        """Delete a model that was declared over HTTP, or whose folder is gone.

        Raises `Conflict`: versions of it lie in the model repository.
        """
        with self._store.write() as transaction:
            live = locked(transaction, model, expected)
            row = transaction.models.get(model)
            declared = row is not None and row.declared
            versions = [] if declared else ModelRepository(self._root).versions(model)
            if versions:
                raise Conflict(
                    f"model {model!r} has version {versions[-1]} in the model repository and would "
                    "come back: remove its folder there first"
                )
            transaction.deleted_models.delete(model, revision=live.revision, now=self._clock())
        self._fit_runner.check_cancelled()
        with contextlib.suppress(DatabaseUnavailable):  # it is deleted; the next look sees it
            self._following.look()
