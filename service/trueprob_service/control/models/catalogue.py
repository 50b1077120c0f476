"""The models and versions that this process serves.

They are found in the model repository or declared over HTTP, and stored in the database. When a
model is first found, its highest version goes live with its factory calibrator, as revision 1. A
version that is found later is registered but not live. After a restart the last live pair is live
again, from the promotion history.

A version whose files do not match their digests, or whose network does not load, is refused: it is
logged and listed as unavailable, and the others are served. If it is the live version, it is served
without its network, with the classes and the calibrator from the database, which were verified
before they were stored. So clients that send logits are served despite a bad ``model.onnx``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.class_names import shown
from trueprob.calibrators import Calibrator, loads_calibrator
from trueprob.drift import ReferenceBins
from trueprob_service.control.models.discovery import Discovery, FoundVersion, Key, discover
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.models import VersionRow
from trueprob_service.control.store.promotions import CalibratorRow, PromotionRow
from trueprob_service.errors import (
    STOPPING,
    Conflict,
    NetworkRefused,
    ProviderUnavailable,
    ServiceError,
    VersionNotFound,
)
from trueprob_service.inference.deployment import ServedVersion, Shadow
from trueprob_service.inference.deployments import Deployments

__all__ = ["Catalogue", "add_version", "current_calibrator", "current_pairs", "promote_first"]

_LOG: Final = logging.getLogger(__name__)
_AGAIN_SECONDS: Final = 60.0  # until a network is looked at again that could not be inspected


def add_version(
    transaction: Transaction,
    model: str,
    version: int,
    *,
    class_names: Sequence[str],
    factory: Calibrator,
    document: str,  # its `calibrator.json`
    now: float,
) -> None:
    """Store a version of a registered model, with its factory calibrator."""
    transaction.models.add_version(
        model, version, class_names=class_names, factory=factory.id, now=now
    )
    transaction.calibrators.add(
        model,
        version,
        calibrator_id=factory.id,
        kind=factory.kind,
        document=document,
        origin="factory",
        admitted=True,
        calibration_set=None,
        now=now,
    )


def promote_first(
    transaction: Transaction,
    model: str,
    version: int,
    calibrator: str,
    *,
    by: str | None,
    now: float,
) -> None:
    """Store the first promotion of a model.

    Its revision is 1, or the one after the last revision of a deleted model of this name.
    """
    revision = transaction.deleted_models.last_revision(model) + 1
    transaction.promotions.append(
        PromotionRow(
            model=model,
            revision=revision,
            version=version,
            calibrator=calibrator,
            cause="factory",
            restores=None,
            fit=None,
            promoted_by=by,
            promoted_at=now,
        )
    )
    transaction.audit.add(
        "pair.promote",
        model,
        now=now,
        revision=revision,
        detail={"version": version, "calibrator": calibrator, "cause": "factory", "by": by},
    )


def current_calibrator(transaction: Transaction, version: VersionRow) -> CalibratorRow:
    """The calibrator of a version: the last one promoted, else its factory calibrator."""
    last = transaction.promotions.last_of_version(version.model, version.version)
    wanted = version.factory_calibrator if last is None else last.calibrator
    found = transaction.calibrators.get(version.model, version.version, wanted)
    if found is None:
        # It was written in the same transaction as the row that names it.
        raise LookupError(f"calibrator {wanted} of {version.model}/{version.version} is missing")
    return found


def current_pairs(
    transaction: Transaction, models: Iterable[str]
) -> list[tuple[VersionRow, CalibratorRow, PromotionRow]]:
    """Each version of some models, with its calibrator and its model's live promotion.

    Live versions come first: the first deployment of a model answers by default.
    """
    states = [
        (version, current_calibrator(transaction, version), live)
        for model in models
        if (live := transaction.promotions.live(model)) is not None
        for version in transaction.models.versions(model)
    ]
    return sorted(states, key=lambda state: state[0].version != state[2].version)


class Catalogue:
    """The versions that this process serves, and why it refuses others."""

    def __init__(
        self,
        deployments: Deployments,
        *,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._deployments = deployments
        self._clock = clock
        self._served: dict[Key, ServedVersion] = {}
        self._baselines: dict[Key, Mapping[str, float]] = {}
        self._unavailable: dict[Key, str] = {}
        self._again: dict[Key, float] = {}  # when to look again at what could not be inspected

    def start(self, store: Store, root: Path) -> None:
        """Read the model repository, register new versions, and deploy all versions.

        The folder need not exist.
        """
        discovery = discover(root)
        for key, reason in discovery.refused.items():
            self._refuse(key, reason)
        with store.write() as transaction:
            accepted = self._register(transaction, discovery)
            models = transaction.models.all()
            states = current_pairs(transaction, (model.name for model in models))
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

    def add_found(self, store: Store, discovery: Discovery) -> None:
        """Register and deploy versions that are new on disk or were repaired."""
        for key, reason in discovery.refused.items():
            self._refuse(key, reason)
        if not discovery.found:
            return
        with store.write() as transaction:
            accepted = self._register(transaction, discovery)
            states = current_pairs(transaction, {name for name, _ in accepted})
        for version, calibrator, live in states:
            key = (version.model, version.version)
            if key not in accepted:
                continue
            try:
                self._start(version, calibrator, live, discovery.found[key])
            except ProviderUnavailable as error:
                self._refuse(key, error.detail)
            if self.is_loaded(key):
                state = "is live" if live.version == version.version else "is not live"
                _LOG.info("found version %d of model %s, which %s", key[1], key[0], state)

    def is_loaded(self, key: Key) -> bool:
        """Whether a version is served with its files."""
        served = self._served.get(key)
        return served is not None and served.manifest is not None

    def due(self) -> set[Key]:
        """The versions whose network could not be inspected a while ago: look again."""
        now = self._clock()
        return {key for key, at in self._again.items() if at <= now}

    def clear_refusal(self, key: Key) -> None:
        """Remove a version from the unavailable ones after it was repaired or removed from disk."""
        self._again = {k: at for k, at in self._again.items() if k != key}
        self._unavailable = {k: v for k, v in self._unavailable.items() if k != key}

    def served(self, model: str, version: int) -> ServedVersion:
        """A version that this process serves.

        Raises `Conflict` if it is refused, and `VersionNotFound` if there is none.
        """
        served = self._served.get((model, version))
        if served is not None:
            return served
        reason = self._unavailable.get((model, version))
        if reason is not None:
            raise Conflict(f"version {version} of model {model!r} is not available: {reason}")
        raise VersionNotFound(f"model {model!r} has no version {version}")

    def find(self, model: str, version: int) -> ServedVersion | None:
        """As `served`; None instead of an error."""
        return self._served.get((model, version))

    def add_declared(self, served: ServedVersion) -> None:
        """Serve a version without files, which has just been registered."""
        self._served = {**self._served, (served.model, served.version): served}

    def remove(self, model: str) -> None:
        """Remove a model that is no longer in the database."""
        self._served = {key: served for key, served in self._served.items() if key[0] != model}
        self._baselines = {k: v for k, v in self._baselines.items() if k[0] != model}
        self._unavailable = {k: v for k, v in self._unavailable.items() if k[0] != model}
        self._again = {k: at for k, at in self._again.items() if k[0] != model}

    def deploy(
        self, row: CalibratorRow, *, revision: int | None, predecessor: CalibratorRow | None = None
    ) -> None:
        """Deploy a version with a calibrator; as the live pair when a revision is given."""
        calibrator = loads_calibrator(row.document.encode())
        self._deployments.deploy(
            self.served(row.model, row.version),
            calibrator,
            row.calibrator,
            revision=revision,
            predecessor=_shadow(predecessor),
        )

    def shadow(self, model: str, revision: int, role: str, row: CalibratorRow | None) -> None:
        """Set a shadow of a live pair in the data plane; None removes it."""
        self._deployments.shadow(model, revision, role, _shadow(row))

    def recent_traffic(
        self, model: str, version: int
    ) -> tuple[NDArray[np.float32] | None, ReferenceBins | None]:
        """Recent logits of a version here, and the gaps of its baseline; None if unknown."""
        served = self.find(model, version)
        if served is None:
            return None, None
        recent = self._deployments.current(model, version).meters.recent_logits()
        gaps = None if served.reference is None else served.reference.gap
        return recent, gaps

    def baseline(self, model: str, version: int) -> Mapping[str, float]:
        """Scores on the version's calibration split; empty for a version without a baseline."""
        return self._baselines.get((model, version), {})

    @property
    def unavailable(self) -> Mapping[Key, str]:
        """The versions that are refused or do not run, each with its reason in one sentence."""
        broken = self._deployments.broken_networks()
        return dict(sorted({**broken, **self._unavailable}.items()))

    def _register(self, transaction: Transaction, discovery: Discovery) -> set[Key]:
        """Store new models and versions; returns the versions that can be served."""
        now, accepted = self._clock(), set(discovery.found)
        for (name, number), found in sorted(discovery.found.items()):
            model = transaction.models.get(name)
            if model is not None and model.declared:
                self._refuse(
                    (name, number), "its name is already used by a model declared over HTTP"
                )
                accepted.discard((name, number))
                continue
            names = tuple(found.manifest.class_names)
            known = transaction.models.version(name, number)
            if known is not None:
                if known.class_names != names:
                    self._refuse(
                        (name, number),
                        f"its classes, {shown(names)}, are not those first registered, "
                        f"{shown(known.class_names)}",
                    )
                    accepted.discard((name, number))
                continue
            if model is None:
                transaction.models.add(name, declared=False, now=now)
            transaction.audit.add("version.find", name, now=now, detail={"version": number})
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
            transaction.models.lock(name)  # if two replicas find it at once, one promotes
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
        found: FoundVersion | None,
    ) -> None:
        key = (version.model, version.version)
        revision = live.revision if live.version == version.version else None
        manifest = None if found is None else found.manifest
        reference = None if found is None else found.reference
        refusal = self._unavailable.get(key) if found is None else None
        served = ServedVersion(*key, version.class_names, manifest, reference, refusal)
        self._served = {**self._served, key: served}
        try:
            self.deploy(calibrator, revision=revision)
        except ProviderUnavailable:
            raise  # the setting applies to all networks, so this version is not at fault
        except ServiceError as error:
            self._served = {k: v for k, v in self._served.items() if k != key}
            self._again = {k: at for k, at in self._again.items() if k != key}
            if isinstance(error, NetworkRefused) and error.reason == STOPPING:
                return
            if isinstance(error, NetworkRefused) and not error.lasting:
                self._again[key] = self._clock() + _AGAIN_SECONDS
            self._refuse(key, error.detail)
            if revision is not None and found is not None:
                self._start(version, calibrator, live, None)
        else:
            if found is not None:
                self._baselines = {**self._baselines, key: found.baseline}
                self.clear_refusal(key)

    def _refuse(self, key: Key, reason: str) -> None:
        if self._unavailable.get(key) != reason:
            self._unavailable = {**self._unavailable, key: reason}
            _LOG.error("version %d of model %s is refused: %s", key[1], key[0], reason)


def _shadow(row: CalibratorRow | None) -> Shadow | None:
    if row is None:
        return None
    return Shadow(loads_calibrator(row.document.encode()), row.calibrator)
