"""What a prediction request asks for: its headers and its query."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

from trueprob_service.errors import InvalidRequest
from trueprob_service.inference.answer_fields import (
    FIELDS,
    IN_JSON,
    IN_NPZ,
    TOP_FIELDS,
    default_fields,
)
from trueprob_service.inference.wire import json_rows as wire_json
from trueprob_service.inference.wire import npy as wire_npy
from trueprob_service.inference.wire import npz as wire_npz
from trueprob_service.inference.wire.accept import negotiate

__all__ = ["PredictionRequest"]

_PARAMETERS: Final = ("version", "receipts", "input", "return", "top")
_ARRAY_INPUTS: Final = ("logits", "probabilities", "log_probabilities")
_ANSWER_TYPES: Final = (wire_json.MEDIA_TYPE, wire_npy.MEDIA_TYPE, wire_npz.NPZ_MEDIA_TYPE)
# JSON answers up to this many rows carry receipts without being asked to.
_RECEIPT_ROWS: Final = 256


@dataclass(frozen=True)
class PredictionRequest:
    """Headers and query of a prediction."""

    content_type: str  # of the body, with its parameters
    media_type: str  # of the body, without parameters
    answer_type: str  # `application/json`, `application/x-npy` or `application/x-npz`
    version: int | None  # None: the live one
    receipts: bool | None  # None: by the default rule (`wants_receipts`)
    array_input: str  # what an `.npy` body holds
    fields: tuple[str, ...]  # of a JSON or `.npz` answer
    fields_named: bool  # whether `fields` are those of `?return=`
    top: int | None  # how many of the likeliest classes; None for all

    @classmethod
    def from_scope(cls, scope: MutableMapping[str, Any]) -> PredictionRequest:
        """Read an ASGI scope.

        Raises `InvalidRequest`: a query parameter is unknown, given twice or has a value that
        cannot be used.
        """
        content_type, accepts = "", []
        for header, value in scope["headers"]:
            if header == b"content-type":
                content_type = value.decode("latin-1")
            elif header == b"accept":
                accepts.append(value.decode("latin-1"))
        return _request(content_type, ",".join(accepts), scope.get("query_string", b""))

    def wants_receipts(self, *, is_json: bool, is_images: bool, n: int) -> bool:
        """Whether an answer of n rows carries prediction ids."""
        if self.answer_type == wire_npy.MEDIA_TYPE or "prediction_ids" not in self.fields:
            return False
        if self.receipts is not None:
            return self.receipts
        return self.fields_named or is_images or (is_json and n <= _RECEIPT_ROWS)

    def check_top(self, n_classes: int) -> None:
        """Hold `top` against the model's number of classes."""
        if self.top is not None and self.top > n_classes:
            raise InvalidRequest(f"top must be from 1 to {n_classes}, got {self.top}")


# A client sends the same three again and again; what is refused is not kept.
@lru_cache(maxsize=128)
def _request(content_type: str, accept: str, query_string: bytes) -> PredictionRequest:
    query = _query(query_string)
    answer_type = negotiate(accept, _ANSWER_TYPES)
    named, top = _fields(query.get("return")), _positive("top", query.get("top"))
    if answer_type == wire_npy.MEDIA_TYPE and (named or top):
        raise InvalidRequest(
            f"{'return' if named else 'top'} selects what JSON and .npz answers hold: "
            "an .npy answer is the probabilities"
        )
    if top is None and named and set(named) & set(TOP_FIELDS):
        raise InvalidRequest(f"return names {TOP_FIELDS[0]} or its like: top must say how many")
    plain = IN_NPZ if answer_type == wire_npz.NPZ_MEDIA_TYPE else IN_JSON
    return PredictionRequest(
        content_type=content_type,
        media_type=content_type.partition(";")[0].strip().lower() or wire_json.MEDIA_TYPE,
        answer_type=answer_type,
        version=_positive("version", query.get("version")),
        receipts=_flag("receipts", query.get("receipts")),
        array_input=_choice("input", query.get("input", "logits"), _ARRAY_INPUTS),
        fields=named or default_fields(plain, top),
        fields_named=named is not None,
        top=top,
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


def _choice(name: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise InvalidRequest(f"{name} must be one of {', '.join(known)}, got {text[:40]!r}")
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
