"""Taking over what other processes on the same database have changed.

A change made here reaches the data plane with its commit. What another process promotes, declares
or removes is found by one query for all models, asked every few seconds: the revision of each.
Where it differs from what was taken over last, that model's pairs are read in the same snapshot and
swapped in, the live one first. Versions with files are found by
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
from trueprob_service.control.models.catalogue import Catalogue, answering
from trueprob_service.control.poll import Poll
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.calibrators import CalibratorRow
from trueprob_service.control.store.models import VersionRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import NotFound
from trueprob_service.inference.deployment import Deployment, ServedVersion
from trueprob_service.inference.deployments import Deployments

__all__ = ["Following"]

_LOG: Final = logging.getLogger(__name__)

# Row of the model, which is another one when it was removed and declared anew, and live revision.
_Seen = tuple[int, int]


@dataclass(frozen=True)
class _State:
    """A model as the database has it."""

    declared: bool
    live: PromotionRow
    pairs: tuple[tuple[VersionRow, CalibratorRow], ...]  # the live version first


class Following:
    """Keeps the data plane in step with the database."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        deployments: Deployments,
        *,
        seconds: float,  # between two looks
        patience_seconds: float = 0.0,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._deployments = deployments
        self._seen: dict[str, _Seen] = {}
        self._patience_seconds = patience_seconds
        self._missing: dict[str, tuple[_Seen, float]] = {}  # and when to say so
        self._looking = threading.Lock()
        self._began = 0.0
        self._poll = Poll(
            self.look,
            what="following other processes",
            seconds=seconds,
            name="trueprob-following",
        )

    def start(self) -> None:
        """Look, and go on looking."""
        self._poll.once()
        self._poll.start()

    def look(self) -> None:
        """Take over what has changed until now. Of callers that wait for one another one asks."""
        asked = time.monotonic()
        with self._looking:
            if self._began <= asked:
                self._began = time.monotonic()
                self._look()

    def close(self) -> None:
        """Stop."""
        self._poll.close()

    def _look(self) -> None:
        # Before the question: a model that is declared here meanwhile is not in its answer.
        here = self._deployments.names()
        with self._store.read() as transaction:
            there = transaction.promotions.revisions()
            candidates = transaction.shadows.candidates()
            states = {
                name: _read(transaction, name)
                for name, seen in there.items()
                if self._seen.get(name) != seen
            }
        for name in here - there.keys():
            self._forget(name)
        for name, state in states.items():
            known = self._seen.get(name)
            if (known is not None and known[0] != there[name][0]) or self._contradicts(state):
                self._forget(name)
            obstacle = "removed" if state is None else self._obstacle(name, state)
            if obstacle is None:
                self._seen[name] = there[name]
                self._missing.pop(name, None)
            else:
                self._miss(name, there[name], obstacle)
        for live in self._deployments.live():
            self._take_over_shadow(live, candidates.get(live.served.model))

    def _take_over_shadow(
        self, live: Deployment, candidate: tuple[int, CalibratorRow] | None
    ) -> None:
        """Let the receipts of a live pair carry what shadows it; not what shadowed another."""
        row = candidate[1] if candidate is not None and candidate[0] == live.revision else None
        known = None if live.shadow is None else live.shadow.calibrator_id
        if live.revision is None or known == (None if row is None else row.calibrator):
            return
        try:
            self._catalogue.shadow(live.served.model, live.revision, row)
        except TrueprobError as error:  # a newer release's calibrator
            _LOG.error("the shadow of model %s cannot answer here: %s", live.served.model, error)

    def _miss(self, name: str, seen: _Seen, obstacle: str) -> None:
        now = time.monotonic()
        missed, say_at = self._missing.get(name, (None, 0.0))
        if missed != seen:
            say_at = now + self._patience_seconds
        if say_at <= now:
            _LOG.error("revision %d of model %s cannot answer here: %s", seen[1], name, obstacle)
            say_at = math.inf
        self._missing[name] = seen, say_at

    def _obstacle(self, name: str, state: _State) -> str | None:
        """Take a model over; why that cannot be, if so."""
        try:
            taken = self._take_over(name, state)
        except TrueprobError as error:  # a newer release's calibrator: the other models go on
            return str(error)
        return None if taken else f"version {state.live.version} is not available"

    def _take_over(self, name: str, state: _State) -> bool:
        """Swap in what differs; False when the live version is not here."""
        for version, calibrator in state.pairs:
            served = self._catalogue.find(name, version.version)
            is_live = version.version == state.live.version
            if served is None and state.declared:
                served = ServedVersion(name, version.version, version.class_names)
                self._catalogue.declare(served)
            if served is None:
                if is_live:
                    return False
                continue
            revision = state.live.revision if is_live else None
            if not self._answers(calibrator, revision):
                self._catalogue.deploy(calibrator, revision=revision)
        return True

    def _contradicts(self, state: _State | None) -> bool:
        """Whether what is served under the name has other classes: removed and declared anew."""
        return state is not None and any(
            served.class_names != version.class_names
            for version, _ in state.pairs
            if (served := self._catalogue.find(version.model, version.version)) is not None
        )

    def _answers(self, row: CalibratorRow, revision: int | None) -> bool:
        try:
            now = self._deployments.current(row.model, row.version)
        except NotFound:
            return False
        return (now.calibrator_id, now.revision) == (row.calibrator, revision)

    def _forget(self, name: str) -> None:
        self._deployments.remove(name)
        self._catalogue.forget(name)
        self._seen.pop(name, None)
        _LOG.info("model %s was removed", name)


def _read(transaction: Transaction, name: str) -> _State | None:
    model, live = transaction.models.get(name), transaction.promotions.live(name)
    if model is None or live is None:
        return None
    versions = sorted(transaction.models.versions(name), key=lambda v: v.version != live.version)
    pairs = tuple((version, answering(transaction, version)) for version in versions)
    return _State(model.declared, live, pairs)
