"""Models: list, describe, declare, make a version live, delete."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from trueprob_service.control.api.documentation import (
    DEFAULT_PAGE,
    IF_MATCH_SOMETIMES,
    CursorQuery,
    IfMatchHeader,
    LimitQuery,
    ModelPath,
    caller,
    expected_revision,
    problems,
    visible_models,
)
from trueprob_service.control.assembly import ControlServices
from trueprob_service.control.schemas.lists import Items, Page
from trueprob_service.control.schemas.models import ModelDescription, ModelRequest
from trueprob_service.errors import InvalidRequest

__all__ = ["model_routes"]


def model_routes(services: Callable[[], ControlServices]) -> APIRouter:
    """List, describe, declare and delete models, and make versions live."""
    router = APIRouter(tags=["models"])

    @router.get("/models", summary="List models", responses=problems(422))
    def list_models(
        request: Request, cursor: CursorQuery = None, limit: LimitQuery = DEFAULT_PAGE
    ) -> Items[ModelDescription]:
        """Every model with its live pair, newest first; unavailable versions with the reason.

        A key that may use some models only sees those.
        """
        page, visible = Page.from_query(cursor, limit), visible_models(request)
        return services().descriptions.page(page, visible=visible)

    @router.get("/models/{model}", summary="Describe a model", responses=problems(404))
    def get_model(model: ModelPath, response: Response) -> ModelDescription:
        """The live pair, the versions and their calibrators. `ETag` is the live revision."""
        return _described(services(), model, response)

    @router.put(
        "/models/{model}",
        summary="Declare a model, or make a version live",
        responses={
            201: {"model": ModelDescription, "description": "Declared"},
            **problems(404, 409, 412, 422, 428),
        },
        openapi_extra={IF_MATCH_SOMETIMES: True},
    )
    def put_model(
        model: ModelPath,
        body: ModelRequest,
        request: Request,
        response: Response,
        if_match: IfMatchHeader = None,
    ) -> ModelDescription:
        """Declare a model whose network runs elsewhere, or promote one of a model's versions.

        With `n_classes` (and `class_names`): version 1 with the identity calibrator goes live as
        revision 1, or one above the last revision of a deleted model of this name. The same
        request again changes nothing; other classes are a conflict.

        With `live_version` and `If-Match`: that version goes live with the calibrator that it was
        last promoted with, else with its factory calibrator.
        """
        if body.live_version is None:
            if if_match is not None:
                raise InvalidRequest("If-Match is for live_version: leave it out to declare")
            new = services().declarations.declare(
                model,
                n_classes=body.n_classes,
                class_names=body.class_names,
                mask_below=body.mask_below,
                zeros=body.zeros or "learn",
                by=caller(request),
            )
            response.status_code = 201 if new else 200
        elif body.model_dump(exclude={"live_version"}, exclude_none=True):
            raise InvalidRequest("live_version must come alone, without fields of a declaration")
        else:
            services().promotions.promote_version(
                model,
                body.live_version,
                expected=expected_revision(if_match),
                by=caller(request),
            )
        return _described(services(), model, response)

    @router.delete(
        "/models/{model}",
        summary="Delete a model",
        status_code=204,
        responses=problems(404, 409, 412, 422, 428),
    )
    def delete_model(model: ModelPath, if_match: IfMatchHeader = None) -> None:
        """Delete a declared model, or one whose folder is gone from the model repository.

        Its calibrators, sets, fits (running ones are stopped), labels and history are deleted too.
        Prediction ids that it issued count for no model, not even for a later one of the same name:
        the revisions of that one continue after the last revision of the deleted model.
        """
        services().deletions.delete(model, expected=expected_revision(if_match))

    return router


def _described(services: ControlServices, model: str, response: Response) -> ModelDescription:
    description = services.descriptions.describe(model)
    if description.revision is not None:
        response.headers["ETag"] = f'"{description.revision}"'
    return description
