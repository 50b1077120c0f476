"""Which representation an ``Accept`` header asks for (RFC 9110, 12.5.1).

The quality of a representation is that of the most specific range that matches it. Between equal
qualities the range that names more of it decides, then the order in the header, then ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from trueprob_service.errors import NotAcceptable

__all__ = ["negotiate"]

_QUALITY: Final = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """The media type to answer with.

    Returns: one of `offered`. Raises `NotAcceptable`: nothing that is offered has a quality above
    zero.
    """
    if accept in ("", "*/*", offered[0]):
        return offered[0]
    ranges = [_range(part, place) for place, part in enumerate(accept.split(","))]
    best, best_rank = "", (0.0, 0, 0)
    for media_type in offered:
        wanted = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        matching = [
            (2 - wanted.index(media_range), -place, quality)
            for media_range, quality, place in ranges
            if media_range in wanted
        ]
        if matching:
            specificity, place, quality = max(matching)
            rank = (quality, specificity, place)
            if quality > 0 and rank > best_rank:
                best, best_rank = media_type, rank
    if not best:
        raise NotAcceptable(f"Accept must have one of {', '.join(offered)}, got {accept[:80]!r}")
    return best


def _range(part: str, place: int) -> tuple[str, float, int]:
    """A media range, its quality (0 when it is malformed) and its place in the header."""
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = "1"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            quality = value.strip()
    return media_range, float(quality) if _QUALITY.fullmatch(quality) else 0.0, place
