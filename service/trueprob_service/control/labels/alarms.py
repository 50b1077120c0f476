"""Sequential alarms: evidence and change of each promotion, in the transaction of the labels.

The labels of a request are counted in the order of a keyed hash of their nonces, under a secret
random key (`trueprob_service.control.labels.counting`). So neither a client that sorts labels by
outcome nor the row order of a database chooses the order. Labels of one group give one factor, and
a group counts once per promotion. Both statistics are compared with their thresholds once, after
all labels of the request, so an alarm records the committed state.

An alarm is a row of the table ``alarm``, written in that same transaction. Evidence raises at most
one alarm for each promotion, even if it falls again. Change may raise another one after the first
was acknowledged, which resets the statistic. Both start again with every promotion.

The sums of the verdict's interval are counted with them. Those since the promotion join the
evidence (`ErrorInterval.joined_log10`), so that the verdict never contradicts an alarm; an alarm of
change starts further sums.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from trueprob.drift import (
    BetState,
    CalibrationBets,
    ChangeDetector,
    ErrorInterval,
    ErrorSums,
    Evidence,
    LiveVerdict,
)
from trueprob.drift.live_verdict import LiveSums, live_verdicts
from trueprob_service.control.labels.counting import CountedLabels
from trueprob_service.control.schemas.labels import AlarmSummary
from trueprob_service.control.schemas.lists import Items, Page, split
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.alarms import AlarmFiguresRow, AlarmRow, AlarmStateRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import AlarmNotFound, ModelNotFound

__all__ = ["AlarmRules", "Alarms"]

_LOG: Final = logging.getLogger(__name__)
# The fields of an alarm in the event for the webhook.
_EVENT_FIELDS: Final = (
    "id", "version", "calibrator", "revision", "statistic", "log10", "threshold_log10",
    "tolerance", "counted", "worst_class",
)  # fmt: skip


@dataclass(frozen=True)
class AlarmRules:
    """The tests that raise alarms, with their thresholds."""

    bets: CalibrationBets  # have the tolerance
    evidence: Evidence  # has the live pair been miscalibrated since the promotion?
    change: ChangeDetector  # has it just become miscalibrated?
    interval: ErrorInterval  # how large is its error?

    @classmethod
    def from_options(
        cls, *, tolerance: float, class_tolerance: float, alpha: float, run_length: float
    ) -> AlarmRules:
        """Make the rules from the settings ``alarm_…``."""
        bets = CalibrationBets(tolerance, max(tolerance, class_tolerance))
        change = ChangeDetector(bets, run_length)
        return cls(bets, Evidence(bets, alpha), change, ErrorInterval(alpha))

    @property
    def name(self) -> str:
        """Names what `log10` depends on, besides the states."""
        return f"{self.bets.mixture} {self.bets.tolerance!r} {self.bets.class_tolerance!r}"

    def stated(self, row: AlarmStateRow) -> AlarmStateRow:
        """The row with `log10` of its states."""
        evidence, change = self.log10(row)
        return replace(row, rules=self.name, evidence_log10=evidence, change_log10=change)

    def states(self, row: AlarmStateRow | None) -> tuple[BetState, BetState]:
        """Evidence and change of a row; initial states without a row, or if the bets differ."""
        starts = self.evidence.start(), self.change.start()
        if row is None:
            return starts
        stored = BetState.from_dict(row.evidence), BetState.from_dict(row.change)
        # A release with another mixture of bets cannot use these numbers.
        same = all(a.mixture == b.mixture for a, b in zip(stored, starts, strict=True))
        return stored if same else starts

    def log10(self, row: AlarmStateRow | None) -> tuple[float, float]:
        """log10 of evidence and change; exactly 0 before the first label."""
        evidence, change = self.states(row)
        value = 0.0
        if evidence.n:
            wealth, (sums, _) = self.evidence.log10(evidence), self.sums(row)
            value = self.interval.joined_log10(wealth, sums, self.bets.tolerance)
        return value, self.change.log10(change)

    def sums(
        self, row: AlarmStateRow | AlarmFiguresRow | None
    ) -> tuple[ErrorSums, ErrorSums | None]:
        """Sums since the promotion, and since the newest alarm of change if there was one."""
        if row is None or row.interval is None:
            return ErrorSums(), None
        since_promotion, since_change = (
            None if document is None else ErrorSums.from_dict(document)
            for document in (row.interval["promotion"], row.interval["change"])
        )
        if since_promotion is None or since_promotion.classes is None:
            return ErrorSums(), since_change and ErrorSums()  # of a release without classes
        return since_promotion, since_change

    def worst_class(
        self, statistic: str, row: AlarmStateRow, names: Sequence[str]
    ) -> dict[str, Any] | None:
        """The class that bets on classes blame for an alarm, with its figures."""
        evidence, change = self.states(row)
        index = None
        if statistic == "change":
            index = self.change.worst_class(change)
        if index is None:  # also where the learned bet has raised an alarm of change
            index = self.evidence.worst_class(evidence)
        if index is None:
            return None
        return next(each for each in self.classes(row, names) if each["class_name"] == names[index])

    def classes(self, row: AlarmStateRow | None, names: Sequence[str]) -> list[dict[str, Any]]:
        """The predicted classes since the promotion with their figures, the worst first."""
        sums = self.sums(row)[0]
        return [
            {
                "class_name": names[each.class_index],
                "labels": each.n,
                "share": each.n / sums.n,
                "confidence": each.confidence,
                "frequency": each.frequency,
                "low": each.low,
                "high": each.high,
            }
            for each in self.interval.of_classes(sums)
        ]

    def verdict(self, row: AlarmStateRow | None, alarms: Sequence[AlarmRow]) -> LiveVerdict:
        """The verdict on a promotion with this state and these alarms."""
        return self.verdicts([(self.sums(row), alarms)])[0]

    def verdicts(
        self,
        models: Sequence[tuple[tuple[ErrorSums, ErrorSums | None], Sequence[AlarmRow]]],
    ) -> list[LiveVerdict]:
        """The verdict on each of many promotions, from their `sums` and their alarms."""
        streams = []
        for (since_promotion, since_change), alarms in models:
            active = {alarm.statistic for alarm in alarms if alarm.is_active}
            alarmed = "evidence" in active, "change" in active
            streams.append(LiveSums(since_promotion, since_change, *alarmed))
        return live_verdicts(
            self.interval,
            streams,
            tolerance=self.bets.tolerance,
            class_tolerance=self.bets.class_tolerance,
        )


class Alarms:
    """Updates evidence and change with labels; raises and acknowledges alarms."""

    def __init__(
        self,
        store: Store,
        rules: AlarmRules,
        *,
        clock: Callable[[], float],  # seconds since 1970 UTC
        on_raised: Callable[[AlarmRow], None] | None = None,  # called after the commit
    ) -> None:
        self.rules = rules
        self._store = store
        self._clock = clock
        self._on_raised = on_raised

    def count(
        self,
        transaction: Transaction,  # holds the model's lock
        promotion: PromotionRow,
        labels: CountedLabels,
        names: Sequence[str],  # of the classes of the promotion's version
        *,
        now: float,
    ) -> list[AlarmRow]:
        """Count a request's new labels of one promotion, and return the alarms that they raise."""
        before = transaction.alarm_states.lock(promotion.model, promotion.revision)
        evidence, change = self.rules.states(before)
        factors = self.rules.bets.factors(
            labels.receipts.confidence,
            labels.correct,
            prediction=labels.receipts.prediction,
            n_classes=len(names),
            order=labels.order,
            groups=labels.units,
            repeated=labels.repeated,
        )
        new = ErrorSums.of(
            labels.receipts.confidence,
            labels.correct,
            prediction=labels.receipts.prediction,
            n_classes=len(names),
            groups=labels.units,
            repeated=labels.repeated,
        )
        since_promotion, since_change = self.rules.sums(before)
        interval = {
            "promotion": (since_promotion + new).to_dict(),
            "change": None if since_change is None else (since_change + new).to_dict(),
        }
        left_out = int(np.count_nonzero(labels.repeated))
        after = AlarmStateRow(
            promotion.model,
            promotion.revision,
            self.rules.evidence.update(evidence, factors).to_dict(),
            self.rules.change.update(change, factors).to_dict(),
            (0 if before is None else before.counted) + len(labels) - left_out,
            (0 if before is None else before.repeated) + left_out,
            now,
            interval,
        )
        after = self.rules.stated(after)
        raised = self._raise(transaction, promotion, after, names, now)
        if any(alarm.statistic == "change" for alarm in raised):
            after = replace(after, interval={**interval, "change": ErrorSums().to_dict()})
        transaction.alarm_states.put(after)
        for alarm in raised:
            event = {name: getattr(alarm, name) for name in _EVENT_FIELDS}
            transaction.events.add("alarm.raised", alarm.model, event, now=now)
        return raised

    def announce(self, raised: Sequence[AlarmRow]) -> None:
        """Log alarms after their commit, and call ``on_raised``."""
        for alarm in raised:
            worst = alarm.worst_class
            _LOG.warning(
                "alarm %d: %s of model %s, version %d, %s, revision %d is 10^%.2f after %d labels, "
                "threshold 10^%.2f, tolerance %g%s",
                alarm.id, alarm.statistic, alarm.model, alarm.version, alarm.calibrator,
                alarm.revision, alarm.log10, alarm.counted, alarm.threshold_log10, alarm.tolerance,
                "" if worst is None else f", class {worst['class_name']!r}",
            )  # fmt: skip
            if self._on_raised is not None:
                self._on_raised(alarm)

    def acknowledge(self, model: str, alarm_id: int, *, by: str | None) -> AlarmRow:
        """Acknowledge an alarm and return it; an alarm of change resets that statistic.

        A second acknowledgement changes nothing.
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
                transaction.audit.add(
                    "alarm.acknowledge",
                    model,
                    now=now,
                    detail={"alarm": alarm_id, "statistic": alarm.statistic},
                )
                state = transaction.alarm_states.lock(model, alarm.revision)
                if state is not None and alarm.statistic == "change":
                    fresh = self.rules.change.start().to_dict()
                    reset = self.rules.stated(replace(state, change=fresh, updated_at=now))
                    transaction.alarm_states.put(reset)
        return alarm

    def _raise(
        self,
        transaction: Transaction,
        promotion: PromotionRow,
        state: AlarmStateRow,  # as of `AlarmRules.stated`
        names: Sequence[str],
        now: float,
    ) -> list[AlarmRow]:
        rules = self.rules
        figures = {
            "evidence": (state.evidence_log10, rules.evidence.threshold_log10),
            "change": (state.change_log10, rules.change.threshold_log10),
        }
        passed = {
            name: (value, threshold)
            for name, (value, threshold) in figures.items()
            if value is not None and value >= threshold
        }
        if not passed:
            return []
        before = transaction.alarms.of_promotion(promotion.model, promotion.revision)
        active = {alarm.statistic for alarm in before if alarm.is_active}
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
                worst_class=rules.worst_class(name, state, names),
            )
            for name, (value, threshold) in passed.items()
            if name not in active
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
        return Items(items=[AlarmSummary.from_row(row) for row in rows], next=cursor)
