"""Compares a candidate in the shadow with the live pair on labels, in the labels' transaction.

Both are scored on the answers in the receipts. The loss of a row is the Brier score of the top
label. Where the two may predict different classes, predicting unlikely classes with low confidence
would lower that score. For such candidates the loss is the mean of the Brier score and of the error
(0 or 1), which is smallest for the likeliest class with its true probability.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.drift import Comparison, ComparisonState, top_label_brier
from trueprob_service.control.labels.counting import CountedLabels
from trueprob_service.control.models.promotion import raise_revision
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.promotions import CalibratorRow
from trueprob_service.control.store.shadows import ShadowRow
from trueprob_service.receipts.columns import number
from trueprob_service.receipts.receipt import digest64

__all__ = ["ShadowDecision", "losses", "score_shadow"]

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShadowDecision:
    """The result of a decided comparison."""

    shadow: ShadowRow  # its state before these labels
    promoted: tuple[CalibratorRow, int] | None  # the calibrator that went live, and its revision


def score_shadow(
    transaction: Transaction, model: str, counted: Mapping[int, CountedLabels], *, now: float
) -> ShadowDecision | None:
    """Score the shadow of a model on newly counted labels, and act on a decision.

    Returns None while undecided. The caller deploys a promoted candidate after the commit.
    """
    if not any(labels.receipts.shadow_candidate.any() for labels in counted.values()):
        return None
    shadow = transaction.shadows.running(model, lock=True)
    if shadow is None or shadow.revision not in counted:
        return None
    labels = counted[shadow.revision]
    candidate = number(digest64(shadow.calibrator))
    # Another label of a group that has counted since the promotion is no new evidence.
    labels = labels[(labels.receipts.shadow_candidate == candidate) & ~labels.repeated]
    if not len(labels):
        return None
    incumbent, challenger = losses(labels, changes_prediction=shadow.changes_prediction)
    comparison = Comparison(alpha=shadow.alpha)
    before = (
        comparison.start()
        if shadow.comparison is None
        else ComparisonState.from_dict(shadow.comparison)
    )
    state = comparison.update(
        before, incumbent, challenger, order=labels.order, groups=labels.units
    )
    scored = shadow.labels + len(labels)
    transaction.shadows.score(
        shadow.id,
        labels=scored,
        comparison=state.to_dict(),
        better_log10=comparison.better_log10(state),
        worse_log10=comparison.worse_log10(state),
    )
    verdict = comparison.verdict(state)
    if verdict == "undecided":
        return None
    return _decide(transaction, shadow, verdict, labels=scored, now=now)


def _decide(
    transaction: Transaction, shadow: ShadowRow, verdict: str, *, labels: int, now: float
) -> ShadowDecision:
    """End the shadow, and promote the candidate if the policy says so."""
    promoted = None
    if verdict == "better":
        # This evidence is stronger than that of an admission: the candidate counts as admitted.
        transaction.calibrators.admit(shadow.model, shadow.version, shadow.calibrator)
        row = transaction.calibrators.get(shadow.model, shadow.version, shadow.calibrator)
        live = transaction.promotions.live(shadow.model)
        held = row is not None and transaction.fits.hold_on(row) is not None
        if shadow.policy == "act" and not held and row is not None and live is not None:
            # End it first: a promotion ends a running shadow as superseded.
            transaction.shadows.end(shadow.model, verdict, now=now, promoted=live.revision + 1)
            promotion = raise_revision(
                transaction, live, row, cause="shadow", by=shadow.started_by, now=now
            )
            promoted = row, promotion.revision
    transaction.shadows.end(shadow.model, verdict, now=now)
    transaction.events.add(
        "shadow.decided",
        shadow.model,
        {
            "version": shadow.version,
            "calibrator": shadow.calibrator,
            "shadows": shadow.revision,
            "verdict": verdict,
            "labels": labels,
            "promoted": None if promoted is None else promoted[1],
        },
        now=now,
    )
    _LOG.info(
        "calibrator %s of model %s was %s than the live one over %d labels: %s",
        shadow.calibrator,
        shadow.model,
        verdict,
        labels,
        "only reported" if shadow.policy == "tell" else "promoted" if promoted else "dropped",
    )
    return ShadowDecision(shadow, promoted)


def losses(
    labels: CountedLabels, *, changes_prediction: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses of the live pair and of the candidate, in [0, 1], shape (n,) each."""
    receipts = labels.receipts
    sides = []
    for confidence, prediction in (
        (receipts.confidence, receipts.prediction),
        (receipts.shadow_confidence, receipts.shadow_prediction),
    ):
        correct = prediction == labels.label
        loss = top_label_brier(confidence, correct)
        sides.append((loss + ~correct) / 2 if changes_prediction else loss)
    return sides[0], sides[1]
