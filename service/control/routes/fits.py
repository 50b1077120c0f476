"""Fits: what was asked for and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path

from service.control import answers
from service.control.paging import Page, split
from service.control.routes.documentation import (
    DEFAULT_PAGE,
    CursorQuery,
    LimitQuery,
    ModelPath,
    problems,
)
from service.control.schemas import FitSummary, Items
from service.control.store import Transaction
from service.control.store.fits import FitRow
from service.errors import FitNotFound, ModelNotFound

if TYPE_CHECKING:
    from service.control.plane import ControlPlane

_LARGEST_ID = 2**31 - 1


def create_router(plane: ControlPlane) -> APIRouter:
    """Routes of ``fits``."""
    router = APIRouter(tags=["fits"])

    @router.get(
        "/models/{model}/fits",
        summary="List fits",
        responses=problems(404, 422),
        response_model_exclude_unset=True,
    )
    def list_fits(
        model: ModelPath, cursor: CursorQuery = None, limit: LimitQuery = DEFAULT_PAGE
    ) -> Items[FitSummary]:
        """Every fit of the model, newest first."""
        page = Page.of(cursor, limit)
        with plane.parts.store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            rows, following = split(
                transaction.fits.page(model, before=page.before, limit=page.limit + 1),
                page,
                lambda row: row.id,
            )
            items = [answers.fit(row, n=set_rows(transaction, row)) for row in rows]
        return Items(items=items, next=following)

    @router.get(
        "/models/{model}/fits/{fit}",
        summary="Read a fit",
        responses=problems(404),
        response_model_exclude_unset=True,
    )
    def get_fit(
        model: ModelPath, fit: Annotated[str, Path(description="Id of the fit.")]
    ) -> FitSummary:
        """Its state and, once it is done, the report with the verdict and the scores."""
        is_id = fit.isascii() and fit.isdigit() and int(fit) <= _LARGEST_ID
        with plane.parts.store.read() as transaction:
            row = transaction.fits.get(model, int(fit)) if is_id else None
            if row is None:
                raise FitNotFound(f"model {model!r} has no fit {fit!r}")
            return answers.fit(row, n=set_rows(transaction, row))

    return router


def set_rows(transaction: Transaction, row: FitRow) -> int:
    """How many rows the fit's set has."""
    found = transaction.calibration_sets.get(row.model, row.calibration_set)
    return 0 if found is None else found.n_rows
