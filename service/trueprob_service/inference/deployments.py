"""What is live: one frozen `Deployment` a model version, swapped by one reference.

Readers take no lock; writers take one among themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from trueprob.calibrators import Calibrator
from trueprob_service.errors import ModelNotFound, VersionNotFound
from trueprob_service.inference.deployment import Deployment, Meters, Network, ServedVersion, Shadow
from trueprob_service.metrics.recent_traffic import TrafficReference

__all__ = ["Deployments"]

MetersFor = Callable[[str, int, str, str, int | None, TrafficReference | None], Meters]


@dataclass(frozen=True)
class _Versions:
    live: int
    by_version: Mapping[int, Deployment]


class Deployments:
    """Every deployment of the process, by model and version."""

    def __init__(
        self,
        *,
        network_for: Callable[[ServedVersion], Network | None],
        meters_for: MetersFor,
        on_remove: Callable[[str], None] | None = None,  # told the name of a model that was removed
    ) -> None:
        self._network_for = network_for
        self._meters_for = meters_for
        self._on_remove = on_remove
        self._models: Mapping[str, _Versions] = MappingProxyType({})
        self._networks: dict[tuple[str, int], Network | None] = {}
        self._writing = threading.Lock()
        self._building = threading.Lock()

    def current(self, model: str, version: int | None = None) -> Deployment:
        """The deployment that answers now."""
        versions = self._models.get(model)
        if versions is None:
            raise ModelNotFound(f"there is no model named {model!r}")
        try:
            return versions.by_version[versions.live if version is None else version]
        except KeyError:
            raise VersionNotFound(f"model {model!r} has no version {version}") from None

    def versions(self, model: str) -> list[int]:
        """The versions of a model, in order; empty for an unknown one."""
        known = self._models.get(model)
        return [] if known is None else sorted(known.by_version)

    def deploy(
        self,
        served: ServedVersion,
        calibrator: Calibrator,
        calibrator_id: str,
        *,
        revision: int | None,
    ) -> None:
        """Put a pair in place of what its version answered with until now.

        A promotion below the live revision is ignored, and so is the live version without one:
        writers that race leave the latest in place.
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
            )
            by_version = dict(before.by_version) if before is not None else {}
            if revision is not None and live is not None and live.served.version != served.version:
                by_version[live.served.version] = replace(live, revision=None, shadow=None)
            by_version[served.version] = deployment
            is_live = revision is not None or before is None
            now_live = served.version if is_live or before is None else before.live
            self._models = MappingProxyType(
                {
                    **self._models,
                    served.model: _Versions(now_live, MappingProxyType(by_version)),
                }
            )

    def shadow(self, model: str, revision: int, shadow: Shadow | None) -> None:
        """Let a candidate shadow a live pair, or none; nothing when that is not live here."""
        with self._writing:
            known = self._models.get(model)
            if known is None or known.by_version[known.live].revision != revision:
                return
            live = replace(known.by_version[known.live], shadow=shadow)
            by_version = MappingProxyType({**known.by_version, known.live: live})
            changed = {model: _Versions(known.live, by_version)}
            self._models = MappingProxyType({**self._models, **changed})

    def _network(self, served: ServedVersion) -> Network | None:
        """The network of a version, built once; loading one may take minutes."""
        key = (served.model, served.version)
        if (network := self._networks.get(key)) is None:
            with self._building:
                if (network := self._networks.get(key)) is None:
                    network = self._network_for(served)
                    self._networks[key] = network
        return network

    def remove(self, model: str) -> None:
        """Forget a model; requests that already hold its deployment finish with it."""
        with self._writing:
            rest = {name: versions for name, versions in self._models.items() if name != model}
            self._models = MappingProxyType(rest)
            for key in [key for key in self._networks if key[0] == model]:
                network = self._networks.pop(key)
                if network is not None:
                    network.close()
        if self._on_remove is not None:
            self._on_remove(model)

    def names(self) -> set[str]:
        """Of every model."""
        return set(self._models)

    def live(self) -> Iterator[Deployment]:
        """The live deployment of each model, by name."""
        models = self._models
        for name in sorted(models):
            yield models[name].by_version[models[name].live]

    def close(self) -> None:
        """Stop every network."""
        with self._writing:
            for network in self._networks.values():
                if network is not None:
                    network.close()
            self._networks.clear()
