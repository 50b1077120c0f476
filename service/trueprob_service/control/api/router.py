"""The control routes, one noun a file."""

from __future__ import annotations

from fastapi import APIRouter

from trueprob_service.control.api import (
    alarms,
    calibration_sets,
    fits,
    labels,
    models,
    promotions,
    shadows,
)
from trueprob_service.control.plane import ControlPlane
from trueprob_service.control.routes import calibrators

__all__ = ["create_router"]


def create_router(plane: ControlPlane) -> APIRouter:
    """Every control route."""
    router = APIRouter(prefix="/v1")
    for part in (
        models, calibration_sets, fits, calibrators, promotions, shadows, labels, alarms,
    ):  # fmt: skip
        router.include_router(part.create_router(plane))
    return router
