"""Headers and query of a prediction request.

The ``Accept`` header chooses the media type of the answer (RFC 9110, 12.5.1). The quality of a
media type is that of the most specific range that matches it. Of equal qualities the one with the
more specific range wins, then the first in the header, then the first that is offered.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from trueprob_service.errors import InvalidRequest, NotAcceptable
from trueprob_service.inference.answer import (
    FIELDS,
    JSON_FIELDS,
    NPZ_FIELDS,
    TOP_FIELDS,
    default_fields,
)
from trueprob_service.inference.wire import json_rows, npy

__all__ = ["ID_HEADER", "PredictionOptions", "RequestId", "negotiate", "request_id"]

ID_HEADER: Final = b"x-prediction-id"
_REQUEST_ID_HEADER: Final = b"x-request-id"

_PARAMETERS: Final = ("version", "receipts", "input", "return", "top", "id_from")
_ARRAY_INPUTS: Final = ("logits", "probabilities", "log_probabilities", "rows")
_ANSWER_TYPES: Final = (json_rows.MEDIA_TYPE, npy.MEDIA_TYPE, npy.NPZ_MEDIA_TYPE)
# JSON answers of up to this many rows carry receipts by default.
_RECEIPT_ROWS: Final = 256
_QUALITY: Final = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")


class RequestId(NamedTuple):
    """An id for the rows of a whole request, and what it was sent as."""

    text: str
    name: str


@dataclass(frozen=True)
class PredictionOptions:
    """Headers and query of a prediction, checked."""

    content_type: str  # of the body, with its parameters
    media_type: str  # of the body, without parameters
    answer_type: str  # `application/json`, `application/x-npy` or `application/x-npz`
    version: int | None  # None: the live version
    receipts: bool | None  # None: by the default rule (`wants_receipts`)
    array_input: str  # what the numbers of an `.npy` body are, one of `_ARRAY_INPUTS`
    fields: tuple[str, ...]  # of a JSON or `.npz` answer
    fields_named: bool  # whether `?return=` names them
    top: int | None  # number of most likely classes; None: all
    id_from: str | None  # `request-id`: X-Request-Id is the id of the rows
    request_id: RequestId | None = None  # that a header gives to the rows

    @classmethod
    def from_scope(cls, scope: MutableMapping[str, Any]) -> PredictionOptions:
        """Read an ASGI scope; `InvalidRequest` for a bad query, `NotAcceptable` for ``Accept``."""
        content_type, accepts, given = "", [], None
        for header, value in scope["headers"]:
            if header == b"content-type":
                content_type = value.decode("latin-1")
            elif header == b"accept":
                accepts.append(value.decode("latin-1"))
            elif header == ID_HEADER:
                given = value
        options = _request(content_type, ",".join(accepts), scope.get("query_string", b""))
        if given is None and options.id_from is None:
            return options
        if options.id_from is None:
            return replace(options, request_id=request_id("X-Prediction-Id", given))
        if given is not None:
            raise InvalidRequest("ids are given twice: as X-Prediction-Id and by id_from")
        sent = dict(scope["headers"]).get(_REQUEST_ID_HEADER)
        return replace(options, request_id=request_id("X-Request-Id", sent))

    def wants_receipts(self, *, is_json: bool, is_images: bool, n: int) -> bool:
        """Whether an answer of n rows carries prediction ids; `is_…` describe the request body."""
        if self.answer_type == npy.MEDIA_TYPE or "prediction_ids" not in self.fields:
            return False
        if self.receipts is not None:
            return self.receipts
        return self.fields_named or is_images or (is_json and n <= _RECEIPT_ROWS)

    def check_classes(self, n_classes: int) -> None:
        """Refuse a `top` above the model's number of classes, and ``p1`` unless it has two."""
        if self.top is not None and self.top > n_classes:
            raise InvalidRequest(f"top must be from 1 to {n_classes}, got {self.top}")
        if self.fields_named and n_classes != 2 and "p1" in self.fields:
            raise InvalidRequest(
                f"return names p1, P(class 1) of two classes: this model has {n_classes}"
            )


