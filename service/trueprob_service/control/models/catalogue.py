"""Models and versions: found in the repository, declared over HTTP, remembered by the database.

At first sight of a model its highest version goes live with its factory calibrator, revision 1.
A version found later is registered but not live. After a restart the pair that was live is live
again, from the history.

A version whose files do not match their digests, or whose network does not load, is refused:
logged, listed as unavailable, and the rest goes on. When it was the live one it is served without
its network, from what the database holds (its classes and its calibrator, verified before they
were stored): clients that send logits are not stopped by a bad ``model.onnx``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from trueprob.calibrators import loads_calibrator
from trueprob_service.control.answering import answering, standing
from trueprob_service.control.models.discovery import Discovery, Found, Key, discover
from trueprob_service.control.registration import add_version, promote_first
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.calibrators import CalibratorRow
from trueprob_service.control.store.models import VersionRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import Conflict, ProviderUnavailable, ServiceError, VersionNotFound
from trueprob_service.inference.deployment import ServedVersion, Shadow
from trueprob_service.inference.deployments import Deployments

__all__ = ["Catalogue", "answering"]

_LOG: Final = logging.getLogger(__name__)


class Catalogue:
    """What models there are, here and now."""

    def __init__(self, deployments: Deployments, *, clock: Callable[[], float]) -> None:
        self._deployments = deployments
        self._clock = clock
        self._served: dict[Key, ServedVersion] = {}
        self._baselines: dict[Key, Mapping[str, float]] = {}
        self._unavailable: dict[Key, str] = {}

    def start(self, store: Store, root: Path) -> None:
        """Discover the repository, register what is new, deploy everything."""
        discovery = discover(root)
        for key, reason in discovery.refused.items():
            self._refuse(key, reason)
        with store.write() as transaction:
            accepted = self._register(transaction, discovery)
            models = transaction.models.all()
            states = standing(transaction, (model.name for model in models))
        declared = {model.name for model in models if model.declared}
        for version, calibrator, live in states:
            key = (version.model, version.version)
            if key in accepted:
                self._start(version, calibrator, live, discovery.found[key])
                continue
            if version.model not in declared:
                if key not in self._unavailable:
                    self._refuse(key, "its files are no longer in the model repository")
                if version.version != live.version:
                    continue
            self._start(version, calibrator, live, None)

    def take_in(self, store: Store, discovery: Discovery) -> None:
        """Register and deploy versions that appeared on disk, or were mended there."""
        for key, reason in discovery.refused.items():
            self._refuse(key, reason)
        if not discovery.found:
            return
        with store.write() as transaction:
            accepted = self._register(transaction, discovery)
            states = standing(transaction, {name for name, _ in accepted})
        for version, calibrator, live in states:
            key = (version.model, version.version)
            if key not in accepted:
                continue
            try:
                self._start(version, calibrator, live, discovery.found[key])
            except ProviderUnavailable as error:
                self._refuse(key, error.detail)
            if self.is_loaded(key):
                state = "is live" if live.version == version.version else "is there, not live"
                _LOG.info("version %d of model %s was found and %s", key[1], key[0], state)

    def is_loaded(self, key: Key) -> bool:
        """Whether a version answers with all that it has on disk."""
        served = self._served.get(key)
        return served is not None and served.manifest is not None

    def pardon(self, key: Key) -> None:
        """Give no reason against a version any more: it was mended, or is gone from the disk."""
        self._unavailable = {k: v for k, v in self._unavailable.items() if k != key}

    def served(self, model: str, version: int) -> ServedVersion:
        """A version that can answer here.

        Raises `Conflict`: it is known, but refused.
        """
        served = self._served.get((model, version))
        if served is not None:
            return served
        reason = self._unavailable.get((model, version))
        if reason is not None:
            raise Conflict(f"version {version} of model {model!r} is not available: {reason}")
        raise VersionNotFound(f"model {model!r} has no version {version}")

    def find(self, model: str, version: int) -> ServedVersion | None:
        """As `served`, or None."""
        return self._served.get((model, version))

    def declare(self, served: ServedVersion) -> None:
        """Take in a version that has just been registered without files."""
        self._served = {**self._served, (served.model, served.version): served}

    def forget(self, model: str) -> None:
        """Let go of a model that is no longer in the database."""
        self._served = {key: served for key, served in self._served.items() if key[0] != model}
        self._baselines = {k: v for k, v in self._baselines.items() if k[0] != model}
        self._unavailable = {k: v for k, v in self._unavailable.items() if k[0] != model}

    def deploy(self, row: CalibratorRow, *, revision: int | None) -> None:
        """Let a version answer with a calibrator; live when there is a revision."""
        calibrator = loads_calibrator(row.document.encode())
        served = self.served(row.model, row.version)
        self._deployments.deploy(served, calibrator, row.calibrator, revision=revision)

    def shadow(self, model: str, revision: int, row: CalibratorRow | None) -> None:
        """Let a calibrator shadow a live pair in the data plane, or none."""
        shadow = None
        if row is not None:
            shadow = Shadow(loads_calibrator(row.document.encode()), row.calibrator)
        self._deployments.shadow(model, revision, shadow)

    def baseline(self, model: str, version: int) -> Mapping[str, float]:
        """Scores on the version's calibration split; empty when it came without a baseline."""
        return self._baselines.get((model, version), {})

    @property
    def unavailable(self) -> Mapping[Key, str]:
        """Why versions are refused, a sentence each."""
        return dict(sorted(self._unavailable.items()))

    def _register(self, transaction: Transaction, discovery: Discovery) -> set[Key]:
        """Write what is new; the versions that may be served."""
        now, accepted = self._clock(), set(discovery.found)
        for (name, number), found in sorted(discovery.found.items()):
            model = transaction.models.get(name)
            if model is not None and model.declared:
                self._refuse((name, number), "its name was declared over HTTP before")
                accepted.discard((name, number))
                continue
            names = tuple(found.manifest.class_names)
            known = transaction.models.version(name, number)
            if known is not None:
                if known.class_names != names:
                    self._refuse((name, number), "its classes are not those first registered")
                    accepted.discard((name, number))
                continue
            if model is None:
                transaction.models.add(name, declared=False, now=now)
            add_version(
                transaction,
                name,
                number,
                class_names=names,
                factory=found.calibrator,
                document=found.document,
                now=now,
            )
        for name in sorted({name for name, _ in accepted}):
            transaction.models.lock(name)  # of two replicas at first sight, one promotes
            versions = transaction.models.versions(name)
            if versions and transaction.promotions.live(name) is None:
                highest = versions[-1]
                promote_first(
                    transaction,
                    name,
                    highest.version,
                    highest.factory_calibrator,
                    by=None,
                    now=now,
                )
        return accepted

    def _start(
        self,
        version: VersionRow,
        calibrator: CalibratorRow,
        live: PromotionRow,
        found: Found | None,
    ) -> None:
        key = (version.model, version.version)
        revision = live.revision if live.version == version.version else None
        manifest = None if found is None else found.manifest
        reference = None if found is None else found.reference
        served = ServedVersion(*key, version.class_names, manifest, reference)
        self._served = {**self._served, key: served}
        try:
            self.deploy(calibrator, revision=revision)
        except ProviderUnavailable:
            raise  # the operator's wish for all networks: not one version's fault
        except ServiceError as error:
            self._served = {k: v for k, v in self._served.items() if k != key}
            self._refuse(key, error.detail)
            if revision is not None and found is not None:
                self._start(version, calibrator, live, None)
        else:
            if found is not None:
                self._baselines = {**self._baselines, key: found.baseline}
                self.pardon(key)

    def _refuse(self, key: Key, reason: str) -> None:
        if self._unavailable.get(key) != reason:
            self._unavailable = {**self._unavailable, key: reason}
            _LOG.error("version %d of model %s is refused: %s", key[1], key[0], reason)
