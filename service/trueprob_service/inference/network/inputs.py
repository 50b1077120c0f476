"""The inputs of a version's network, as its manifest has them, and the ways to fill them.

`network.input` turns pictures into a tensor; rows of numbers and named inputs are tensors already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from trueprob.repository.manifest import InputSpec, Manifest
from trueprob_service.errors import InvalidRequest, ModelUnavailable
from trueprob_service.inference.network.input import LAYOUTS, NetworkInput
from trueprob_service.inference.network.tensors import (
    DTYPES,
    NamedTensors,
    Tensors,
    TensorSpec,
    matching,
)

__all__ = ["NetworkInputs"]

_SET_ARRAYS: Final = frozenset(
    ("labels", "logits", "probabilities", "log_probabilities", "weights", "groups", "class_names")
)


@dataclass(frozen=True)
class NetworkInputs:
    """All inputs of a network."""

    specs: tuple[TensorSpec, ...]
    pictures: NetworkInput | None = None  # of the only input, if that takes pictures

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> NetworkInputs:
        """Read a manifest's inputs; `ModelUnavailable` if one is not supported."""
        inputs = manifest.network_inputs
        if len(inputs) == 1 and inputs[0].layout in LAYOUTS:
            accepted = NetworkInput.from_manifest(inputs[0])
            spec = TensorSpec(inputs[0].name, accepted.dtype, accepted.row_shape)
            return cls((spec,), accepted)
        return cls(tuple(map(_tensor_spec, inputs)))

    @property
    def names(self) -> str:
        """The names of the inputs, for messages."""
        return ", ".join(spec.name for spec in self.specs)

    def from_rows(self, rows: NDArray[Any], *, name: str = "rows") -> Tensors:
        """Checked rows of numbers, for a network of one input."""
        if len(self.specs) > 1:
            raise InvalidRequest(
                f"this network has {len(self.specs)} inputs ({self.names}): send them by name, as "
                f"inputs, not as {name}"
            )
        return self._batch({self.specs[0].name: self.specs[0].check(rows, name=name)})

    def from_fields(self, fields: Mapping[str, NDArray[Any]]) -> Tensors:
        """Checked inputs that are sent by name."""
        wanted = {spec.name for spec in self.specs}
        for name in fields:
            if name not in wanted:
                raise InvalidRequest(
                    f"inputs has the unknown name {name[:40]!r}: this network has {self.names}"
                )
        for spec in self.specs:
            if spec.name not in fields:
                raise InvalidRequest(f"inputs must have {spec.name}, {spec}, and it is missing")
        return self._batch({spec.name: spec.check(fields[spec.name]) for spec in self.specs})

    def _batch(self, checked: Mapping[str, NDArray[Any]]) -> Tensors:
        """One batch; beside pictures, its type says that it is what the network takes."""
        return matching(self.specs, checked) if self.pictures is None else NamedTensors(checked)

    def tensors(
        self, rows: Tensors | list[bytes], *, max_pixels: int = 0, first: int = 0
    ) -> Tensors:
        """What the network takes, for rows that were checked or for picture files.

        Errors count pictures from `first`.
        """
        if self.pictures is None or isinstance(rows, NamedTensors):
            return rows  # type: ignore[return-value]  # only networks of pictures take files
        if isinstance(rows, list):
            return self.pictures.decode(rows, max_pixels=max_pixels, first=first)
        return self.pictures.tensor(rows)

    def take(
        self,
        arrays: dict[str, NDArray[Any]],  # what is for the network is removed
        pictures: list[bytes] | None = None,
        fields: Mapping[str, NDArray[Any]] | None = None,
    ) -> Tensors | list[bytes] | None:
        """What of a calibration set is for the network, checked; None if nothing is.

        That is ``images`` (decoded, or files), ``rows``, or inputs by name, in an object of their
        own or among the arrays. ``images`` are rows if the network takes no pictures.
        """
        ways: list[str] = [name for name in ("images", "rows") if name in arrays]
        named = ({spec.name for spec in self.specs} - _SET_ARRAYS - set(ways)) & set(arrays)
        ways += ["images"] * (pictures is not None) + ["inputs"] * (fields is not None)
        ways += [min(named)] if named else []
        if not ways:
            return None
        others = sorted({"logits", "probabilities", "log_probabilities"} & set(arrays))
        if len(ways + others) > 1:
            first, second = (ways + others)[:2]
            raise InvalidRequest(f"{first} and {second} must not come together")
        if "class_names" in arrays:
            raise InvalidRequest(
                f"class_names are those of columns of numbers: leave them out with {ways[0]}, "
                "whose labels may be names"
            )
        if pictures is not None:
            self.require_pictures()
            return pictures
        if fields is None and named:
            fields = {name: arrays.pop(name) for name in sorted(named)}
        if fields is not None:
            return self.from_fields(fields)
        rows = arrays.pop(ways[0])
        if ways == ["images"] and self.pictures is not None:
            return self.pictures.check(rows)
        return self.from_rows(rows, name=ways[0])

    def require_pictures(self) -> NetworkInput:
        """How pictures become a tensor; `InvalidRequest` if the network takes none."""
        if self.pictures is None:
            raise InvalidRequest(
                f"this network takes no pictures: send rows or inputs ({self.names})"
            )
        return self.pictures


def _tensor_spec(spec: InputSpec) -> TensorSpec:
    if spec.dtype not in DTYPES or spec.preprocessing or not spec.shape or spec.layout in LAYOUTS:
        raise ModelUnavailable(
            f"input {spec.name!r} of layout {spec.layout!r} needs a dtype of {', '.join(DTYPES)}, "
            f"a shape with rows first and no preprocessing, got {spec.dtype} of "
            f"{list(spec.shape)}"
        )
    return TensorSpec(spec.name, spec.dtype, spec.shape[1:])
