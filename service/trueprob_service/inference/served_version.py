"""A model version as requests meet it: its name, its number, its classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from trueprob.repository.model_repository import Manifest
from trueprob_service.metrics.recent_traffic import TrafficReference
from trueprob_service.receipts.receipt import digest64

__all__ = ["ServedVersion"]


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
