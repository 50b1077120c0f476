"""A candidate in the shadow of the live pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from trueprob_service.control.api.documentation import ModelPath, problems
from trueprob_service.control.api.requests import caller
from trueprob_service.control.schemas.live import ShadowRequest, ShadowSummary, shadow_summary

if TYPE_CHECKING:
    from trueprob_service.control.plane import ControlPlane


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``shadow``."""
    router = APIRouter(tags=["shadow"])

    @router.get(
        "/models/{model}/shadow",
        summary="How a shadowing candidate does",
        responses=problems(404),
    )
    def get_shadow(model: ModelPath) -> ShadowSummary:
        """Evidence both ways of what shadows the model, or did last."""
        return shadow_summary(plane.parts.shadows.newest(model))

    @router.put(
        "/models/{model}/shadow",
        summary="Let a calibrator shadow the live pair",
        responses={
            201: {"model": ShadowSummary, "description": "It shadows from now on"},
            **problems(404, 409, 422),
        },
    )
    def put_shadow(
        model: ModelPath, body: ShadowRequest, request: Request, response: Response
    ) -> ShadowSummary:
        """Compare a calibrator of the live version with what is live, on the labels to come.

        It takes the place of what shadowed before. Nothing is answered with it; receipts carry
        its answers too, and labels score both. It ends when another pair goes live.
        """
        row, is_new = plane.parts.shadows.put(
            model, body.calibrator, policy=body.policy, by=caller(request)
        )
        response.status_code = 201 if is_new else 200
        return shadow_summary(row)

    @router.delete(
        "/models/{model}/shadow",
        status_code=204,
        summary="End a shadow",
        responses=problems(404),
    )
    def delete_shadow(model: ModelPath) -> None:
        """Stop comparing; what was found until now can still be read."""
        plane.parts.shadows.remove(model)

    return router
