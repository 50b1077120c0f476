"""The check of a candidate before it replaces a live calibrator, with what only a service knows.

Besides the findings of `trueprob.findings.set_check`:

| code | severity | what is wrong |
|---|---|---|
| `one_class` | hold | one label only, and accuracy below half of what the incumbent expects |
| `low_accuracy` | hold | accuracy below a third of that, and the logit gaps are as usual |
| `traffic_confidence` | hold | confidence would change on recent traffic, but not so on the set |
| `absurd_temperature` | hold | as there; nobody reads a warning before a promotion |

The incumbent expects its mean confidence. Accuracy must also be THRESHOLD standard errors below it,
so that few rows of a calibrated incumbent do not hold by chance. The softmax alone expects nothing:
it was never fitted, so `low_accuracy` needs another incumbent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.logit_functions import Logits, logit_gap
from trueprob.calibrators import Calibrator, FittedCalibrator
from trueprob.drift.reference_bins import ReferenceBins
from trueprob.findings.agreement import THRESHOLD
from trueprob.findings.finding import Finding, Severity
from trueprob.findings.set_check import check_fit, check_set

__all__ = ["CandidateCheck", "ConfidenceChange", "check_candidate", "held_in_service"]

ONE_CLASS_SHARE: Final = 1 / 2  # of the expected accuracy
LOW_SHARE: Final = 1 / 3
LEAST_GAPS: Final = 100  # recent rows; fewer do not show how gaps are distributed
# No shift: a small PSI, or one that chance explains (1 in 1000 looks; see `ReferenceBins`).
SMALL_PSI: Final = 0.1
CHANCE_RATIO: Final = 3.1
LARGE_CHANGE: Final = 0.3  # of the mean confidence of recent traffic
TOLERATED: Final = 0.1  # difference between the changes on traffic and on the set
STANDARD_ERRORS: Final = 3.0
LEAST_TRAFFIC: Final = 20  # different recent rows
ABSURD: Final = "absurd_temperature"


@dataclass(frozen=True)
class ConfidenceChange:
    """Mean confidence under the incumbent and under the candidate, on the same rows."""

    rows: int
    before: float
    after: float
    variance: float  # of the mean of the differences

    @property
    def difference(self) -> float:
        """How much the mean confidence rises."""
        return self.after - self.before

    def to_dict(self) -> dict[str, float]:
        """The numbers as JSON values."""
        return {"rows": self.rows, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class CandidateCheck:
    """The result of `check_candidate`."""

    findings: tuple[Finding, ...]  # those that hold come first
    on_set: ConfidenceChange
    on_traffic: ConfidenceChange | None  # None without recent traffic

    @property
    def holds(self) -> tuple[Finding, ...]:
        """The findings that keep the candidate from going live."""
        return tuple(found for found in self.findings if found.severity is Severity.HOLD)

    def __str__(self) -> str:
        if self.on_traffic is None:
            return f"mean confidence on the set {_from_to(self.on_set)}; no recent traffic"
        return (
            f"mean confidence on {self.on_traffic.rows} recent rows without labels "
            f"{_from_to(self.on_traffic)}, on the set {_from_to(self.on_set)}"
        )


def check_candidate(
    incumbent: Calibrator,
    fitted: FittedCalibrator,
    data: CalibrationSet,
    *,
    traffic: Logits | None = None,  # recent rows without labels
    usual_gaps: ReferenceBins | None = None,  # of the version's baseline
) -> CandidateCheck:
    """Check a set and the calibrator fitted on it, before that replaces the incumbent."""
    if traffic is not None:
        traffic = np.unique(traffic, axis=0)  # a row that is sent again is no new evidence
    candidate = fitted.calibrator
    on_set = _change(incumbent, candidate, data.logits, data.weights)
    on_traffic = None
    if traffic is not None and len(traffic):
        on_traffic = _change(incumbent, candidate, traffic)
    findings = [
        *check_set(data),
        *_accuracy(incumbent, data, traffic, usual_gaps),
        *([] if on_traffic is None else _traffic(on_set, on_traffic)),
        *check_fit(fitted, data),
    ]
    return CandidateCheck(held_in_service(findings), on_set, on_traffic)


def held_in_service(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings with an absurd fit as a hold; those that hold come first."""
    found = [
        replace(each, severity=Severity.HOLD) if each.code == ABSURD else each for each in findings
    ]
    # Of two holds with one code the later knows more: the incumbent.
    holds = {each.code: each for each in found if each.severity is Severity.HOLD}
    return (*holds.values(), *(each for each in found if each.code not in holds))


