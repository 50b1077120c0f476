"""The result of a fit: a calibrator and a report with scores and findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trueprob.calibrators import Calibrator, FitOutcome
from trueprob.findings.finding import Finding
from trueprob.scores.classes import ClassScore
from trueprob.scores.score import Scores

__all__ = ["CandidateScore", "Fit", "FitReport"]


@dataclass(frozen=True)
class CandidateScore:
    """The cross-validated score of a candidate of `auto`."""

    method: str
    nll: float  # out-of-fold mean, nats
    standard_error: float  # of `nll`, over rows or groups
    behind: float  # mean paired difference to the best candidate, nats; 0 for the best
    behind_standard_error: float  # of `behind`
    weight: float = 0.0  # in the mixture; 1 for one that was chosen alone


@dataclass(frozen=True)
class FitReport:
    """How a fit went, with scores before and after.

    Attributes
    ----------
    method : str
        The method that was fitted: `smart-binary` for `smart` with two classes, and `smart` if all
        labels are the same and the method that was asked for may change predictions.
    outcome : FitOutcome
    n, k : int
        Rows and classes.
    seconds : float
        Of the fit on all rows, without the cross-fitting that `after` needs.
    findings : tuple of Finding
        Reasons to doubt the set or the fit. A finding of severity `hold` says that the set is very
        likely wrong.
    before : Scores
        Of the plain softmax.
    after : Scores
        Out of fold: each row's probabilities come from a calibrator that was not fitted on it
        (5 folds, or as many as there are rows or groups). Those of `auto` come from its selection:
        the weights of a fold are those of the other folds. Below 10 rows they are in-sample, and a
        finding says so.
    binary_before, binary_after : ClassScore or None
        Of P(class 1), with two classes.
    candidates : tuple of CandidateScore
        The candidates of `auto`, simplest first: method, NLL in nats with its standard error, the
        paired difference to the best with its standard error, and the weight in the mixture. Empty
        for other methods.
    """

    method: str
    outcome: FitOutcome
    n: int
    k: int
    seconds: float
    findings: tuple[Finding, ...]
    before: Scores
    after: Scores
    candidates: tuple[CandidateScore, ...] = ()
    binary_before: ClassScore | None = None
    binary_after: ClassScore | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(map(str, self.findings))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "method": self.method,
            "outcome": str(self.outcome),
            "n": self.n,
            "k": self.k,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "findings": [finding.to_dict() for finding in self.findings],
            "scores": {
                "before": _document(self.before, self.binary_before),
                "after": _document(self.after, self.binary_after),
            },
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


def _document(scores: Scores, binary: ClassScore | None) -> dict[str, Any]:
    return scores.to_dict() | ({} if binary is None else {"binary": binary.to_dict()})


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
