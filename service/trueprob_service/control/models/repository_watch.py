"""New models and versions on disk, found while the service runs.

A thread compares what lies in the repository with what lay there at its last look (names, sizes,
times: no file is read). Only what is new or was changed, and is not loaded, is verified against
its digests and loaded: a half-written version fails that, is refused once in the log, and is
looked at again when it changes. What is loaded stays loaded, whatever becomes of its files.
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
    """Looks at the model repository again and again."""

    def __init__(
        self, root: Path, catalogue: Catalogue, store: Store, interval_seconds: float
    ) -> None:
        self._root = root
        self._catalogue = catalogue
        self._store = store
        self._interval_seconds = interval_seconds
        self._seen: dict[Key, Signature] = {}
        self._poll = Poll(
            self.look,
            what="the look into the model repository",
            seconds=interval_seconds,
            name="trueprob-repository",
        )

    def start(self) -> None:
        """Begin to look."""
        if self._interval_seconds > 0:
            self._poll.start()

    def close(self) -> None:
        """End after the look that is under way."""
        self._poll.close()

    def look(self) -> None:
        """Take in what is new since the last look.

        Raises `DatabaseUnavailable`: nothing is remembered of this look; the next one repeats it.
        Raises `OSError`: nothing is remembered of this look; the next one repeats it.
        """
        lies = _signatures(self._root)
        changed = {key for key, signature in lies.items() if self._seen.get(key) != signature}
        loaded = {key for key in changed if self._catalogue.is_loaded(key)}
        if changed - loaded:
            self._catalogue.take_in(self._store, discover(self._root, changed - loaded))
        for model, version in sorted(loaded & self._seen.keys()):
            _LOG.warning(
                "version %d of model %s was changed on disk, which versions never are: what was "
                "loaded before goes on answering", version, model,
            )  # fmt: skip
        for key in sorted(self._seen.keys() - lies.keys()):
            if self._catalogue.is_loaded(key):
                _LOG.warning(
                    "version %d of model %s is no longer in the model repository: it goes on "
                    "answering until the service ends", key[1], key[0],
                )  # fmt: skip
            else:
                self._catalogue.pardon(key)
        self._seen = lies


def _signatures(root: Path) -> dict[Key, Signature]:
    repository = ModelRepository(root)
    found: dict[Key, Signature] = {}
    for model in repository.models():
        for version in repository.versions(model):
            try:
                found[model, version] = _signature(root / model / str(version))
            except FileNotFoundError:
                continue  # it went while it was looked at
    return found


def _signature(folder: Path) -> Signature:
    with os.scandir(folder) as entries:
        stats = [(entry.name, entry.stat()) for entry in entries]
    return tuple(sorted((n, s.st_size, s.st_mtime_ns, s.st_ino) for n, s in stats))
