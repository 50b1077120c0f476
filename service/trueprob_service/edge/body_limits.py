"""How large the body of each route may be, and what to do where that is too little."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["CONTROL_BYTES", "LABELS_BYTES", "BodyLimit", "BodyLimits"]

LABELS_BYTES: Final = 32 << 20  # 100 000 labels of predictions take some 11 MB
CONTROL_BYTES: Final = 64 << 10

_UPLOAD: Final = re.compile(r"/v1/models/[^/]+/(calibration-sets(/.*)?|versions)")
_LABELS: Final = re.compile(r"/v1/models/[^/]+/labels")
_PREDICTION: Final = re.compile(r"/v1/models/[^/]+/probabilities")
_INFERENCE: Final = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")

_FEWER_LABELS: Final = "send fewer labels a request"
_FEWER_ROWS: Final = "send fewer rows a request"
_FEWER_PICTURES: Final = "send fewer pictures a request"
_NO_JSON: Final = (
    "send rows as .npy (Content-Type application/x-npy) or fewer a request, "
    "pictures as multipart/form-data or fewer a request"
)
_BINARY_TENSORS: Final = "send tensors as binary data, or fewer rows a request"
_SHORTER: Final = (
    "send a shorter document; a model with many class names is a version in the model repository"
)


@dataclass(frozen=True)
class BodyLimit:
    """Of one route."""

    most: int  # bytes, as sent and as what they inflate to
    # what a client can do, as the end of a sentence; empty where there is nothing to say
    remedy: str = ""

    def refusal(self, fault: str) -> str:
        """A sentence for the client: the fault, then the remedy."""
        return f"{fault}: {self.remedy}" if self.remedy else fault


class BodyLimits:
    """The limits of all routes."""

    def __init__(self, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._body = max_body_bytes
        self._upload = BodyLimit(max_upload_bytes)
        self._control = BodyLimit(min(CONTROL_BYTES, max_body_bytes), _SHORTER)
        self.labels = BodyLimit(min(LABELS_BYTES, max_body_bytes), _FEWER_LABELS)
        self.smallest = min(self._control.most, max_upload_bytes)

    def of(self, path: str, content_type: str) -> BodyLimit:
        """The limit of a request."""
        if _PREDICTION.fullmatch(path):
            return BodyLimit(self._body, _prediction_remedy(content_type))
        if _INFERENCE.fullmatch(path):
            return BodyLimit(self._body, _BINARY_TENSORS)
        if _LABELS.fullmatch(path):
            return self.labels
        return self._upload if _UPLOAD.fullmatch(path) else self._control


def _prediction_remedy(content_type: str) -> str:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-npy":
        return _FEWER_ROWS
    if media_type.startswith(("image/", "multipart/")):
        return _FEWER_PICTURES
    return _NO_JSON
