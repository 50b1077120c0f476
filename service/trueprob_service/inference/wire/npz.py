"""``application/x-npz``: every field of an answer as an array, in one uncompressed archive.

Text becomes NumPy's fixed-width unicode and single values arrays without dimensions, so that
``numpy.load(file, allow_pickle=False)`` reads all of it. What is null in JSON is left out.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

__all__ = ["NPZ_MEDIA_TYPE", "encode_npz"]

NPZ_MEDIA_TYPE: Final = "application/x-npz"


def encode_npz(fields: Mapping[str, Any]) -> bytes:
    """An ``.npz`` archive of arrays, lists of text, numbers and text."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = {
        name: np.asarray(value) for name, value in fields.items() if value is not None
    }
    np.savez(stream, **arrays)
    return stream.getvalue()
