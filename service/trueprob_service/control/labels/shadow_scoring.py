"""Compares calibrators in shadow with the live pair on labels, in the labels' transaction.

Both are scored on the answers in the receipts. The loss of a row is the Brier score of the top
label. Where the two may predict different classes, predicting unlikely classes with low confidence
would lower that score. For such pairs the loss is the mean of the Brier score and of the error
(0 or 1), which is smallest for the likeliest class with its true probability.

A candidate that is better goes live. A predecessor that is better by more than `ROLLBACK_MARGIN`
goes live again: the promotion is reverted. It is compared on ``rollback_labels`` labels at most.
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
from trueprob_service.control.models.promotion import PromotedPair, raise_revision, revert
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.shadows import ShadowRow
from trueprob_service.receipts.columns import ROLES, number
from trueprob_service.receipts.receipt import digest64
from trueprob_service.settings import Settings

__all__ = ["ROLLBACK_MARGIN", "ShadowDecision", "comparison_of", "losses", "score_shadows"]

_LOG: Final = logging.getLogger(__name__)

# Mean difference of the losses that no promotion is reverted for: an admitted candidate may be
# worse by about this on the traffic by chance alone.
ROLLBACK_MARGIN: Final = 0.002


@dataclass(frozen=True)
class ShadowDecision:
    """The result of a comparison that has ended."""

    shadow: ShadowRow  # its state before these labels
    promoted: PromotedPair | None  # what went live


def comparison_of(shadow: ShadowRow) -> Comparison:
    """The test that compares a shadow with the live pair."""
    margin = ROLLBACK_MARGIN if shadow.role == "predecessor" else 0.0
    return Comparison(alpha=shadow.alpha, margin=margin)


def score_shadows(
    transaction: Transaction,
    model: str,
    counted: Mapping[int, CountedLabels],
    *,
    settings: Settings,
    now: float,
) -> list[ShadowDecision]:
    """Score the shadows of a model on newly counted labels, and act on decisions.

    The caller deploys what was promoted after the commit.
    """
    decisions = []
    for role in ROLES:
        if any(labels.receipts.rows[role]["calibrator"].any() for labels in counted.values()):
            # A promotion ends the other shadow, which is then no longer found.
            shadow = transaction.shadows.running(model, role, lock=True)
            if shadow is not None and shadow.revision in counted:
                decision = _score(transaction, shadow, counted[shadow.revision], settings, now)
                decisions += [] if decision is None else [decision]
    return decisions


def _score(
    transaction: Transaction,
    shadow: ShadowRow,
    labels: CountedLabels,
    settings: Settings,
    now: float,
) -> ShadowDecision | None:
    """Score one shadow; None while undecided."""
    digest = number(digest64(shadow.calibrator))
    # Another label of a group that has counted since the promotion is no new evidence.
    labels = labels[(labels.receipts.shadow(shadow.role).calibrator == digest) & ~labels.repeated]
    if not len(labels):
        return None
    live, beside = losses(labels, role=shadow.role, changes_prediction=shadow.changes_prediction)
    comparison = comparison_of(shadow)
    before = (
        comparison.start()
        if shadow.comparison is None
        else ComparisonState.from_dict(shadow.comparison)
    )
    state = comparison.update(before, live, beside, order=labels.order, groups=labels.units)
    scored = shadow.labels + len(labels)
    better, worse = comparison.better_log10(state), comparison.worse_log10(state)
    transaction.shadows.score(
        shadow.id,
        labels=scored,
        comparison=state.to_dict(),
        better_log10=better,
        worse_log10=worse,
    )
    verdict: str = comparison.verdict(state)
    if shadow.role == "predecessor" and (
        # The setting may have been lowered since the comparison began.
        shadow.labels >= settings.rollback_labels
        or (verdict == "undecided" and scored >= settings.rollback_labels)
    ):
        verdict = "kept"
    if verdict == "undecided":
        return None
    promoted = _decide(transaction, shadow, verdict, settings, now)
    transaction.events.add(
        "shadow.decided",
        shadow.model,
        {
            "version": shadow.version,
            "calibrator": shadow.calibrator,
            "role": shadow.role,
            "shadows": shadow.revision,
            "verdict": verdict,
            "labels": scored,
            "better_log10": better,
            "worse_log10": worse,
            "promoted": None if promoted is None else promoted.promotion.revision,
        },
        now=now,
    )
    _report(shadow, verdict, scored, promoted)
    return ShadowDecision(shadow, promoted)


def _decide(
    transaction: Transaction, shadow: ShadowRow, verdict: str, settings: Settings, now: float
) -> PromotedPair | None:
    """End the shadow; if it is better, make it live as its policy and its role say."""
    live = transaction.promotions.live(shadow.model)
    row = transaction.calibrators.get(shadow.model, shadow.version, shadow.calibrator)
    is_candidate = shadow.role == "candidate"
    if verdict == "better" and is_candidate:
        # This evidence is stronger than that of an admission: the candidate counts as admitted.
        transaction.calibrators.admit(shadow.model, shadow.version, shadow.calibrator)
    goes_live = verdict == "better" and shadow.policy == "act"
    # What labels sent back once, or what a finding holds, goes live only by force.
    if goes_live and is_candidate and row is not None:
        goes_live = not row.reverted and transaction.fits.hold_on(row) is None
    if not goes_live or live is None or row is None:
        transaction.shadows.end(shadow.model, shadow.role, verdict, now=now)
        return None
    # End it first: a promotion ends a running shadow as superseded.
    transaction.shadows.end(shadow.model, shadow.role, verdict, now=now, promoted=live.revision + 1)
    if is_candidate:
        return raise_revision(
            transaction, live, row, settings=settings, cause="shadow", by=shadow.started_by, now=now
        )
    return revert(transaction, live, row, settings=settings, now=now)


def _report(shadow: ShadowRow, verdict: str, labels: int, promoted: PromotedPair | None) -> None:
    is_rollback = shadow.role == "predecessor" and verdict == "better"
    _LOG.log(
        logging.WARNING if is_rollback else logging.INFO,
        "%s %s in the shadow of revision %d of model %s: %s after %d labels, %s",
        shadow.role,
        shadow.calibrator,
        shadow.revision,
        shadow.model,
        verdict,
        labels,
        "not promoted" if promoted is None else f"live as revision {promoted.promotion.revision}",
    )


def losses(
    labels: CountedLabels, *, role: str, changes_prediction: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses of the live pair and of the calibrator in shadow, in [0, 1], shape (n,) each."""
    receipts, beside = labels.receipts, labels.receipts.shadow(role)
    sides = []
    for confidence, prediction in (
        (receipts.confidence, receipts.prediction),
        (beside.confidence, beside.prediction),
    ):
        correct = prediction == labels.label
        loss = top_label_brier(confidence, correct)
        sides.append((loss + ~correct) / 2 if changes_prediction else loss)
    return sides[0], sides[1]
