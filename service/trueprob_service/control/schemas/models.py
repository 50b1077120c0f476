"""Bodies of the routes of models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from trueprob_service.control.schemas.base import example, given
from trueprob_service.control.schemas.labels import CalibrationVerdict

__all__ = ["ModelDescription", "ModelRequest", "UnavailableVersion", "VersionSummary"]


class ModelRequest(BaseModel):
    """Declares a logits-only model, or makes a version live."""

    model_config = example(n_classes=3, class_names=["cat", "dog", "bird"]) | ConfigDict(
        json_schema_extra={
            "examples": [{"n_classes": 3, "class_names": ["cat", "dog", "bird"]}],
            "oneOf": [
                {"anyOf": [given("n_classes", "integer"), given("class_names", "array")]},
                given("live_version", "integer")
                | {"not": {"anyOf": [given("mask_below", "number"), given("zeros", "string")]}},
            ],
        }
    )
    n_classes: StrictInt | None = Field(
        None,
        description="Number of classes of the logits.",
        json_schema_extra={"minimum": 2, "maximum": 200_000},
    )
    class_names: list[Annotated[StrictStr, Field(json_schema_extra={"minLength": 1})]] | None = (
        Field(
            None,
            description="One name for each class, in index order; default: the indices.",
            json_schema_extra={"minItems": 2, "uniqueItems": True},
        )
    )
    mask_below: float | None = Field(
        None,
        description="Of a declaration: logits at or below it, such as -1e9, mask their class; "
        "default: minus infinity only.",
        json_schema_extra={"minimum": -3.4e38, "maximum": 3.4e38},
    )
    zeros: Literal["learn", "mask"] | None = Field(
        None,
        description="Of a declaration, what a probability of 0 is: its frequency of labels is "
        "learnt (the default), or it masks its class.",
    )
    live_version: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="The version to make live; needs If-Match."
    )


class VersionSummary(BaseModel):
    """A version and the calibrator that it uses."""

    version: int
    live: bool
    calibrator: str
    n_classes: int
    network: bool = Field(description="Whether images can be sent; otherwise only logits.")


class UnavailableVersion(BaseModel):
    """A version that cannot be served, and why."""

    version: int
    reason: str


class ModelDescription(BaseModel):
    """A model, its live pair and its versions; `version` is null when none can be served."""

    model: str
    version: int | None
    calibrator: str | None
    revision: int | None
    n_classes: int | None
    class_names: list[str]
    declared: bool = Field(
        description="Declared over HTTP; otherwise found in the model repository."
    )
    versions: list[VersionSummary]
    unavailable: list[UnavailableVersion]
    verdict: CalibrationVerdict | None = Field(description="Of the live pair; null without one.")
