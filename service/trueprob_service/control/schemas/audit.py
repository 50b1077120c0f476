"""Body of the route of the audit trail."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, Field

from trueprob_service.control.schemas.base import timestamp
from trueprob_service.control.store.audit import AuditRow

__all__ = ["AuditEntry"]


class AuditEntry(BaseModel):
    """Who did what, when, and with which outcome."""

    id: int = Field(description="1, 2, 3, … without gaps.")
    at: str
    actor: str = Field(
        description="key:ID, oidc:SUBJECT, anonymous (without keys), or service (by itself)."
    )
    action: str = Field(description="Such as pair.promote or model.delete.")
    model: str | None
    outcome: Literal["done", "refused"]
    revision: int | None = Field(description="The model's live revision that it led to.")
    request_id: str = Field(description="`X-Request-Id` of the request; empty for the service.")
    detail: dict[str, Any]
    hash: str = Field(description="SHA-256 over this row and the hash of the row before it.")

    @classmethod
    def from_row(cls, row: AuditRow) -> AuditEntry:
        """A row as clients see it."""
        return cls(**{**vars(row), "at": timestamp(row.at), "detail": json.loads(row.detail)})
