"""Writing a newly seen version, and the first promotion of its model, into the database."""

from __future__ import annotations

from collections.abc import Sequence

from trueprob.calibrators import Calibrator
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.promotions import PromotionRow

__all__ = ["add_version", "promote_first"]


def add_version(
    transaction: Transaction,
    model: str,
    version: int,
    *,
    class_names: Sequence[str],
    factory: Calibrator,
    document: str,  # its `calibrator.json`
    now: float,
) -> None:
    """Register a version of a known model with the calibrator that it came with."""
    transaction.models.add_version(
        model, version, class_names=class_names, factory=factory.id, now=now
    )
    transaction.calibrators.add(
        model,
        version,
        calibrator_id=factory.id,
        kind=factory.kind,
        document=document,
        origin="factory",
        admitted=True,
        calibration_set=None,
        now=now,
    )


def promote_first(
    transaction: Transaction,
    model: str,
    version: int,
    calibrator: str,
    *,
    by: str | None,
    now: float,
) -> None:
    """Make the first revision of a model that has no live pair yet.

    It is 1, or the one after the last of a deleted model of this name.
    """
    transaction.promotions.append(
        PromotionRow(
            model=model,
            revision=transaction.deleted_models.last_revision(model) + 1,
            version=version,
            calibrator=calibrator,
            cause="factory",
            restores=None,
            fit=None,
            promoted_by=by,
            promoted_at=now,
        )
    )
