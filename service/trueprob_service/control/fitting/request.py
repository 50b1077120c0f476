"""What a fit is asked for with, besides the rows: checked before anything is received.

The fit that a request means: one that was asked for before, or a new one.

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

import re
from dataclasses import dataclass
from typing import Final

from trueprob.fitting.methods import METHODS, keeps_prediction
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.fits import WAITING, FitRow
from trueprob_service.errors import InvalidRequest
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.settings import Settings

__all__ = ["PROMOTE", "FitRequest", "check_name", "requested_fit"]


PROMOTE: Final = ("auto", "never", "always", "shadow")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class FitRequest:
    """A fit, as it is asked for."""

    version: int | None = None  # none for the live one
    method: str | None = None  # none for the setting's
    promote: str = "auto"  # `auto`, `never`, `always` or `shadow`
    name: str | None = None  # a name that means this set from now on
    allow_prediction_change: bool | None = None  # none for the setting
    force: bool = False  # fit even a set that is too small
    by: str | None = None  # id of the API key
    trigger: str | None = None  # of the refit policy: a fit that bears it already is the outcome

    def check(self, settings: Settings) -> None:
        """Refuse what cannot be done."""
        if self.method is not None and self.method not in METHODS:
            raise InvalidRequest(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.promote not in PROMOTE:
            raise InvalidRequest(
                f"promote must be one of {', '.join(PROMOTE)}, got {self.promote!r}"
            )
        change = self.change_allowed(settings)
        if not change and not keeps_prediction(self.chosen_method(settings)):
            raise InvalidRequest(
                f"method {self.chosen_method(settings)!r} may change predictions, which "
                "allow_prediction_change=true allows"
            )
        check_name(self.name)

    def chosen_method(self, settings: Settings) -> str:
        """The method, or the setting's."""
        return self.method or settings.fit_method

    def change_allowed(self, settings: Settings) -> bool:
        """Whether the calibrator may change predictions."""
        if self.allow_prediction_change is None:
            return settings.allow_prediction_change
        return self.allow_prediction_change


def check_name(name: str | None) -> None:
    """Refuse what cannot name a set."""
    if name is not None and not _NAME.fullmatch(name):
        raise InvalidRequest(
            "name must be 1 to 100 letters, digits, '_', '.' or '-', "
            "and begin with a letter or a digit"
        )


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
