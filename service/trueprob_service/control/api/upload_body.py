"""The OpenAPI description of an upload's body."""

from __future__ import annotations

from typing import Any, Final

from trueprob_service.control.fitting.upload_body import (
    CSV_TYPES,
    FORM_TYPES,
    JSON_TYPES,
    NPZ_TYPES,
)

__all__ = ["UPLOAD_BODY"]

_BINARY: Final = {"type": "string", "format": "binary"}
_NUMBERS: Final = {"type": "array", "items": {"type": "number"}}
_ROWS: Final = {"type": "array", "items": _NUMBERS}
_MATRICES: Final = ("logits", "probabilities", "log_probabilities")

UPLOAD_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        **{kind: {"schema": _BINARY} for kind in (*NPZ_TYPES, *CSV_TYPES)},
        JSON_TYPES[0]: {
            "schema": {
                "type": "object",
                "required": ["labels"],
                "properties": {
                    **dict.fromkeys(_MATRICES, _ROWS),
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "contentEncoding": "base64"},
                    },
                    "labels": {
                        "type": "array",
                        "items": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                    },
                    "weights": _NUMBERS,
                    "groups": {
                        "type": "array",
                        "items": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                    },
                },
                "example": {"logits": [[0.1, 4.2, -1.0], [2.2, 0.3, 0.1]], "labels": [1, 0]},
            }
        },
        FORM_TYPES[0]: {
            "schema": {
                "type": "object",
                "required": ["labels"],
                "properties": {
                    **dict.fromkeys((*_MATRICES, "images", "labels", "weights", "groups"), _BINARY),
                    "image": {"type": "array", "items": _BINARY},
                },
            }
        },
    },
}
