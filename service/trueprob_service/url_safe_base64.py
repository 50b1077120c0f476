"""Many texts of URL-safe base64 at once, in the one spelling that an encoder gives them."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_all"]

_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


def decode_all(
    texts: Sequence[str], *, characters: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Decode texts of one length, without padding.

    One call of the decoder costs about a microsecond, as much as its work on 170 characters. Each
    text is filled up with A, which stands for zero bits, to whole groups of four.
    """
    together = _decoded(texts, characters)
    if together is not None:
        return together
    # Some are in no such form: told one by one, and the others decoded together all the same.
    form = re.compile(f"[A-Za-z0-9_-]{{{characters}}}")
    good = np.array([form.fullmatch(text) is not None for text in texts])
    raw = np.zeros((len(texts), characters * 3 // 4), np.uint8)
    decoded = _decoded([text for text, each in zip(texts, good, strict=True) if each], characters)
    if decoded is not None:
        raw[good], good[good] = decoded  # in this order: the second changes who is good
    return raw, good


def _decoded(
    texts: Sequence[str], characters: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """As `decode_all`; None when any of them cannot be decoded."""
    if not set(map(len, texts)) <= {characters}:
        return None
    fill = "A" * (-characters % 4)
    whole = fill.join((*texts, ""))
    if "+" in whole or "/" in whole:
        return None
    try:
        raw = binascii.a2b_base64(whole.encode("ascii").translate(_STANDARD), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    size, used = (characters + len(fill)) * 3 // 4, characters * 3 // 4
    rows = np.frombuffer(raw, np.uint8).reshape(len(texts), size)
    # What follows each row are the bits of the filling, and those that a text had to spare.
    spare: NDArray[np.uint8] = rows[:, used:].max(axis=1, initial=0)
    well_formed = spare == 0
    return np.where(well_formed[:, np.newaxis], rows[:, :used], np.uint8(0)), well_formed
