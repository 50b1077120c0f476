"""The answer to an uploaded version, and its form as the API's documentation shows it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from service.control.schemas import example

__all__ = ["VERSION_BODY", "UploadedVersion"]

_OPTIONS: Final = (
    "class_names", "method", "output", "output_kind", "layout", "mode", "resize", "crop",
    "resample", "scale", "mean", "std",
)  # fmt: skip
_BINARY: Final = {"type": "string", "format": "binary"}

VERSION_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["model"],
                "properties": {
                    "model": _BINARY,
                    "calibration": _BINARY,
                    **{name: {"type": "string"} for name in _OPTIONS},
                },
            }
        }
    },
}


class UploadedVersion(BaseModel):
    """A version that was added."""

    model_config = example(
        model="digits",
        version=2,
        live=False,
        n_classes=10,
        input={"name": "image", "dtype": "uint8", "shape": ["batch", 8, 8, 1], "layout": "NHWC"},
        output={"name": "logits", "kind": "logits"},
        calibrator="smart-91be7d20c4aa",
        scores=None,
        warnings=[],
    )
    model: str
    version: int
    live: bool = Field(description="Only the first version of a model goes live by itself.")
    n_classes: int
    input: dict[str, Any] = Field(description="As in the manifest.")
    output: dict[str, Any] = Field(description="Its name, and whether it is logits.")
    calibrator: str | None = Field(description="Null without a calibration set.")
    scores: dict[str, Any] | None = Field(description="On the calibration set, before and after.")
    warnings: list[str]
