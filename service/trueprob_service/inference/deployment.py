"""A version and a calibrator that answer together, frozen.

A request takes its deployment once, when it is admitted, and uses nothing else: a promotion in
flight can never mix one model's network with another's calibrator, and the answer names exactly
what it was computed with.

A model version as requests meet it: its name, its number, its classes.

A candidate that answers beside the live calibrator, into the receipts and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import Calibrator
from trueprob.repository.manifest import Manifest
from trueprob_service.metrics.recent_traffic import TrafficReference
from trueprob_service.receipts.columns import ShadowRows
from trueprob_service.receipts.receipt import digest64

__all__ = ["Deployment", "Headers", "Meters", "Network", "ServedVersion", "Shadow"]


@dataclass(frozen=True)
class Shadow:
    """A calibrator in the shadow of a live pair of the same version."""

    calibrator: Calibrator
    calibrator_id: str

    def answer(self, logits: NDArray[np.float32]) -> ShadowRows:
        """What it would have answered; run only where receipts are issued."""
        found = self.calibrator.calibrated(logits)
        confidence = found.probabilities[np.arange(len(logits)), found.prediction]
        return ShadowRows(
            digest64(self.calibrator_id), found.prediction, confidence.astype(np.float64)
        )


@dataclass(frozen=True)
class ServedVersion:
    """A model version as the service knows it, from disk or declared over HTTP."""

    model: str
    version: int
    class_names: tuple[str, ...]  # one name a class, in index order
    # none for a model that was declared over HTTP: its network runs elsewhere
    manifest: Manifest | None = None
    # what unlabelled traffic is compared with; None when it came without `baseline.npz`
    reference: TrafficReference | None = field(default=None, compare=False)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def model_digest(self) -> bytes:
        """8 bytes that stand for the model's name in receipts."""
        return digest64(self.model)

    @cached_property
    def class_list_digest(self) -> bytes:
        """8 bytes that stand for the class list in receipts (names cannot contain NUL)."""
        return digest64("\0".join(self.class_names))


Headers = tuple[tuple[bytes, bytes], ...]


class Network(Protocol):
    """A network that turns a batch of decoded images into logits."""

    async def run(self, tensor: NDArray[Any], /) -> NDArray[np.float32]:
        """Logits of shape (n, k) for n rows of what the network takes (`NetworkInput`)."""

    def close(self) -> None:
        """Stop its thread; rows still waiting are refused."""


class Meters(Protocol):
    """What is measured of one deployment's predictions."""

    def observe(
        self,
        logit_gap: NDArray[np.float32],
        temperature: NDArray[np.float64] | None,
        confidence: NDArray[np.float32],
        probabilities: NDArray[np.float32],
    ) -> None:
        """Count the rows of one answer."""


@dataclass(frozen=True)
class Deployment:
    """A version and a calibrator that answer together."""

    served: ServedVersion
    calibrator: Calibrator
    calibrator_id: str
    # of the promotion that made the pair live; None for a version that is not live
    revision: int | None
    network: Network | None  # none when the version has no `model.onnx`
    meters: Meters
    shadow: Shadow | None = None  # a candidate whose answers go into the receipts

    @cached_property
    def headers(self) -> Headers:
        """What an answer's headers say of the pair."""
        said = {
            "trueprob-version": self.served.version,
            "trueprob-calibrator": self.calibrator_id,
            "trueprob-revision": self.revision,
        }
        return tuple(
            (name.encode(), str(value).encode())
            for name, value in said.items()
            if value is not None
        )