def request_id(name: str, value: bytes | None) -> RequestId:
    """The id in a header; `InvalidRequest` if there is none or it is not UTF-8."""
    try:
        return RequestId((value or b"").decode(), name)
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name} must be UTF-8, got {value!r:.50}") from None


# Most requests of a client have the same three values. Errors are not cached.
@lru_cache(maxsize=128)
def _request(content_type: str, accept: str, query_string: bytes) -> PredictionOptions:
    query = _query(query_string)
    answer_type = negotiate(accept, _ANSWER_TYPES)
    named, top = _fields(query.get("return")), _positive("top", query.get("top"))
    if answer_type == npy.MEDIA_TYPE and (named or top):
        raise InvalidRequest(
            f"{'return' if named else 'top'} is for JSON and .npz answers: "
            "an .npy answer is the array of probabilities"
        )
    if top is None and named and set(named) & set(TOP_FIELDS):
        raise InvalidRequest(f"return names one of {', '.join(TOP_FIELDS)}: top must say how many")
    all_fields = NPZ_FIELDS if answer_type == npy.NPZ_MEDIA_TYPE else JSON_FIELDS
    return PredictionOptions(
        content_type=content_type,
        media_type=content_type.partition(";")[0].strip().lower(),
        answer_type=answer_type,
        version=_positive("version", query.get("version")),
        receipts=_flag("receipts", query.get("receipts")),
        array_input=_choice("input", query.get("input", "logits"), _ARRAY_INPUTS),
        fields=named or default_fields(all_fields, top),
        fields_named=named is not None,
        top=top,
        id_from=_optional("id_from", query.get("id_from"), ("request-id",)),
    )


def _query(raw: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name not in _PARAMETERS:
            raise InvalidRequest(
                f"unknown query parameter {name!r}: expected one of {', '.join(_PARAMETERS)}"
            )
        if name in values:
            raise InvalidRequest(f"query parameter {name!r} is given twice")
        values[name] = value
    return values


def _positive(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9 or text.startswith("0"):
        raise InvalidRequest(f"{name} must be a positive integer, got {text[:20]!r}")
    return int(text)


def _flag(name: str, text: str | None) -> bool | None:
    if text is None:
        return None
    return _choice(name, text.lower(), ("true", "false")) == "true"


def _optional(name: str, text: str | None, allowed: tuple[str, ...]) -> str | None:
    return None if text is None else _choice(name, text, allowed)


def _choice(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise InvalidRequest(f"{name} must be one of {', '.join(allowed)}, got {text[:40]!r}")
    return text


def _fields(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    for place, name in enumerate(names):
        if name not in FIELDS:
            raise InvalidRequest(
                f"return names the unknown field {name[:40]!r}: expected {', '.join(FIELDS)}"
            )
        if name in names[:place]:
            raise InvalidRequest(f"return names {name!r} twice")
    return names


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """Choose one of the offered media types (lower case, ours first) for an ``Accept`` header.

    An empty header accepts everything. Raises `NotAcceptable` if no type has a quality above zero.
    """
    if accept in ("", "*/*", offered[0]):
        return offered[0]
    ranges = [_range(part, place) for place, part in enumerate(accept.split(","))]
    best, best_rank = "", (0.0, 0, 0)
    for media_type in offered:
        candidates = (media_type, media_type.partition("/")[0] + "/*", "*/*")
        matching = [
            (2 - candidates.index(media_range), -place, quality)
            for media_range, quality, place in ranges
            if media_range in candidates
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
    """A media range, its quality (0 if malformed) and its place in the header."""
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = "1"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            quality = value.strip()
    return media_range, float(quality) if _QUALITY.fullmatch(quality) else 0.0, place
