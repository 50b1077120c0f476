"""Reads label statistics: running totals for Prometheus, hourly bins for a window.

The reading for Prometheus also counts fits, alarms and promotions, and has the gauges of shadows
and of the webhook's outbox.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from trueprob.drift import ErrorSums, LiveVerdict, VerdictState
from trueprob.fitting.methods import SCALE_ONLY
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.labels.alarms import AlarmRules
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.schemas.labels import (
    AlarmSummary,
    Bin,
    BinaryCalibration,
    Calibration,
    CalibrationVerdict,
    ClassCalibration,
)
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.alarms import AlarmFiguresRow, AlarmRow, AlarmStateRow
from trueprob_service.control.store.label_sums import Parts
from trueprob_service.errors import DatabaseUnavailable, InvalidRequest, ModelNotFound
from trueprob_service.metrics.catalogue import CLASS_COUNTERS, EVENT_KINDS
from trueprob_service.metrics.label_statistics import (
    AlarmFigures,
    ClassFigures,
    ControlStatistics,
    PairStatistics,
)

__all__ = ["LabelStatistics", "advice", "window_hours"]

_LOG: Final = logging.getLogger(__name__)
_WINDOW: Final = re.compile(r"(\d{1,6})(h|d)")
_CACHE_SECONDS: Final = 3.0
# How long a scrape waits for the database: Prometheus gives up after 10 s by default.
_PATIENCE_SECONDS: Final = 3.0
_FIRST_SECONDS: Final = 8.0
_SHOWN_CLASSES: Final = 20
_MAX_HOURS: Final = 24 * 3660
_FEW_MODELS: Final = 100  # that a query names; more are all read
_NO_LABELS: Final = (0.0, 0.0, 0.0, 0.0)  # of a class
_ALARM_STATISTICS: Final = ("evidence", "change")


class _Judged(NamedTuple):
    """What the labels of a live pair say; fields of `PairStatistics`."""

    alarm: AlarmFigures
    verdict: LiveVerdict
    classes: ClassFigures | None


class LabelStatistics:
    """Reads label statistics from the database."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,  # has the baselines
        *,
        ttl_seconds: int,  # how long after its prediction a label may arrive
        rules: AlarmRules,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._ttl_seconds = ttl_seconds
        self._rules = rules
        self._clock = clock
        self._reader = ThreadPoolExecutor(1, "trueprob-statistics")
        self._submitting = threading.Lock()
        self._reading: Future[None] | None = None
        self._judging = threading.Lock()
        self._last = ControlStatistics()
        self._read_at = -math.inf  # when a reading last ended, well or not
        self._with_totals = False
        self._promotions: tuple[object, Mapping[tuple[str, str, str], int]] = (None, {})
        self._judged: dict[str, tuple[object, _Judged]] = {}  # by model, with what it is made of

    def read(self, *, totals: bool = True) -> ControlStatistics:
        """A consistent reading for the metrics, at most a few seconds old.

        While the database does not answer, the last reading is returned, without waiting for
        long: Prometheus would take a counter that disappears and comes back for a restart.
        """
        age = self._clock() - self._read_at
        if not 0 <= age < _CACHE_SECONDS or totals > self._with_totals:
            with self._submitting:
                if self._reading is None or self._reading.done():
                    self._reading = self._reader.submit(self._refresh, totals)
                reading = self._reading
            first = self._last.read_at is None
            if wait((reading,), timeout=_FIRST_SECONDS if first else _PATIENCE_SECONDS).done:
                reading.result()  # raises what is no fault of the database
        return self._last

    def close(self) -> None:
        """Stop the thread that reads."""
        self._reader.shutdown()

    def _refresh(self, totals: bool) -> None:
        now = self._clock()
        try:
            with self._store.read() as transaction:
                self._last = replace(self._collect(transaction, now, totals), read_at=now)
                self._with_totals = totals
        except DatabaseUnavailable:
            _LOG.warning("the database is unavailable: label metrics show the last reading")
        self._read_at = now

    def calibration(self, model: str, window: str) -> Calibration:
        """How well the live pair was calibrated in a window."""
        first_hour = int(self._clock() // 3600) - window_hours(window)
        with self._store.read() as transaction:
            live = transaction.promotions.live(model)
            if live is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            binned, class_1 = transaction.bins.since(
                model, version=live.version, calibrator=live.calibrator, hour=first_hour
            )
            state = transaction.alarm_states.get(model, live.revision)
            version = transaction.models.version(model, live.version)
            alarms = transaction.alarms.of_promotion(model, live.revision)
        n = int(binned.n)
        verdict = self._rules.verdict(state, alarms)
        names = () if version is None else version.class_names
        classes = self._rules.classes(state, names)
        class_low, class_high = self._rules.interval.class_bounds(self._rules.sums(state)[0])
        return Calibration(
            model=model,
            version=live.version,
            calibrator=live.calibrator,
            revision=live.revision,
            window=window,
            labels=n,
            ece=_number(binned.ece()) if n else None,
            ece_floor=_number(binned.ece_floor()) if n else None,
            drift_ratio=_number(binned.drift_ratio()) if n else None,
            expected_accuracy=_number(binned.mean_confidence()) if n else None,
            observed_accuracy=_number(binned.accuracy()) if n else None,
            **vars(self._figures(state)),
            alarm=next(
                (AlarmSummary.from_row(a) for a in alarms if a.acknowledged_at is None), None
            ),
            verdict=CalibrationVerdict.from_verdict(verdict),
            advice=advice(
                model,
                verdict.state,
                since_promotion=verdict.labels,
                alarms=alarms,
                class_name=_class_alone(alarms, classes),
                n_classes=len(names),
            ),
            class_error_low=class_low,
            class_error_high=class_high,
            classes=[ClassCalibration.of(figures) for figures in classes[:_SHOWN_CLASSES]],
            bins=[Bin.model_validate(row) for row in binned.rows()],
            binary=BinaryCalibration.of(names[1], class_1) if len(names) == 2 else None,
            baseline={
                name: number
                for name, value in self._catalogue.baseline(model, live.version).items()
                if (number := _number(value)) is not None
            },
        )

    def verdicts(
        self, transaction: Transaction, models: Iterable[str]
    ) -> dict[str, CalibrationVerdict]:
        """The verdicts on the live pairs of these models."""
        judged = self._judge(transaction, models)
        return {
            model: CalibrationVerdict.from_verdict(each.verdict) for model, each in judged.items()
        }

    def _figures(self, state: AlarmStateRow | None) -> AlarmFigures:
        return self._alarm_figures(*self._rules.log10(state))

    def _alarm_figures(self, evidence: float, change: float) -> AlarmFigures:
        return AlarmFigures(
            evidence_log10=evidence,
            evidence_threshold_log10=self._rules.evidence.threshold_log10,
            change_log10=change,
            change_threshold_log10=self._rules.change.threshold_log10,
        )

    def _collect(self, transaction: Transaction, now: float, totals: bool) -> ControlStatistics:
        since = now - self._ttl_seconds  # labels of pairs replaced before do not arrive any more
        windows = transaction.window_blocks.windows()
        fits, waiting = transaction.fits.counts()
        promotions = self._promotion_counts(transaction)
        zeros = BinnedCalibration.zeros()
        pairs = transaction.promotions.pairs(replaced_since=since)
        running = _totals(transaction, pairs, since) if totals else {}
        nothing = {"totals": zeros}
        live_models = [pair[0] for pair, live in pairs.items() if live]
        judged = self._judge(transaction, live_models, forget_others=True)
        models = [model.name for model in transaction.models.all()]
        return ControlStatistics(
            pairs=tuple(
                PairStatistics(
                    model=pair[0],
                    version=pair[1],
                    calibrator=pair[2],
                    live=live,
                    window=windows.get(pair, zeros),
                    baseline_ece=self._catalogue.baseline(pair[0], pair[1]).get("ece"),
                    **running.get(pair, nothing),
                    **(judged[pair[0]]._asdict() if live else {}),
                )
                for pair, live in pairs.items()
            ),
            # One 0 a model for sums over the labels, and those whose first 1 raises an alert:
            # increase() of a counter that appears with 1 misses the 1. docs/metrics.md names them.
            fits={**{(model, SCALE_ONLY, "admitted"): 0 for model in models}, **fits},
            fit_queue=waiting,
            alarms={
                **dict.fromkeys(itertools.product(models, _ALARM_STATISTICS), 0),
                **transaction.alarms.counts(),
            },
            promotions={
                **{(model, kind, "reverted"): 0 for model, kind, _ in promotions},
                **promotions,
            },
            refits={
                **dict.fromkeys(itertools.product(models, ("alarm", "rows"), ("held",)), 0),
                **transaction.policy_fits.counts(),
            },
            gauges=_gauges(transaction),
        )

    def _promotion_counts(self, transaction: Transaction) -> Mapping[tuple[str, str, str], int]:
        """Number of promotions; counted again only when one was added or deleted."""
        stamp = transaction.promotions.stamp()
        if self._promotions[0] != stamp:
            self._promotions = stamp, transaction.promotions.counts()
        return self._promotions[1]

    def _judge(
        self, transaction: Transaction, models: Iterable[str], *, forget_others: bool = False
    ) -> dict[str, _Judged]:
        """What the labels say about the live pair of each model; only changes are computed."""
        # Taken inside a transaction, so whoever has it never waits for a connection.
        with self._judging:
            return self._judge_changes(transaction, models, forget_others=forget_others)

    def _judge_changes(
        self, transaction: Transaction, models: Iterable[str], *, forget_others: bool
    ) -> dict[str, _Judged]:
        stamps, alarms = transaction.alarm_states.stamps(), transaction.alarms.live()
        made_of = {
            model: (
                stamps.get(model),
                tuple((alarm.id, alarm.acknowledged_at) for alarm in alarms.get(model, ())),
            )
            for model in models
        }
        known = self._judged
        self._judged = {} if forget_others else dict(known)
        changed = [m for m, now in made_of.items() if m not in known or known[m][0] != now]
        judged = self._judge_all(transaction, changed, alarms)
        for model, now in made_of.items():
            self._judged[model] = (now, judged[model]) if model in judged else known[model]
        return {model: self._judged[model][1] for model in made_of}

    def _judge_all(
        self, transaction: Transaction, models: list[str], alarms: Mapping[str, list[AlarmRow]]
    ) -> dict[str, _Judged]:
        """`_judge` for these models, all at once."""
        if not models:
            return {}
        rules, table = self._rules, transaction.alarm_states
        rows = table.figures(_few(models))
        # Stored by a release before, or with other settings.
        name = rules.name
        other = [m for m in models if m in rows and rows[m].rules != name]
        states = table.live(_few(other)) if other else {}
        log10 = {model: rules.log10(states[model]) for model in other}
        sums = [rules.sums(rows.get(model)) for model in models]
        verdicts = rules.verdicts(
            [(each, alarms.get(model, ())) for model, each in zip(models, sums, strict=True)]
        )
        classes = self._class_figures([since_promotion for since_promotion, _ in sums])
        return {
            model: _Judged(
                self._alarm_figures(*(log10.get(model) or _stored_log10(rows.get(model)))),
                verdict,
                figures,
            )
            for model, verdict, figures in zip(models, verdicts, classes, strict=True)
        }

    def _class_figures(self, streams: list[ErrorSums]) -> list[ClassFigures | None]:
        rules = self._rules
        bounds = rules.interval.class_bounds_of_each(streams)
        off = rules.interval.classes_off_of_each(streams, rules.bets.class_tolerance or 0.0)
        arrays = [sums.classes.arrays()[1] for sums in streams if sums.classes is not None]
        if not arrays:
            return [None] * len(streams)
        _, confidence, right, squares = np.concatenate(arrays).T
        starts = np.cumsum([0, *map(len, arrays[:-1])])
        error = np.add.reduceat(np.abs(right - confidence), starts).tolist()
        floor = np.add.reduceat(np.sqrt(2.0 / math.pi * squares), starts).tolist()
        totals = iter(zip(error, floor, strict=True))
        found: list[ClassFigures | None] = []
        for sums, (low, high), n_off in zip(streams, bounds, off, strict=True):
            if sums.classes is None:
                found.append(None)
                continue
            errors, floors = next(totals)
            found.append(ClassFigures(errors / sums.n, floors / sums.n, low, high, n_off))
        return found


def _few(models: list[str]) -> list[str] | None:
    """The models for a query to name; None for all models."""
    return models if len(models) <= _FEW_MODELS else None


def _stored_log10(row: AlarmFiguresRow | None) -> tuple[float, float]:
    """log10 of evidence and change; exactly 0 before the first label."""
    if row is None or row.evidence_log10 is None or row.change_log10 is None:
        return 0.0, 0.0
    return row.evidence_log10, row.change_log10


def _totals(
    transaction: Transaction, pairs: Iterable[tuple[str, int, str]], since: float
) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Totals of each pair; fields of `PairStatistics`."""
    bins = transaction.bins.running(replaced_since=since)
    classes = transaction.class_totals.running(replaced_since=since)
    names = transaction.models.class_names(most=CLASS_COUNTERS.stop - 1)
    no_bins, found = Parts(*[BinnedCalibration.zeros()] * 3), {}
    for pair in pairs:
        of_pair, sums = names.get(pair[:2], ()), classes.get(pair, {})
        parts = bins.get(pair, no_bins)
        found[pair] = {
            "totals": parts.unknown,
            "by_prediction": parts[1:] if len(of_pair) == 2 else (),
            "by_class": {name: sums.get(index, _NO_LABELS) for index, name in enumerate(of_pair)}
            if len(of_pair) in CLASS_COUNTERS
            else {},
        }
    return found


def _gauges(transaction: Transaction) -> dict[str, dict[tuple[str, ...], float]]:
    """Gauges of shadows, of remembered predictions and of the webhook, by name and labels."""
    better: dict[tuple[str, ...], float] = {}
    worse: dict[tuple[str, ...], float] = {}
    threshold: dict[tuple[str, ...], float] = {}
    for shadow in transaction.shadows.all_running():
        labels = (shadow.model, str(shadow.version), shadow.calibrator, shadow.role)
        better[labels] = shadow.better_log10
        worse[labels] = shadow.worse_log10
        threshold[labels] = -math.log10(shadow.alpha)
    waiting = transaction.events.waiting()
    remembered: dict[str, dict[tuple[str, ...], float]] = {
        f"remembered_{name}": {} for name in ("rows", "bytes", "oldest_timestamp_seconds")
    }
    for each in transaction.remembered.figures():  # the oldest hour first
        own = (each.model,)
        for name, value in (("rows", each.n_rows), ("bytes", each.size_bytes)):
            gauge = remembered[f"remembered_{name}"]
            gauge[own] = gauge.get(own, 0.0) + value
        remembered["remembered_oldest_timestamp_seconds"].setdefault(own, each.hour * 3600.0)
    return {
        **remembered,
        "shadow_better_log10": better,
        "shadow_worse_log10": worse,
        "shadow_threshold_log10": threshold,
        "webhook_waiting": {(kind,): float(waiting.get(kind, 0)) for kind in EVENT_KINDS},
    }


def window_hours(window: str) -> int:
    """Hours of a window such as ``24h`` or ``7d``; raises `InvalidRequest` for other texts."""
    match = _WINDOW.fullmatch(window)
    hours = 0 if match is None else int(match[1]) * (24 if match[2] == "d" else 1)
    if not 1 <= hours <= _MAX_HOURS:
        raise InvalidRequest("window must be a number of hours or days, as in 24h or 7d")
    return hours


def advice(
    model: str,
    state: VerdictState,
    *,
    since_promotion: int,  # labels that the verdict is based on
    alarms: Sequence[AlarmRow] = (),  # of the live promotion
    class_name: str | None = None,  # of the class that needs a map of its own
    n_classes: int = 3,
) -> str:
    """What to do now; the verdict's own sentence says what is."""
    if state is VerdictState.WITHIN_TOLERANCE:
        return "Nothing to do."
    if state is VerdictState.UNKNOWN:
        if since_promotion == 0:
            return f"Send labels to /v1/models/{model}/labels to learn whether it is calibrated."
        return "Nothing to do but to send labels as they come."
    unseen = sorted(alarm.id for alarm in alarms if alarm.acknowledged_at is None)
    named = f"alarm{'s' * (len(unseen) > 1)} {' and '.join(map(str, unseen))}"
    then = f", then acknowledge {named}" if unseen else "; a promotion ends this state"
    query, why = "", ""
    if class_name is not None and n_classes == 2:
        why = (
            f" Answers {class_name!r} are off in their own way; with two classes smart fits a "
            "smart-binary, which repairs that, and may move the threshold."
        )
    elif class_name is not None:
        query = "?method=auto&allow_prediction_change=true"
        why = (
            f" Answers {class_name!r} are off in their own way; smart, which keeps predictions, "
            "has one map for all classes."
        )
    return (
        f"Upload recent labelled rows to /v1/models/{model}/calibration-sets{query} and promote "
        f"what is admitted{then}.{why}"
    )


def _class_alone(alarms: Sequence[AlarmRow], classes: Sequence[Mapping[str, Any]]) -> str | None:
    """A class that an alarm names, if most of its gap is not that of all predictions."""
    gaps = {each["class_name"]: each["confidence"] - each["frequency"] for each in classes}
    overall = math.fsum(each["share"] * gaps[each["class_name"]] for each in classes)
    for alarm in alarms:
        name = None if alarm.worst_class is None else alarm.worst_class["class_name"]
        if alarm.is_active and name in gaps and abs(gaps[name] - overall) > 0.5 * abs(gaps[name]):
            return str(name)
    return None


def _number(value: float) -> float | None:
    """The number; None if JSON cannot represent it."""
    return float(value) if math.isfinite(value) else None
