"""Applies the changes that other processes on the same database have made.

A change made in this process reaches the data plane after its commit. Promotions, declarations and
deletions of other processes are found by one query every few seconds, which reads the live revision
of every model. Where it differs from the one applied last, the model's pairs are read in the same
snapshot and deployed, the live one first. Versions with files are found by
`trueprob_service.control.models.discovery` only.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Final

from trueprob.errors import TrueprobError
from trueprob_service.control.models.catalogue import Catalogue, current_calibrator
from trueprob_service.control.poll import Poll
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.models import VersionRow
from trueprob_service.control.store.promotions import CalibratorRow, PromotionRow
from trueprob_service.errors import NotFound
from trueprob_service.inference.deployment import Deployment, ServedVersion, Shadow
from trueprob_service.inference.deployments import Deployments

__all__ = ["ReplicaSync"]

_LOG: Final = logging.getLogger(__name__)

# Id of the model's row, which changes when it is deleted and declared again; and live revision.
_Seen = tuple[int, int]


@dataclass(frozen=True)
class _State:
    """A model in the database."""

    declared: bool
    live: PromotionRow
    pairs: tuple[tuple[VersionRow, CalibratorRow], ...]  # the live version first


class ReplicaSync:
    """Keeps the data plane of this process up to date with the database."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        deployments: Deployments,
        *,
        seconds: float,  # between two syncs
        # How long a live version with files may be missing here before it is logged: another
        # process may have found it on disk first.
        patience_seconds: float = 0.0,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._deployments = deployments
        self._seen: dict[str, _Seen] = {}
        self._patience_seconds = patience_seconds
        self._missing: dict[str, tuple[_Seen, float]] = {}  # with the time at which to log it
        self._syncing = threading.Lock()
        self._last_start = 0.0
        self._poll = Poll(
            self.sync,
            what="the sync with other processes",
            seconds=seconds,
            name="trueprob-replica-sync",
        )

    def start(self) -> None:
        """Sync now, and from now on every few seconds."""
        self._poll.once()
        self._poll.start()

    def sync(self) -> None:
        """Apply all changes made so far. One sync serves all callers that wait for it."""
        called = time.monotonic()
        with self._syncing:
            if self._last_start <= called:
                self._last_start = time.monotonic()
                self._sync()

    def close(self) -> None:
        """Stop after the sync that is running."""
        self._poll.close()

    def _sync(self) -> None:
        # Before the query: its result lacks a model that is declared here in the meantime.
        local = self._deployments.names()
        with self._store.read() as transaction:
            stored = transaction.promotions.revisions()
            shadows = transaction.shadows.calibrators()
            states = {
                name: _read(transaction, name)
                for name, seen in stored.items()
                if self._seen.get(name) != seen
            }
        for name in local - stored.keys():
            self._remove(name)
        for name, state in states.items():
            known = self._seen.get(name)
            if (known is not None and known[0] != stored[name][0]) or self._contradicts(state):
                self._remove(name)
            obstacle = "removed" if state is None else self._obstacle(name, state)
            if obstacle is None:
                self._seen[name] = stored[name]
                self._missing.pop(name, None)
            else:
                self._log_missing(name, stored[name], obstacle)
        for live in self._deployments.live():
            for role, deployed in (
                ("candidate", live.candidate),
                ("predecessor", live.predecessor),
            ):
                self._apply_shadow(live, role, deployed, shadows.get((live.served.model, role)))

    def _apply_shadow(
        self,
        live: Deployment,
        role: str,
        deployed: Shadow | None,
        stored: tuple[int, CalibratorRow] | None,
    ) -> None:
        """Deploy a shadow of a live pair, unless it shadows another revision."""
        row = stored[1] if stored is not None and stored[0] == live.revision else None
        known = None if deployed is None else deployed.calibrator_id
        if live.revision is None or known == (None if row is None else row.calibrator):
            return
        model = live.served.model
        try:
            self._catalogue.shadow(model, live.revision, role, row)
        except TrueprobError as error:  # a calibrator of a newer release
            _LOG.error("the %s in shadow of model %s cannot be deployed: %s", role, model, error)

    def _log_missing(self, name: str, seen: _Seen, obstacle: str) -> None:
        now = time.monotonic()
        logged, log_at = self._missing.get(name, (None, 0.0))
        if logged != seen:
            log_at = now + self._patience_seconds
        if log_at <= now:
            _LOG.error("revision %d of model %s cannot be deployed: %s", seen[1], name, obstacle)
            log_at = math.inf
        self._missing[name] = seen, log_at

    def _obstacle(self, name: str, state: _State) -> str | None:
        """Deploy the pairs of a model; returns the reason if that is impossible."""
        try:
            applied = self._apply(name, state)
        except (
            TrueprobError
        ) as error:  # a calibrator of a newer release; the other models are still applied
            return str(error)
        return None if applied else f"version {state.live.version} is not available"

    def _apply(self, name: str, state: _State) -> bool:
        """Deploy the pairs that differ; False when the live version is not served here."""
        for version, calibrator in state.pairs:
            served = self._catalogue.find(name, version.version)
            is_live = version.version == state.live.version
            if served is None and state.declared:
                served = ServedVersion(name, version.version, version.class_names)
                self._catalogue.add_declared(served)
            if served is None:
                if is_live:
                    return False
                continue
            revision = state.live.revision if is_live else None
            if not self._is_deployed(calibrator, revision):
                self._catalogue.deploy(calibrator, revision=revision)
        return True

    def _contradicts(self, state: _State | None) -> bool:
        """Whether a model with other classes is served: it was deleted and declared again."""
        return state is not None and any(
            served.class_names != version.class_names
            for version, _ in state.pairs
            if (served := self._catalogue.find(version.model, version.version)) is not None
        )

    def _is_deployed(self, row: CalibratorRow, revision: int | None) -> bool:
        try:
            now = self._deployments.current(row.model, row.version)
        except NotFound:
            return False
        return (now.calibrator_id, now.revision) == (row.calibrator, revision)

    def _remove(self, name: str) -> None:
        self._deployments.remove(name)
        self._catalogue.remove(name)
        self._seen.pop(name, None)
        _LOG.info("model %s was removed", name)


def _read(transaction: Transaction, name: str) -> _State | None:
    model, live = transaction.models.get(name), transaction.promotions.live(name)
    if model is None or live is None:
        return None
    versions = sorted(transaction.models.versions(name), key=lambda v: v.version != live.version)
    pairs = tuple((version, current_calibrator(transaction, version)) for version in versions)
    return _State(model.declared, live, pairs)
