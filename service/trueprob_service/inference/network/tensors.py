"""Tensors of a network's inputs: their names, types and shapes, and the arrays of a request.

A network of one input takes an array; one of several takes `NamedTensors`, whose rows belong
together. Both are cut and joined by rows. Rows of one batch have one shape: padding rows to one
length is for the client, who knows which token pads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.errors import InvalidRequest

__all__ = ["DTYPES", "NamedTensors", "TensorSpec", "Tensors", "joined", "matching", "row_shapes"]

# NumPy's names of the types that inputs may have.
DTYPES: Final = (
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
_EXACT: Final = 2.0**53  # larger integers are not all exact in float64
_KINDS: Final = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


@dataclass(frozen=True)
class TensorSpec:
    """An input of a network. A name in the shape of a row is a length that may differ by batch."""

    name: str
    dtype: str  # NumPy's name, one of `DTYPES`
    row_shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype} of shape ({', '.join(['n', *map(str, self.row_shape)])})"

    def check(self, values: NDArray[Any], *, name: str | None = None) -> NDArray[Any]:
        """The values in the input's own type, if no number changes and the shape fits; n >= 1."""
        name = self.name if name is None else name
        tensor = self._converted(values, name)
        shape = tensor.shape[1:]
        fits = tensor.ndim == len(self.row_shape) + 1 and all(
            side == given or isinstance(side, str)
            for side, given in zip(self.row_shape, shape, strict=True)
        )
        if not fits or tensor.size == 0:
            raise InvalidRequest(f"{name} must be {self} with n at least 1, got {values.shape}")
        return np.ascontiguousarray(tensor)

    @property
    def filler(self) -> int:
        """A value that any network takes: 0, and 1 for a mask, which must leave some."""
        return 1 if "mask" in self.name.lower() and not self.dtype.startswith("float") else 0

    def example(self, n: int, length: int) -> NDArray[Any]:
        """Rows of the filler."""
        shape = (n, *(side if isinstance(side, int) else length for side in self.row_shape))
        return np.full(shape, self.filler, self.dtype)

    def random(self, rng: np.random.Generator, n: int, length: int) -> NDArray[Any]:
        """Rows of random numbers; integers are 0 and 1, which nearly every vocabulary has."""
        if self.filler:
            return self.example(n, length)
        shape = self.example(n, length).shape
        if self.dtype.startswith("float"):
            return rng.normal(size=shape).astype(self.dtype)
        return rng.integers(0, 2, shape).astype(self.dtype)

    def _converted(self, values: NDArray[Any], name: str) -> NDArray[Any]:
        wanted = np.dtype(self.dtype)
        if values.dtype == wanted and wanted.kind != "f":
            return values
        if values.dtype.kind not in ("b" if wanted.kind == "b" else "") + "iuf":
            got = _KINDS.get(values.dtype.kind, str(values.dtype))
            raise InvalidRequest(f"{name} must hold {_KINDS[wanted.kind]}, {self}, got {got}")
        if wanted.kind == "f":
            with np.errstate(over="ignore"):
                tensor = values.astype(wanted, copy=False)
            _require(np.isfinite(tensor), name, f"finite numbers ({self.dtype})")
            return tensor
        if wanted.kind == "b":
            _require((values == 0) | (values == 1), name, "booleans, or 0 and 1")
        elif values.dtype.kind == "f":
            whole = np.isfinite(values) & (np.abs(values) < _EXACT) & (values == np.floor(values))
            _require(whole, name, f"whole numbers ({self.dtype})")
        if wanted.kind in "iu":
            limits = np.iinfo(wanted)
            _require(
                (values >= limits.min) & (values <= limits.max),
                name,
                f"whole numbers from {limits.min} to {limits.max} ({self.dtype})",
            )
        return values.astype(wanted)


@dataclass(frozen=True, eq=False)
class NamedTensors:
    """The tensors of several inputs, with the same number of rows."""

    arrays: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: slice) -> NamedTensors:
        return NamedTensors({name: array[rows] for name, array in self.arrays.items()})


Tensors = NDArray[Any] | NamedTensors


def row_shapes(tensors: Tensors) -> list[tuple[str, tuple[int, ...]]]:
    """The shapes of a row in each input; only batches with equal ones can be joined."""
    arrays = tensors.arrays if isinstance(tensors, NamedTensors) else {"": tensors}
    return [(name, array.shape[1:]) for name, array in arrays.items()]


def joined(batches: Sequence[Any]) -> Any:
    """One batch of several with the same row shapes; all are arrays or all are `NamedTensors`."""
    if not isinstance(batches[0], NamedTensors):
        return np.concatenate(batches)
    names = batches[0].arrays
    return NamedTensors({n: np.concatenate([each.arrays[n] for each in batches]) for n in names})


def matching(specs: Sequence[TensorSpec], arrays: Mapping[str, NDArray[Any]]) -> Tensors:
    """Checked arrays of all inputs as one batch.

    Raises `InvalidRequest` unless they have the same number of rows, and the same length wherever
    the network names a length twice.
    """
    first = specs[0]
    n, lengths = len(arrays[first.name]), dict[str, tuple[str, int]]()
    for spec in specs:
        array = arrays[spec.name]
        if len(array) != n:
            raise InvalidRequest(
                f"{first.name} has {n} rows, {spec.name} has {len(array)}: every input must have "
                "the same rows"
            )
        for side, length in zip(spec.row_shape, array.shape[1:], strict=True):
            if isinstance(side, str):
                other, expected = lengths.setdefault(side, (spec.name, length))
                if length != expected:
                    raise InvalidRequest(
                        f"{spec.name} must have the {side} of {other}, {expected}, got {length} "
                        f"(shape {array.shape})"
                    )
    return arrays[first.name] if len(specs) == 1 else NamedTensors(arrays)


def _require(fits: NDArray[np.bool_], name: str, expected: str) -> None:
    if not fits.all():
        row = int(np.argmin(fits)) // max(1, math.prod(fits.shape[1:]))
        raise InvalidRequest(f"{name} must hold {expected}, row {row} does not")
