"""The result of a fit: calibrator, report, and warnings about the calibration set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.logit_functions import prediction
from trueprob.calibrators import Calibrator, FitOutcome
from trueprob.scores.score import Scores

__all__ = ["MIN_CROSS_FIT_ROWS", "CandidateScore", "Fit", "FitReport", "set_warnings"]

FEW_ROWS: Final = 50  # below, a fit helps little: 7 % ECE at 10 rows, 3.5 % at 50
MIN_CROSS_FIT_ROWS: Final = 10


@dataclass(frozen=True)
class CandidateScore:
    """The cross-validated score of a candidate of `auto`."""

    method: str
    nll: float  # out-of-fold mean, nats
    standard_error: float  # of `nll`, over rows or groups
    behind: float  # mean paired difference to the best candidate, nats; 0 for the best
    behind_standard_error: float  # of `behind`


@dataclass(frozen=True)
class FitReport:
    """How a fit went, with scores before and after.

    Attributes
    ----------
    method : str
    outcome : FitOutcome
    n, k : int
        Rows and classes.
    seconds : float
        Of the fit on all rows, without the cross-fitting that `after` needs.
    warnings : tuple of str
        Sentences.
    before : Scores
        Of the plain softmax.
    after : Scores
        Out of fold: each row's probabilities come from a calibrator that was not fitted on it
        (5 folds, or as many as there are rows or groups). Below 10 rows they are in-sample, and a
        warning says so.
    candidates : tuple of CandidateScore
        The candidates of `auto`, simplest first: method, NLL in nats with its standard error, and
        the paired difference to the best with its standard error. Empty for other methods.
    """

    method: str
    outcome: FitOutcome
    n: int
    k: int
    seconds: float
    warnings: tuple[str, ...]
    before: Scores
    after: Scores
    candidates: tuple[CandidateScore, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "method": self.method,
            "outcome": str(self.outcome),
            "n": self.n,
            "k": self.k,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "scores": {"before": self.before.to_dict(), "after": self.after.to_dict()},
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


@dataclass(frozen=True)
class Fit:
    """The result of `fit`.

    Attributes
    ----------
    calibrator : Calibrator
        Fitted on all rows.
    report : FitReport
    """

    calibrator: Calibrator
    report: FitReport


def set_warnings(data: CalibrationSet) -> list[str]:
    """Sentences that say why a fit on this set may be bad."""
    warnings = []
    if data.n < MIN_CROSS_FIT_ROWS:
        warnings.append(
            f"only {data.n} rows: the scores after the fit are in-sample, so they are too good"
        )
    elif data.n < FEW_ROWS:
        warnings.append(f"only {data.n} rows: fewer than {FEW_ROWS} say little about calibration")
    errors = int((prediction(data.logits) != data.labels).sum())
    if errors == 0:
        warnings.append("no prediction is wrong: this set cannot show how confident to be")
    elif errors == data.n:
        warnings.append("every prediction is wrong: check that labels and classes match")
    return warnings
