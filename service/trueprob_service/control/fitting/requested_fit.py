"""The fit that a request means: one that was asked for before, or a new one.

A fit is its version, the digest of its rows, the method, whether predictions may change, and what
was to become of the candidate. Asked for again it is the same fit

- while it waits or runs,
- while the calibrator that it came to is live with its version, and
- while the live pair that it was judged against has not been replaced.

Later it is judged anew, as another fit, against what is live then; its calibrator is not fitted
again (see `FitQueue`). A fit that failed or was cancelled is no answer either. A fit of the refit
policy is its trigger.
"""

from __future__ import annotations

from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.fits import WAITING, FitRow
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.settings import Settings

__all__ = ["requested_fit"]


def requested_fit(
    transaction: Transaction,
    served: ServedVersion,
    digest: str,
    request: FitRequest,
    *,
    settings: Settings,
    now: float,
) -> int:
    """Id of the fit of a stored set, queued if need be. The caller holds the model's lock."""
    method, change = request.chosen_method(settings), request.change_allowed(settings)
    if request.trigger is None:
        same = transaction.earlier_fits.newest(
            served.model,
            served.version,
            digest,
            method=method,
            allow_prediction_change=change,
            promote=request.promote,
        )
        if same is not None and _stands(transaction, same):
            return same.id
    return transaction.fits.add(
        served.model,
        served.version,
        calibration_set=digest,
        method=method,
        promote=request.promote,
        allow_prediction_change=change,
        created_by=request.by,
        now=now,
        trigger=request.trigger,
    )


def _stands(transaction: Transaction, fit: FitRow) -> bool:
    """Whether a fit that was asked for before is still the answer."""
    if fit.state in WAITING:
        return True
    live = transaction.promotions.live(fit.model)
    if fit.state != "done" or live is None:
        return False
    is_live = (live.version, live.calibrator) == (fit.version, fit.calibrator)
    return is_live or live.revision == fit.judged_revision
