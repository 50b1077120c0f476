"""With what each version answers, as the history says."""

from __future__ import annotations

from collections.abc import Iterable

from trueprob_service.control.store import Transaction
from trueprob_service.control.store.calibrators import CalibratorRow
from trueprob_service.control.store.models import VersionRow
from trueprob_service.control.store.promotions import PromotionRow

__all__ = ["answering", "standing"]


def answering(transaction: Transaction, version: VersionRow) -> CalibratorRow:
    """The calibrator that a version answers with: its last promoted, else its factory one."""
    last = transaction.promotions.last_of_version(version.model, version.version)
    wanted = version.factory_calibrator if last is None else last.calibrator
    found = transaction.calibrators.get(version.model, version.version, wanted)
    if found is None:
        # Written in the same transaction as the row that names it.
        raise LookupError(f"calibrator {wanted} of {version.model}/{version.version} is missing")
    return found


def standing(
    transaction: Transaction, models: Iterable[str]
) -> list[tuple[VersionRow, CalibratorRow, PromotionRow]]:
    """Each version of some models with its calibrator and its model's live pair.

    Live versions come first: the first deployment of a model is what answers by default.
    """
    states = [
        (version, answering(transaction, version), live)
        for model in models
        if (live := transaction.promotions.live(model)) is not None
        for version in transaction.models.versions(model)
    ]
    return sorted(states, key=lambda state: state[0].version != state[2].version)