def _change(
    incumbent: Calibrator,
    candidate: Calibrator,
    logits: Logits,
    weights: NDArray[np.float64] | None = None,
) -> ConfidenceChange:
    before, after = (_confidence(each, logits) for each in (incumbent, candidate))
    weight = np.full(len(logits), 1.0 / len(logits)) if weights is None else weights / weights.sum()
    difference = after - before
    mean = float(weight @ difference)
    variance = float(np.square(weight) @ np.square(difference - mean))
    return ConfidenceChange(len(logits), float(weight @ before), float(weight @ after), variance)


def _confidence(calibrator: Calibrator, logits: Logits) -> NDArray[np.float64]:
    confidence: NDArray[np.float64] = calibrator.calibrated(logits).confidence.astype(np.float64)
    return confidence


def _accuracy(
    incumbent: Calibrator,
    data: CalibrationSet,
    traffic: Logits | None,
    usual_gaps: ReferenceBins | None,
) -> list[Finding]:
    """Whether the set is far less accurate than the incumbent expects, and nothing explains it."""
    rows = data if data.weights is None else data.subset(np.flatnonzero(data.weights))
    p = _confidence(incumbent, rows.logits)
    correct = incumbent.prediction(rows.logits) == rows.labels
    expected, accuracy = float(p.mean()), float(correct.mean())
    error = math.sqrt(float((p * (1.0 - p)).sum())) / rows.n
    if expected - accuracy <= THRESHOLD * error:
        return []
    numbers = f"accuracy {accuracy:.3f}, where the incumbent expects {expected:.3f}"
    if rows.labels.min() == rows.labels.max():
        if accuracy >= ONE_CLASS_SHARE * expected:
            return []
        sentence = f"all {rows.n} labels are {rows.labels[0]}: {numbers}"
        return [Finding("one_class", Severity.HOLD, sentence)]
    if accuracy >= LOW_SHARE * expected or incumbent.kind == "identity":
        return []
    references = [] if usual_gaps is None else [usual_gaps]
    if traffic is not None and len(traffic) >= LEAST_GAPS:
        quantiles = np.quantile(logit_gap(traffic), np.arange(101) / 100, method="inverted_cdf")
        references.append(ReferenceBins.of_percentiles(quantiles, len(traffic)))
    references = [bins for bins in references if bins.shares.size > 1]
    gaps = logit_gap(rows.logits)
    if not references or any(_shifted(bins, gaps) for bins in references):
        return []
    sentence = f"{numbers}, though the logit gaps are as usual: do the labels belong to this model?"
    return [Finding("low_accuracy", Severity.HOLD, sentence)]


def _shifted(bins: ReferenceBins, gaps: NDArray[np.float32]) -> bool:
    counts = bins.counts(gaps)
    return bins.psi(counts) >= SMALL_PSI and bins.psi_ratio(counts) > CHANCE_RATIO


def _traffic(on_set: ConfidenceChange, on_traffic: ConfidenceChange) -> list[Finding]:
    """Whether the candidate does something large to the traffic that it does not do to the set."""
    apart = abs(on_traffic.difference - on_set.difference)
    limit = TOLERATED + STANDARD_ERRORS * math.sqrt(on_set.variance + on_traffic.variance)
    large = abs(on_traffic.difference) > LARGE_CHANGE
    if on_traffic.rows < LEAST_TRAFFIC or not large or apart <= limit:
        return []
    sentence = (
        f"mean confidence on {on_traffic.rows} recent rows without labels would go "
        f"{_from_to(on_traffic)}, on the set {_from_to(on_set)}: the set is unlike the traffic"
    )
    return [Finding("traffic_confidence", Severity.HOLD, sentence)]


def _from_to(change: ConfidenceChange) -> str:
    return f"{change.before:.3f} → {change.after:.3f}"
