"""Sequential alarms in the transaction of the labels: evidence and change of each promotion.

What a request adds is counted in the order of a keyed hash of its nonces, under a key that this
process drew and nobody sees (`trueprob_service.control.labels.counting`): a client whose labels are
sorted by outcome cannot choose the order, nor can the order in which a database returns rows. Rows
that share a group make one factor; of a group that was counted before no further row counts. Both
statistics are looked at once, when all labels of the request are in, so what is recorded is what a
commit shows.

An alarm is a row of the table ``alarm``, written in that same transaction. `evidence` is raised at
most once a promotion (it may fall again, but it has been there); `change` again after it was
acknowledged, which sets the statistic back. Both start anew with every promotion.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from trueprob.drift import BetState, CalibrationBets, ChangeDetector, Evidence
from trueprob_service.control.labels.counting import CountedLabels
from trueprob_service.control.schemas.labels import AlarmSummary
from trueprob_service.control.schemas.lists import Items, Page, split
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.alarms import AlarmRow, AlarmStateRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import AlarmNotFound, ModelNotFound

__all__ = ["AlarmRules", "Alarms"]

_LOG: Final = logging.getLogger(__name__)
# What a webhook is told of an alarm.
_TOLD: Final = (
    "id", "version", "calibrator", "revision", "statistic", "log10", "threshold_log10",
    "tolerance", "counted",
)  # fmt: skip


@dataclass(frozen=True)
class AlarmRules:
    """When an alarm is raised."""

    bets: CalibrationBets  # with the calibration error that is not worth an alarm
    evidence: Evidence  # test of "never off by more than that since the promotion"
    change: ChangeDetector  # detector of "has just come to be off"

    @classmethod
    def of(cls, *, tolerance: float, alpha: float, run_length: float) -> AlarmRules:
        """From the settings of the same names."""
        bets = CalibrationBets(tolerance)
        return cls(bets, Evidence(bets, alpha), ChangeDetector(bets, run_length))

    def states(self, row: AlarmStateRow | None) -> tuple[BetState, BetState]:
        """Evidence and change as a row has them; the start without one, or with other bets'."""
        starts = self.evidence.start(), self.change.start()
        if row is None:
            return starts
        stored = BetState.from_dict(row.evidence), BetState.from_dict(row.change)
        # A release with another mixture cannot go on from these numbers.
        same = all(a.mixture == b.mixture for a, b in zip(stored, starts, strict=True))
        return stored if same else starts

    def log10(self, row: AlarmStateRow | None) -> tuple[float, float]:
        """log10 of both statistics; exactly 0 before the first label."""
        evidence, change = self.states(row)
        value = self.evidence.log10(evidence) if evidence.n else 0.0
        return value, self.change.log10(change)


class Alarms:
    """Counts labels into the statistics, raises and acknowledges alarms."""

    def __init__(
        self,
        store: Store,
        rules: AlarmRules,
        *,
        clock: Callable[[], float],  # seconds since 1970 UTC
        on_raised: Callable[[AlarmRow], None] | None = None,
    ) -> None:
        self.rules = rules
        self._store = store
        self._clock = clock
        self._on_raised = on_raised

    def count(
        self,
        transaction: Transaction,  # with the model's lock
        promotion: PromotionRow,
        labels: CountedLabels,
        *,
        now: float,
    ) -> list[AlarmRow]:
        """Count a request's new labels of one promotion; alarms that they raise."""
        before = transaction.alarm_states.lock(promotion.model, promotion.revision)
        evidence, change = self.rules.states(before)
        factors = self.rules.bets.factors(
            labels.receipts.confidence,
            labels.correct,
            order=labels.order,
            groups=labels.units,
            repeated=labels.repeated,
        )
        left_out = int(np.count_nonzero(labels.repeated))
        after = AlarmStateRow(
            promotion.model,
            promotion.revision,
            self.rules.evidence.update(evidence, factors).to_dict(),
            self.rules.change.update(change, factors).to_dict(),
            (0 if before is None else before.counted) + len(labels) - left_out,
            (0 if before is None else before.repeated) + left_out,
            now,
        )
        transaction.alarm_states.put(after)
        raised = self._raise(transaction, promotion, after, now)
        for alarm in raised:
            told = {name: getattr(alarm, name) for name in _TOLD}
            transaction.events.add("alarm.raised", alarm.model, told, now=now)
        return raised

    def announce(self, raised: Sequence[AlarmRow]) -> None:
        """Tell of alarms whose commit is done."""
        for alarm in raised:
            _LOG.warning(
                "alarm %d: %s of model %s, version %d, %s, revision %d is 10^%.2f after %d labels, "
                "threshold 10^%.2f, tolerance %g",
                alarm.id, alarm.statistic, alarm.model, alarm.version, alarm.calibrator,
                alarm.revision, alarm.log10, alarm.counted, alarm.threshold_log10, alarm.tolerance,
            )  # fmt: skip
            if self._on_raised is not None:
                self._on_raised(alarm)

    def acknowledge(self, model: str, alarm_id: int, *, by: str | None) -> AlarmRow:
        """Somebody knows of an alarm; one of `change` sets that statistic back to 0.

        Returns: as it is now. Acknowledging twice changes nothing: the first one counts.
        """
        now = self._clock()
        with self._store.write() as transaction:
            transaction.models.lock(model)
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            alarm = transaction.alarms.get(model, alarm_id)
            if alarm is None:
                raise AlarmNotFound(f"model {model!r} has no alarm {alarm_id}")
            if alarm.acknowledged_at is None:
                alarm = replace(alarm, acknowledged_at=now, acknowledged_by=by)
                transaction.alarms.acknowledge(alarm_id, by=by, now=now)
                state = transaction.alarm_states.lock(model, alarm.revision)
                if state is not None and alarm.statistic == "change":
                    fresh = self.rules.change.start().to_dict()
                    transaction.alarm_states.put(replace(state, change=fresh, updated_at=now))
        return alarm

    def _raise(
        self, transaction: Transaction, promotion: PromotionRow, state: AlarmStateRow, now: float
    ) -> list[AlarmRow]:
        rules = self.rules
        evidence, change = rules.log10(state)
        figures = {
            "evidence": (evidence, rules.evidence.threshold_log10),
            "change": (change, rules.change.threshold_log10),
        }
        passed = {name: pair for name, pair in figures.items() if pair[0] >= pair[1]}
        if not passed:
            return []
        before = transaction.alarms.of(promotion.model, promotion.revision)
        standing = {alarm.statistic for alarm in before if alarm.stands}
        return [
            transaction.alarms.add(
                model=promotion.model,
                revision=promotion.revision,
                version=promotion.version,
                calibrator=promotion.calibrator,
                statistic=name,
                log10=value,
                threshold_log10=threshold,
                tolerance=rules.bets.tolerance,
                counted=state.counted,
                raised_at=now,
            )
            for name, (value, threshold) in passed.items()
            if name not in standing
        ]

    def page(self, model: str, page: Page) -> Items[AlarmSummary]:
        """A page of the model's alarms, of every promotion."""
        with self._store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            rows, cursor = split(
                transaction.alarms.page(model, before=page.before, limit=page.limit + 1),
                page,
                lambda row: row.id,
            )
        return Items(items=[AlarmSummary.of(row) for row in rows], next=cursor)
