"""Finds new models and versions on disk while the service runs.

A thread compares names, sizes and times of the files with those of its last scan and reads none.
Versions that are new or changed, and not loaded, are verified against their digests and loaded. A
half-written version fails verification: its refusal is logged once, and it is verified again when
it changes. So is a version whose network could not be inspected, a minute later. A loaded version
stays loaded, even if its files change or vanish.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from trueprob.repository.model_repository import ModelRepository
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.models.discovery import Key, discover
from trueprob_service.control.poll import Poll
from trueprob_service.control.store import Store

__all__ = ["RepositoryWatch"]

_LOG: Final = logging.getLogger(__name__)
Signature = tuple[tuple[str, int, int, int], ...]


class RepositoryWatch:
    """Scans the model repository at regular intervals."""

    def __init__(
        self,
        root: Path,
        catalogue: Catalogue,
        store: Store,
        interval_seconds: float,  # 0: never
    ) -> None:
        self._root = root
        self._catalogue = catalogue
        self._store = store
        self._interval_seconds = interval_seconds
        self._seen: dict[Key, Signature] = {}
        self._poll = Poll(
            self.scan,
            what="the scan of the model repository",
            seconds=interval_seconds,
            name="trueprob-repository",
        )

    def start(self) -> None:
        """Start the thread, unless the interval is 0."""
        if self._interval_seconds > 0:
            self._poll.start()

    def close(self) -> None:
        """Stop after the running scan."""
        self._poll.close()

    def scan(self) -> None:
        """Load the versions that are new since the last scan.

        After `DatabaseUnavailable` or `OSError` the next scan starts from the same state.
        """
        present = _signatures(self._root)
        due = self._catalogue.due()
        changed = {
            key
            for key, signature in present.items()
            if key in due or self._seen.get(key) != signature
        }
        loaded = {key for key in changed if self._catalogue.is_loaded(key)}
        if changed - loaded:
            self._catalogue.add_found(self._store, discover(self._root, changed - loaded))
        for model, version in sorted(loaded & self._seen.keys()):
            _LOG.warning(
                "version %d of model %s was changed on disk, but versions must not change: "
                "the loaded version still answers", version, model,
            )  # fmt: skip
        for key in sorted(self._seen.keys() - present.keys()):
            if self._catalogue.is_loaded(key):
                _LOG.warning(
                    "version %d of model %s is no longer in the model repository: it "
                    "still answers until the service stops", key[1], key[0],
                )  # fmt: skip
            else:
                self._catalogue.clear_refusal(key)
        self._seen = present


def _signatures(root: Path) -> dict[Key, Signature]:
    repository = ModelRepository(root)
    found: dict[Key, Signature] = {}
    for model in repository.models():
        for version in repository.versions(model):
            try:
                found[model, version] = _signature(root / model / str(version))
            except FileNotFoundError:
                continue  # it was removed meanwhile
    return found


def _signature(folder: Path) -> Signature:
    with os.scandir(folder) as entries:
        stats = [(entry.name, entry.stat()) for entry in entries]
    return tuple(sorted((n, s.st_size, s.st_mtime_ns, s.st_ino) for n, s in stats))
