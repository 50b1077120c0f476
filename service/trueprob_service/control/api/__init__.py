"""The control routes, one noun a file. Each module has functions that return its routes."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from trueprob_service.control.api.audit import audit_routes
from trueprob_service.control.api.calibration_sets import calibration_set_routes
from trueprob_service.control.api.fits import fit_routes
from trueprob_service.control.api.labels import alarm_routes, label_routes
from trueprob_service.control.api.models import model_routes
from trueprob_service.control.api.promotions import (
    calibrator_routes,
    promotion_routes,
    shadow_routes,
)
from trueprob_service.control.assembly import ControlServices

__all__ = ["create_router"]


def create_router(
    services: Callable[[], ControlServices],  # called by each request; raises `Unavailable`
) -> APIRouter:
    """Every control route, under `/v1`."""
    router = APIRouter(prefix="/v1")
    router.include_router(model_routes(services))
    router.include_router(calibration_set_routes(services))
    router.include_router(fit_routes(services))
    router.include_router(calibrator_routes(services))
    router.include_router(promotion_routes(services))
    router.include_router(shadow_routes(services))
    router.include_router(label_routes(services))
    router.include_router(alarm_routes(services))
    router.include_router(audit_routes(services))
    return router
