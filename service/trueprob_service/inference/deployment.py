"""A deployment: a model version and a calibrator that answer together, frozen.

A request reads its deployment once and uses nothing else. So a promotion during the request can
never mix one version's network with another's calibrator, and the answer names exactly what it was
computed with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import Calibrator
from trueprob.repository.manifest import Manifest
from trueprob.repository.model_version import MODEL
from trueprob_service.inference.network.inputs import NetworkInputs
from trueprob_service.inference.network.tensors import Tensors
from trueprob_service.metrics.recent_traffic import TrafficReference
from trueprob_service.receipts.columns import ShadowRows
from trueprob_service.receipts.receipt import digest64

__all__ = ["Deployment", "Headers", "Meters", "Network", "ServedVersion", "Shadow"]

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class ServedVersion:
    """A model version, from the model repository or declared over HTTP."""

    model: str
    version: int
    class_names: tuple[str, ...]  # in index order
    # None for a declared model
    manifest: Manifest | None = None
    # what live traffic is compared with; None without `baseline.npz`
    reference: TrafficReference | None = field(default=None, compare=False)
    # why its network does not run here; None if it does, or if there is none
    refusal: str | None = field(default=None, compare=False)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def inputs(self) -> NetworkInputs | None:
        """The inputs of the network; None for a version without one.

        Raises `ModelUnavailable` if the manifest's inputs are not supported.
        """
        manifest = self.manifest
        if manifest is None or not manifest.network_inputs or MODEL not in manifest.files:
            return None
        return NetworkInputs.from_manifest(manifest)

    @cached_property
    def model_digest(self) -> bytes:
        """8 bytes for the model's name in receipts."""
        return digest64(self.model)

    @cached_property
    def class_list_digest(self) -> bytes:
        """8 bytes for the class list in receipts (names cannot contain NUL)."""
        return digest64("\0".join(self.class_names))


class Network(Protocol):
    """Runs a version's network."""

    @property
    def failure(self) -> str | None:
        """Why it does not run now; None if it does."""

    async def run(self, tensors: Tensors, /) -> NDArray[np.float32]:
        """Logits of shape (n, k) for n rows of the network's inputs (`NetworkInputs.tensors`)."""

    def close(self) -> None:
        """Stop its thread and refuse the waiting rows."""


class Meters(Protocol):
    """The metrics of one deployment."""

    def observe(
        self,
        logit_gap: NDArray[np.float32],
        temperature: NDArray[np.float64] | None,
        confidence: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        logits: NDArray[np.float32],
    ) -> None:
        """Count the rows of one answer."""

    def recent_logits(self) -> NDArray[np.float32] | None:
        """A sample of the version's recent rows; None without traffic."""


@dataclass(frozen=True)
class Shadow:
    """A calibrator in the shadow of a live pair; its answers go into the receipts only."""

    calibrator: Calibrator
    calibrator_id: str

    def answer(self, logits: NDArray[np.float32]) -> ShadowRows:
        """What it would have answered; computed only when receipts are issued."""
        calibrated = self.calibrator.calibrated(logits)
        confidence = calibrated.probabilities[np.arange(len(logits)), calibrated.prediction]
        return ShadowRows(
            digest64(self.calibrator_id), calibrated.prediction, confidence.astype(np.float64)
        )


@dataclass(frozen=True)
class Deployment:
    """A version and a calibrator, with all that an answer needs."""

    served: ServedVersion
    calibrator: Calibrator
    calibrator_id: str
    revision: int | None  # None for a version that is not live
    network: Network | None  # None for a version without `model.onnx`
    meters: Meters
    candidate: Shadow | None = None  # in shadow: labels say whether it is better
    predecessor: Shadow | None = None  # in shadow: what was live before a promotion

    @cached_property
    def headers(self) -> Headers:
        """The headers of an answer that name the version, the calibrator and the revision."""
        values = {
            "trueprob-version": self.served.version,
            "trueprob-calibrator": self.calibrator_id,
            "trueprob-revision": self.revision,
        }
        return tuple(
            (name.encode(), str(value).encode())
            for name, value in values.items()
            if value is not None
        )
