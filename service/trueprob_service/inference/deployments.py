"""The deployments of this process: one frozen `Deployment` for each model version.

Readers take no lock: a writer swaps one reference. Writers take a lock among themselves.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from trueprob.calibrators import Calibrator
from trueprob.calibrators.input_stage import InputStage
from trueprob_service.errors import ModelNotFound, VersionNotFound
from trueprob_service.inference.deployment import Deployment, Meters, Network, ServedVersion, Shadow
from trueprob_service.metrics.recent_traffic import TrafficReference

__all__ = ["DeploymentLookup", "Deployments"]


MetersFor = Callable[[str, int, str, str, int | None, TrafficReference | None], Meters]


@dataclass(frozen=True)
class _Versions:
    live: int
    by_version: Mapping[int, Deployment]


class Deployments:
    """The deployments of this process, by model and version."""

    def __init__(
        self,
        *,
        # builds a warmed-up network; None for a version that takes logits only
        network_for: Callable[[ServedVersion], Network | None],
        meters_for: MetersFor,  # called once for each deployment, not for each request
        on_remove: Callable[[str], None] | None = None,  # called with the name of a removed model
    ) -> None:
        self._network_for = network_for
        self._meters_for = meters_for
        self._on_remove = on_remove
        self._models: Mapping[str, _Versions] = MappingProxyType({})
        self._networks: dict[tuple[str, int], Network | None] = {}
        self._writing = threading.Lock()
        self._building: dict[tuple[str, int], threading.Lock] = {}

    def current(self, model: str, version: int | None = None) -> Deployment:
        """The deployment of a version, by default the live one.

        Raises `ModelNotFound` or `VersionNotFound`.
        """
        versions = self._models.get(model)
        if versions is None:
            raise ModelNotFound(f"there is no model named {model!r}")
        try:
            return versions.by_version[versions.live if version is None else version]
        except KeyError:
            raise VersionNotFound(f"model {model!r} has no version {version}") from None

    def masks(self, model: str, version: int | None = None) -> InputStage | None:
        """What a version takes for masks besides minus infinity; None if it is not here."""
        try:
            return self.current(model, version).calibrator.masks
        except (ModelNotFound, VersionNotFound):
            return None

    def versions(self, model: str) -> list[int]:
        """The versions of a model, in order; empty for an unknown model."""
        versions = self._models.get(model)
        return [] if versions is None else sorted(versions.by_version)

    def deploy(
        self,
        served: ServedVersion,
        calibrator: Calibrator,
        calibrator_id: str,
        *,
        revision: int | None,
        predecessor: Shadow | None = None,
    ) -> None:
        """Replace the calibrator of a version; with a revision, also make the version live.

        The version that was live before stays reachable by number, without receipts. A revision
        below the live one is ignored, and so is the live version without a revision, so that of
        two racing writers the later promotion wins.
        """
        network = self._network(served)
        with self._writing:
            before = self._models.get(served.model)
            live = before.by_version[before.live] if before is not None else None
            if live is not None and live.revision is not None:
                same = live.served.version == served.version
                if same if revision is None else live.revision > revision:
                    return
            deployment = Deployment(
                served=served,
                calibrator=calibrator,
                calibrator_id=calibrator_id,
                revision=revision,
                network=network,
                meters=self._meters_for(
                    served.model,
                    served.version,
                    calibrator_id,
                    calibrator.kind,
                    revision,
                    served.reference,
                ),
                predecessor=predecessor,
            )
            by_version = dict(before.by_version) if before is not None else {}
            if revision is not None and live is not None and live.served.version != served.version:
                by_version[live.served.version] = replace(
                    live, revision=None, candidate=None, predecessor=None
                )
            by_version[served.version] = deployment
            is_live = revision is not None or before is None
            now_live = served.version if is_live or before is None else before.live
            self._models = MappingProxyType(
                {
                    **self._models,
                    served.model: _Versions(now_live, MappingProxyType(by_version)),
                }
            )

    def shadow(self, model: str, revision: int, role: str, shadow: Shadow | None) -> None:
        """Set or remove a shadow of a live pair; ignored unless that revision is live here.

        The role is ``candidate`` or ``predecessor``.
        """
        with self._writing:
            before = self._models.get(model)
            if before is None or before.by_version[before.live].revision != revision:
                return
            changes: dict[str, Any] = {role: shadow}
            live = replace(before.by_version[before.live], **changes)
            by_version = MappingProxyType({**before.by_version, before.live: live})
            changed = {model: _Versions(before.live, by_version)}
            self._models = MappingProxyType({**self._models, **changed})

    def _network(self, served: ServedVersion) -> Network | None:
        """The network of a version, built once; loading may take minutes."""
        key = (served.model, served.version)
        if (network := self._networks.get(key)) is None:
            # Each has a lock of its own: inspecting one may take as long as it likes.
            with self._writing:
                building = self._building.setdefault(key, threading.Lock())
            with building:
                if (network := self._networks.get(key)) is None:
                    network = self._network_for(served)
                    self._networks[key] = network
        return network

    def remove(self, model: str) -> None:
        """Remove a model; running requests finish with the deployment that they have."""
        with self._writing:
            rest = {name: versions for name, versions in self._models.items() if name != model}
            self._models = MappingProxyType(rest)
            for key in [key for key in self._building if key[0] == model]:
                del self._building[key]
            for key in [key for key in self._networks if key[0] == model]:
                network = self._networks.pop(key)
                if network is not None:
                    network.close()
        if self._on_remove is not None:
            self._on_remove(model)

    def names(self) -> set[str]:
        """The names of all models."""
        return set(self._models)

    def live(self) -> Iterator[Deployment]:
        """The live deployment of each model, in the order of their names."""
        models = self._models
        for name in sorted(models):
            yield models[name].by_version[models[name].live]

    def broken_networks(self) -> dict[tuple[str, int], str]:
        """The networks that do not run now, and why."""
        return {
            key: f"its network does not run: {network.failure}"
            for key, network in list(self._networks.items())
            if network is not None and network.failure is not None
        }

    def close(self) -> None:
        """Stop every network."""
        with self._writing:
            for network in self._networks.values():
                if network is not None:
                    network.close()
            self._networks.clear()


class DeploymentLookup:
    """Reads the database once more before answering 404 for an unknown model.

    Changes of other processes are found every few seconds. A client that declares a model in one
    replica and uses it at once in another would get 404 without this. Requests that wait at the
    same time share one read: however many unknown names are requested, one query runs at a time.
    """

    def __init__(
        self,
        deployments: Deployments,
        refresh: Callable[[], None],  # deploys what other processes have changed; run in a thread
    ) -> None:
        self._deployments = deployments
        self._refresh = refresh
        self._refreshing = asyncio.Lock()
        self._last_refresh = 0.0  # when it started, by the monotonic clock

    async def current(self, model: str, version: int | None = None) -> Deployment:
        """As `Deployments.current`, after a refresh if the model is unknown.

        Raises `DatabaseUnavailable` if that refresh fails.
        """
        try:
            return self._deployments.current(model, version)
        except ModelNotFound:
            requested = time.monotonic()
            async with self._refreshing:
                if self._last_refresh <= requested:
                    self._last_refresh = time.monotonic()
                    await asyncio.to_thread(self._refresh)
        return self._deployments.current(model, version)

    def versions(self, model: str) -> list[int]:
        """As `Deployments.versions`."""
        return self._deployments.versions(model)
