"""A version and a calibrator that answer together, frozen.

A request takes its deployment once, when it is admitted, and uses nothing else: a promotion in
flight can never mix one model's network with another's calibrator, and the answer names exactly
what it was computed with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import Calibrator
from trueprob_service.inference.served_version import ServedVersion
from trueprob_service.inference.shadow import Shadow

__all__ = ["Deployment", "Headers", "Meters", "Network", "ServedVersion", "Shadow"]

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
