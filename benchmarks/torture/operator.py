"""Uploads, promotions and rollbacks while faults happen, and what was acknowledged of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

import numpy as np

from benchmarks.crash.history import ended_fits, fit_differences, history_differences
from trueprob.client import Client, LivePair, PromotionSummary

__all__ = ["Operator"]

SETS: Final = 4  # different ones, so that calibrators come again
SET_ROWS: Final = 120
FIT_SECONDS: Final = 2.0
LEASE_SECONDS: Final = 40.0  # the fit of a killed process is run by another after that at latest


class Operator:
    """Makes other pairs live all the time, so that answers could mix them.

    Parameters
    ----------
    model : str
    n_classes : int
    seed : int

    Attributes
    ----------
    uploads, promotions : int
        What was acknowledged.
    """

    def __init__(self, model: str, n_classes: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._model = model
        self._sets = []
        for number in range(SETS):
            logits = rng.normal(0.0, 2.0, (SET_ROWS, n_classes))
            labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
            sharp = (0.5 * (number + 1) * logits).astype(np.float32)
            self._sets.append({"logits": sharp, "labels": labels})
        self._turn = 0
        self._fits: set[str] = set()
        self._promoted: dict[int, str] = {}
        self._seen: list[PromotionSummary] = []
        self._lock = threading.Lock()
        self.uploads = 0
        self.promotions = 0

    def act(self, client: Client) -> None:
        """Upload and promote a set; every third time, go back instead."""
        self._turn += 1
        if self._turn % 3 == 0 and self._promoted:
            revision = client.model(self._model).revision
            self._note(client.rollback(self._model, revision=revision))
            return
        rows = self._sets[self._turn % SETS]
        fit = client.upload(
            self._model, rows, method="temperature", promote="always", wait_seconds=FIT_SECONDS
        )
        with self._lock:
            self._fits.add(fit.fit)
            self.uploads += 1
            if fit.promoted and fit.revision is not None and fit.calibrator is not None:
                self._promoted[fit.revision] = fit.calibrator
                self.promotions += 1

    def differences(self, client: Client) -> Iterable[str]:
        """A sentence for each promotion or fit that is not as it was acknowledged."""
        history = [*reversed(client.promotions(self._model))]
        yield from history_differences(self._seen, history, client.model(self._model))
        self._seen = history
        found = {row.revision: row.calibrator for row in history}
        for revision, calibrator in sorted(self._promoted.items()):
            if found.get(revision) != calibrator:
                yield f"revision {revision} was acknowledged with {calibrator} and is not so"
        fits = {fit.fit for fit in client.fits(self._model)}
        if lost := sorted(self._fits - fits):
            yield f"fits {lost} were acknowledged and are gone"

    def unended(self, client: Client) -> Iterable[str]:
        """A sentence for each fit that does not end."""
        yield from fit_differences(ended_fits(client, self._model, LEASE_SECONDS))

    def _note(self, pair: LivePair) -> None:
        with self._lock:
            self._promoted[pair.revision] = pair.calibrator
            self.promotions += 1
