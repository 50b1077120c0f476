"""Pictures in JSON: texts in base64, to the bytes of PNG, JPEG or WebP that they stand for."""

from __future__ import annotations

import base64
import binascii

from trueprob_service.errors import InvalidRequest

__all__ = ["pictures_from_base64"]


def pictures_from_base64(values: object) -> list[bytes]:
    """The encoded pictures of a body's ``images``.

    Returns: at least one; nothing is decoded as a picture yet. Raises `InvalidRequest`: not a list
    of texts in base64 with at least one.
    """
    if not isinstance(values, list) or not values:
        raise InvalidRequest("images must be a list of base64 strings with at least one")
    pictures = []
    for i, text in enumerate(values):
        if not isinstance(text, str):
            raise InvalidRequest(f"images[{i}] must be a base64 string")
        try:
            pictures.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"images[{i}] is not valid base64") from None
    return pictures
