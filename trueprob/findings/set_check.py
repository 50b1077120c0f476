"""The check of a calibration set before a fit, and of the calibrator after it.

| code | severity | what is wrong |
|---|---|---|
| `distribution_as_logits` | hold | rows are probabilities, but were given as logits |
| `class_order` | hold | labels number the classes differently from the scores |
| `rows_misaligned` | hold | labels belong to rows a constant number away |
| `unrelated_labels` | hold | labels have nothing to do with the scores |
| `cannot_tell` | warn | too few rows to tell whether they have |
| `one_class` | hold | all labels are the same, and most of three or more predictions are not |
| `one_class` | warn | all labels are the same (`scale_only`: and another method was fitted) |
| `few_rows`, `no_errors`, `all_wrong` | warn | the set says little about calibration |
| `copies` | warn | most rows are copies of a few |
| `wild_scale` | warn | gaps of hundreds of nats, as of joint log likelihoods |
| `absurd_temperature`, `fit` | warn | what the fit found |
| `conditions_differ` | warn | logit gaps are unlike those that the calibrator was fitted on |

The checks ask for a relation between labels and scores, not for a good one: a network that is
right in 20 of 100 rows passes. They know nothing of a mistake that keeps the relation, such as
30 % of random labels or the logits of another network for the same rows.

Large sets are checked on a sample of their rows.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import (
    CERTAIN_GAP,
    Logits,
    fill_masks,
    is_masked,
    logit_gap,
    prediction,
)
from trueprob.calibrators import FittedCalibrator
from trueprob.drift.reference_bins import ReferenceBins
from trueprob.findings.agreement import (
    LEVEL,
    NEARLY,
    THRESHOLD,
    agreement,
    column_ranks,
    misaligned_rows,
)
from trueprob.findings.class_order import class_order_finding, sign_test
from trueprob.findings.finding import Finding, Repair, Severity
from trueprob.folds import equal_rows, fold_groups

__all__ = ["check_conditions", "check_fit", "check_set"]

ELEMENTS: Final = 200_000  # logits to check; of larger sets a sample of rows is checked
LEAST_SAMPLE: Final = 300  # rows
FEW_ROWS: Final = 50  # below, a fit helps little: 7 % ECE at 10 rows, 3.5 % at 50
NO_ERROR_ROWS: Final = 300  # without an error, 95 % certain that fewer than 1 % are wrong
OTHER_ROWS: Final = 20  # outside the commonest label; with fewer, honest sets fail the rank test
# Honest but weak networks often stay below the threshold of the rank test on few rows. So it grows
# with the root of the rows outside the commonest label. Unrelated labels are not held in one of 44
# sets with up to 51 such rows, and in one of 400 with 100.
THRESHOLD_OF_ROWS: Final = 0.28
SUM_TOLERANCE: Final = 0.05  # of most rows of probabilities that were rounded to two digits
ROUNDING: Final = 0.005  # of a probability
LEAST_FOR_DISTRIBUTION: Final = 20  # a few rows can sum to one by chance
WILD_GAP: Final = 100.0  # nats; the median of real networks is below 20
COPIED: Final = 0.5  # share of different rows below which most are copies
CONFLICTS: Final = 0.05  # repeated rows with several labels; with more, scores are only coarse
# Median gap after the fit, in nats: outside, nearly all rows are called certain, or a toss-up.
SCALED_GAPS: Final = (0.02, 200.0)
LEAST_PSI: Final = 0.02  # below, a shift does not matter; many rows show any


def check_set(data: CalibrationSet) -> tuple[Finding, ...]:
    """Findings about a calibration set, those that hold first.

    Parameters
    ----------
    data : CalibrationSet
        Rows of weight 0 are left out.

    Returns
    -------
    tuple of Finding
        Empty for a set without any.
    """
    rows = _sample(data)
    logits, labels = data.logits[rows], data.labels[rows]
    wild = _wild_scale(logits)
    if is_masked(logits):  # from here on a masked class is the least likely one
        masked = np.isneginf(logits)
        largest = np.where(masked, 0.0, np.abs(logits)).max()
        logits = fill_masks(logits, masked, min(4.0 * float(largest) + 1.0, 1e38))
    found = [
        _distribution(logits),
        *_little_to_learn(logits, labels, data.n),
        *_relation(logits, rows, data.labels),
        None if data.groups is not None else _copies(data.logits, data.labels),
        wild,
    ]
    findings = [finding for finding in found if finding is not None]
    return tuple(sorted(findings, key=lambda finding: finding.severity != Severity.HOLD))


def check_fit(fitted: FittedCalibrator, data: CalibrationSet) -> tuple[Finding, ...]:
    """Findings about a fit: its own warnings, and a temperature that is absurd for the gaps."""
    found = [Finding("fit", Severity.WARN, warning) for warning in fitted.warnings]
    logits = data.logits[_sample(data)]
    temperature = fitted.calibrator.temperature(logits)
    log_odds = fitted.calibrator.log_odds(logits)
    if temperature is None and log_odds is None:
        return tuple(found)
    gap = float(np.median(logit_gap(logits)))
    if temperature is not None:
        value = float(np.median(temperature))
    elif log_odds is not None:  # what one temperature would do to the median row
        value = gap / max(float(np.median(np.abs(log_odds))), float(np.finfo(np.float32).tiny))
    if gap > 0.0 and not SCALED_GAPS[0] <= gap / value <= SCALED_GAPS[1]:
        result = "a toss-up" if gap / value < 1.0 else "certain"
        sentence = (
            f"the temperature is {value:.3g} (median), where the median logit gap is {gap:.3g}: "
            f"nearly every prediction is called {result}"
        )
        found.append(Finding("absurd_temperature", Severity.WARN, sentence))
    return tuple(found)


def check_conditions(reference: ReferenceBins | None, data: CalibrationSet) -> tuple[Finding, ...]:
    """Whether rows are unlike those that a calibrator was fitted on, by their logit gaps."""
    if reference is None:
        return ()
    used = data.logits if data.weights is None else data.logits[data.weights > 0.0]
    counts = reference.counts(logit_gap(used))
    ratio = reference.psi_ratio(counts)
    if not ratio > reference.limit or reference.psi(counts) < LEAST_PSI:
        return ()
    sentence = (
        "the calibrator was fitted under other conditions: the logit gaps of these rows are unlike "
        f"those of its calibration set (shift ratio {ratio:.1f}; without a shift it exceeds "
        f"{reference.limit:.1f} once in 1 000 sets)"
    )
    repair = Repair("fit a calibrator on rows like these, or evaluate on rows like those it has")
    return (Finding("conditions_differ", Severity.WARN, sentence, repair),)


def _sample(data: CalibrationSet) -> NDArray[np.int64]:
    """Evenly spaced rows of positive weight."""
    n, k = data.logits.shape
    rows = np.arange(n) if data.weights is None else np.flatnonzero(data.weights)
    step = math.ceil(rows.size / max(LEAST_SAMPLE, ELEMENTS // k))
    return rows[::step]


def _distribution(logits: Logits) -> Finding | None:
    n = logits.shape[0]
    if logits.min() < -1e-6 or logits.max() > 1.0 + 1e-6:
        return None
    repair = Repair("give them as probabilities", field="probabilities")
    severity = Severity.HOLD if n >= LEAST_FOR_DISTRIBUTION else Severity.WARN
    if logits.shape[1] == 2 and not logits[:, 0].any():  # one score per row, given as a logit
        sentence = f"all {n} logits of class 1 lie in [0, 1]: they look like probabilities"
        return Finding("distribution_as_logits", severity, sentence, repair)
    error = np.abs(logits.sum(axis=1) - 1.0)
    rounding = max(SUM_TOLERANCE, ROUNDING * logits.shape[1])
    if np.median(error) > SUM_TOLERANCE or error.max() > rounding:
        return None
    sentence = f"all {n} rows of logits lie in [0, 1] and sum to 1: they look like probabilities"
    return Finding("distribution_as_logits", severity, sentence, repair)


def _relation(logits: Logits, rows: NDArray[np.int64], all_labels: Labels) -> list[Finding]:
    """Whether labels and scores belong together, and in which order."""
    labels = all_labels[rows]
    n = labels.size
    others = n - int(np.bincount(labels).max())
    if others == 0:
        return _one_class(logits, labels)
    ranks = column_ranks(logits)
    z = agreement(ranks, labels)
    shift = None
    if z < 2.0 * THRESHOLD and others >= OTHER_ROWS:
        shift = misaligned_rows(ranks, rows, all_labels)
    ordered = class_order_finding(logits, labels, ranks) if shift is None else None
    if ordered is not None:
        return [ordered]
    if z >= THRESHOLD and shift is None:
        return []
    number = f"{z:.1f} standard errors".replace("-", "−")
    threshold = max(THRESHOLD_OF_ROWS * math.sqrt(others), NEARLY)
    if shift is None and (others < OTHER_ROWS or z >= threshold):
        sentence = (
            f"{n} rows, {others} of them outside the commonest label, are too few to tell whether "
            f"labels belong to these scores (agreement of ranks {number})"
        )
        return [Finding("cannot_tell", Severity.WARN, sentence)]
    if shift is not None:
        accuracy = float((prediction(logits) == np.roll(all_labels, shift)[rows]).mean())
        distance, side = abs(shift), "down" if shift > 0 else "up"
        sentence = (
            f"labels look misaligned by {distance} row{'s' * (distance > 1)}: "
            f"accuracy {(prediction(logits) == labels).mean():.3f}, and {accuracy:.3f} after "
            "the repair"
        )
        remedy = f"move the labels {distance} row{'s' * (distance > 1)} {side}"
        repair = Repair(remedy, rows=shift, accuracy=accuracy)
        return [Finding("rows_misaligned", Severity.HOLD, sentence, repair)]
    sentence = (
        f"labels look unrelated to the scores: agreement of ranks {number} on {n} rows, "
        f"accuracy {(prediction(logits) == labels).mean():.3f}"
    )
    return [Finding("unrelated_labels", Severity.HOLD, sentence)]


def _one_class(logits: Logits, labels: Labels) -> list[Finding]:
    n, k = logits.shape
    if n == 1:
        return []
    wrong = int((prediction(logits) != labels).sum())
    p = sign_test(np.array([wrong]), np.array([n]))[0]
    # With two classes, an event that a network expects too often may have occurred in no row.
    hold = k > 2 and p <= LEVEL
    sentence = f"all {n} labels are {labels[0]}" + (
        f", but {wrong} predictions are of other classes: were the labels filled in?"
        if hold
        else ": errors between classes cannot be learnt, and whether labels belong to these "
        "scores cannot be told"
    )
    return [Finding("one_class", Severity.HOLD if hold else Severity.WARN, sentence)]


def _little_to_learn(logits: Logits, labels: Labels, n: int) -> list[Finding]:
    found = []
    if n < FEW_ROWS:
        sentence = f"only {n} rows: fewer than {FEW_ROWS} say little about calibration"
        found.append(Finding("few_rows", Severity.WARN, sentence))
    errors = int((prediction(logits) != labels).sum())
    if errors == 0 and n < NO_ERROR_ROWS:
        sentence = "no prediction is wrong: this set cannot show how confident to be"
        found.append(Finding("no_errors", Severity.WARN, sentence))
    elif errors == labels.size:
        sentence = "every prediction is wrong: check that labels and classes match"
        found.append(Finding("all_wrong", Severity.WARN, sentence))
    return found


def _copies(logits: Logits, labels: Labels) -> Finding | None:
    n = labels.size
    if n < LEAST_FOR_DISTRIBUTION:
        return None
    found = equal_rows(logits)
    row, sizes = found.row, found.sizes
    if sizes.size >= COPIED * n:
        return None
    low, high = np.full(sizes.size, labels.max()), np.zeros(sizes.size, dtype=np.int64)
    np.minimum.at(low, row, labels)
    np.maximum.at(high, row, labels)
    repeated = sizes > 1
    if (low != high)[repeated].mean() > CONFLICTS:
        return None
    sentence = f"{n} rows are copies of {sizes.size}: scores count each copy as new evidence"
    if fold_groups(logits, None) is None:
        sentence += ", and so do folds"
    repair = Repair("leave out the copies, or give those of one row the same group")
    return Finding("copies", Severity.WARN, sentence, repair)


def _wild_scale(logits: Logits) -> Finding | None:
    gap = logit_gap(logits)
    gap = gap[gap != CERTAIN_GAP]
    if not gap.size or (median := float(np.median(gap))) <= WILD_GAP:
        return None
    sentence = (
        f"the median logit gap is {median:.3g} nats: joint log likelihoods rather than logits? "
        "Nearly every probability is 0 or 1 before the fit"
    )
    return Finding("wild_scale", Severity.WARN, sentence)
