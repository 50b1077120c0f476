"""Versions of a model that come in over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request

from service.control.routes.documentation import ModelPath, problems
from service.control.version_schemas import VERSION_BODY, UploadedVersion

if TYPE_CHECKING:
    from service.control.plane import ControlPlane


def create_router(plane: ControlPlane) -> APIRouter:
    """The route of ``versions``."""
    router = APIRouter(tags=["models"])

    @router.post(
        "/models/{model}/versions",
        summary="Upload a network as the model's next version",
        status_code=201,
        responses=problems(400, 403, 409, 413, 415, 422),
        openapi_extra={"requestBody": VERSION_BODY},
    )
    async def add_version(model: ModelPath, request: Request) -> UploadedVersion:
        """Add a classifier in ONNX, if the setting `allow_model_upload` says so.

        The graph is inspected and run in a process of its own before anything is visible; what it
        does not say is a part of the form, named as the flags of `trueprob-service register`. The
        version is there and not live, unless it is the model's first.
        """
        return UploadedVersion(**await plane.parts.model_uploads.add(request, model))

    return router
