"""What a client or a transaction names, looked up: a stored set, and a version under its lock."""

from __future__ import annotations

from trueprob_service.control.store import Transaction
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.errors import CalibrationSetNotFound, ModelNotFound
from trueprob_service.inference.deployment import ServedVersion

__all__ = ["known_set", "lock_version"]


def known_set(transaction: Transaction, model: str, digest_or_name: str) -> CalibrationSetRow:
    """A stored set of a model."""
    row = transaction.calibration_sets.get(model, digest_or_name)
    if row is None:
        raise CalibrationSetNotFound(f"model {model!r} has no calibration set {digest_or_name!r}")
    return row


def lock_version(transaction: Transaction, served: ServedVersion) -> None:
    """Lock the model of a version that was looked up before.

    Raises `ModelNotFound`: it has been deleted since, or declared anew.
    """
    transaction.models.lock(served.model)
    known = transaction.models.version(served.model, served.version)
    if known is None or known.class_names != served.class_names:
        raise ModelNotFound(f"model {served.model!r} was deleted a moment ago")
