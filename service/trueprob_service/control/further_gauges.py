"""Gauges of shadowing candidates and of the webhook's outbox, by name in the catalogue."""

from __future__ import annotations

import math

from trueprob_service.control.store import Transaction
from trueprob_service.metrics.catalogue import EVENT_KINDS

__all__ = ["further_gauges"]


def further_gauges(transaction: Transaction) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and labels, as the database has them now."""
    better: dict[tuple[str, ...], float] = {}
    worse: dict[tuple[str, ...], float] = {}
    threshold: dict[tuple[str, ...], float] = {}
    for shadow in transaction.shadows.all_running():
        candidate = (shadow.model, str(shadow.version), shadow.calibrator)
        better[candidate] = shadow.better_log10
        worse[candidate] = shadow.worse_log10
        threshold[candidate] = -math.log10(shadow.alpha)
    waiting = transaction.events.waiting()
    return {
        "shadow_better_log10": better,
        "shadow_worse_log10": worse,
        "shadow_threshold_log10": threshold,
        "webhook_waiting": {(kind,): float(waiting.get(kind, 0)) for kind in EVENT_KINDS},
    }
