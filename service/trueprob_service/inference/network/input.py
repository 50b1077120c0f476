"""The input of a network of pictures, prepared as the manifest says, or as the tensor itself.

A uint8 network has its preprocessing in the graph and takes pixels. A floating-point network gets
``(pixel / scale - mean) / std``, with ``scale``, ``mean`` and ``std`` (one number, or one per
channel) beside ``mode`` and ``resize`` in ``input.preprocessing``. The layout ``NCHW`` puts the
channels first. All of this runs in the threads that decode pictures, never in the network's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidDocument
from trueprob.pictures.decoding import PictureTooLarge, UnreadablePicture
from trueprob.pictures.preprocessing import Preprocessing
from trueprob.repository.manifest import InputSpec
from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest, ModelUnavailable
from trueprob_service.inference.wire.images import FORMATS

__all__ = ["LAYOUTS", "NetworkInput"]

LAYOUTS: Final = ("NHWC", "NCHW")
_NORMALISATION: Final = ("scale", "mean", "std")


@dataclass(frozen=True)
class NetworkInput:
    """The input tensor of a network that takes pictures, and how they are turned into it."""

    dtype: str  # NumPy's name
    row_shape: tuple[int, ...]
    pictures: Preprocessing
    channels_first: bool = False  # `NCHW`
    # channel c of a picture becomes `pixel * factor[c] - offset[c]`; empty for integer pixels
    factor: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()

    @classmethod
    def from_manifest(cls, spec: InputSpec) -> NetworkInput:
        """Read a manifest's ``input``; `ModelUnavailable` if it is not supported."""
        named = {k: v for k, v in spec.preprocessing.items() if k in _NORMALISATION}
        try:
            pictures = Preprocessing.from_manifest(
                {k: v for k, v in spec.preprocessing.items() if k not in _NORMALISATION}
            )
        except InvalidDocument as error:
            raise ModelUnavailable(str(error)) from None
        height, width, channels = pictures.shape
        first = spec.layout == "NCHW"
        shape = (channels, height, width) if first else (height, width, channels)
        if not spec.dtype.startswith("float"):
            if named or spec.dtype != "uint8":
                raise ModelUnavailable(
                    "input.dtype must be uint8, or a floating type where input.preprocessing has "
                    f"scale, mean or std; got {spec.dtype}"
                )
            return cls(spec.dtype, shape, pictures, first)
        scale, mean, std = (
            _per_channel(key, named.get(key, default), channels)
            for key, default in (("scale", 1.0), ("mean", 0.0), ("std", 1.0))
        )
        factor = tuple(1 / (s * d) for s, d in zip(scale, std, strict=True))
        offset = tuple(m / d for m, d in zip(mean, std, strict=True))
        return cls(spec.dtype, shape, pictures, first, factor, offset)

    def decode(self, files: list[bytes], *, max_pixels: int, first: int = 0) -> NDArray[Any]:
        """Turn picture files into the network's tensor; errors count them from `first`.

        Raises `BadRequest` for bytes that are not a picture or a damaged one, and `BodyTooLarge`
        for more than `max_pixels`.
        """
        batch = np.empty((len(files), *self.pictures.shape), np.uint8)
        for i, file in enumerate(files):
            name = f"images[{first + i}]"
            try:
                batch[i] = self.pictures.decode(
                    file, name=name, max_pixels=max_pixels, formats=FORMATS
                )
            except UnreadablePicture as error:
                raise BadRequest(error.message) from None
            except PictureTooLarge as error:
                raise BodyTooLarge(error.message) from None
        return self.tensor(batch)

    def check(self, rows: NDArray[Any], *, name: str = "images") -> NDArray[Any]:
        """Check that rows are decoded pictures (uint8, NHWC) or the network's tensor; n >= 1."""
        own = rows.dtype == np.dtype(self.dtype) and rows.shape[1:] == self.row_shape
        if own and len(rows) > 0 and np.isfinite(rows).all():
            return rows
        if own:
            expected = ", ".join(str(side) for side in self.row_shape)
            raise InvalidRequest(
                f"{name} must be finite {self.dtype} of shape (n, {expected}) with n at least 1, "
                f"got {rows.dtype} of shape {rows.shape}"
            )
        if rows.dtype != np.uint8 or rows.shape[1:] != self.pictures.shape or len(rows) == 0:
            expected = ", ".join(str(side) for side in self.pictures.shape)
            raise InvalidRequest(
                f"{name} must be uint8 of shape (n, {expected}), got {rows.dtype} of shape "
                f"{rows.shape}"
            )
        return rows

    def tensor(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The network's tensor for rows that passed `check`."""
        if rows.shape[1:] != self.pictures.shape or rows.dtype != np.uint8:
            return np.ascontiguousarray(rows)
        channel_axis = 1 if self.channels_first else 3
        if not self.factor:
            return np.ascontiguousarray(np.moveaxis(rows, 3, channel_axis))
        out = np.empty((len(rows), *self.row_shape), np.float32)
        channels_last = np.moveaxis(out, channel_axis, 3)
        for c, (factor, offset) in enumerate(zip(self.factor, self.offset, strict=True)):
            channel = channels_last[..., c]
            np.multiply(rows[..., c], np.float32(factor), out=channel)
            channel -= np.float32(offset)
        return out.astype(self.dtype, copy=False)


def _per_channel(key: str, value: Any, channels: int) -> tuple[float, ...]:
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if (
        len(values) not in (1, channels)
        or not all(type(v) in (int, float) and np.isfinite(v) for v in values)
        or (key != "mean" and not all(v > 0 for v in values))
    ):
        positive = "" if key == "mean" else "positive "
        raise ModelUnavailable(
            f"input.preprocessing.{key} must be one {positive}number or {channels}, got {value!r}"
        )
    return tuple(float(v) for v in (values * channels)[:channels])
