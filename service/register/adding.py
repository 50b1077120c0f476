"""What the control plane is given to make versions of uploaded forms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.settings import Settings

if TYPE_CHECKING:
    from service.control.model_uploads import AddVersion

__all__ = ["version_adder"]


def version_adder(settings: Settings) -> AddVersion:
    """Adds versions to the settings' model repository, each in a process of its own."""

    def add(
        path: Path, content_type: str, *, model: str, version: int, created_at: float
    ) -> dict[str, Any]:
        from service.register.upload import UploadedForm, register_apart  # rarely needed

        form = UploadedForm(
            path=path,
            content_type=content_type,
            repository=settings.model_repository,
            model=model,
            version=version,
            providers=settings.execution_providers,
            max_bytes=settings.max_upload_bytes,
            created_at=created_at,
        )
        return register_apart(form, seconds=settings.fit_deadline_seconds)

    return add
