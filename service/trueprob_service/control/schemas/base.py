"""Shared by all bodies: examples, timestamps, and the body of an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

__all__ = ["EXAMPLE_CALIBRATOR", "ProblemDocument", "example", "given", "timestamp"]

EXAMPLE_CALIBRATOR: Final = "smart-91be7d20c4aa"


def example(**values: Any) -> ConfigDict:
    """Model settings: unknown fields are refused, and the documentation shows this example."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


def given(field: str, kind: str) -> dict[str, Any]:
    """JSON schema of an object that has this field, not null."""
    return {"required": [field], "properties": {field: {"type": kind}}}


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 UTC with milliseconds."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class ProblemDocument(BaseModel):
    """An error (RFC 9457); `code` is for programs, `error` repeats `detail`."""

    model_config = example(
        type="urn:trueprob:stale_revision",
        title="The revision is stale",
        status=412,
        detail="the live revision is 5, If-Match says 4",
        code="stale_revision",
        error="the live revision is 5, If-Match says 4",
    )
    type: str
    title: str
    status: int
    detail: str
    code: str
    error: str
