"""The code of the child process: reads a stored set, judges, fits, and returns plain values.

`trueprob_service.control.fitting.process` spawns it. It imports the core and the log, so it starts
fast and has no sockets and no database. It ends with its parent, even in the middle of a fit:
another replica runs that fit again.
"""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from trueprob.admission.decision import admit, is_new_row
from trueprob.admission.reference import ReferenceCheck, check_reference
from trueprob.admission.verdict import Verdict
from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set
from trueprob.calibrators import (
    Calibrator,
    FitOutcome,
    FittedCalibrator,
    FittedOn,
    loads_calibrator,
    to_dict,
)
from trueprob.calibrators.input_stage import InputStage
from trueprob.drift.reference_bins import ReferenceBins
from trueprob.errors import InvalidInput, TrueprobError
from trueprob.findings.finding import Finding
from trueprob.findings.incumbent_check import CandidateCheck, check_candidate
from trueprob.fitting.methods import BINARY, fit_rows, keeps_prediction, method_for_set
from trueprob.label_shift.label_shift_check import LEAST_TRAFFIC, check_label_shift
from trueprob_service.logs import REQUEST, configure_logging

__all__ = ["BEAT_SECONDS", "CalibratorDocument", "Job", "JobResult", "run", "serve"]

_LOG: Final = logging.getLogger(__name__)
BEAT_SECONDS: Final = 5.0  # how often the process says during a job that it is alive
# Niceness: predictions in the parent have priority when the processor is busy.
_NICE: Final = 5
# Judging's share of the time: five fits on four fifths of the rows, before one fit on all.
_JUDGING: Final = 0.8
_CLASS_WISE: Final = "smart-vector"
# Five fits of it on so many logits take minutes; larger sets are not compared.
_COMPARED_LOGITS: Final = 20_000_000
_SHOWN_CLASSES: Final = 5  # of a changed mix
_ADVICE_ROWS: Final = 2_000  # labelled rows for that figure, which keeps it to seconds


@dataclass(frozen=True)
class CalibratorDocument:
    """A fitted calibrator as JSON."""

    document: str  # `calibrator.json`
    warnings: tuple[str, ...] = ()  # from fitting it


@dataclass(frozen=True)
class Job:
    """A fit for the child process."""

    path: Path  # the stored calibration set
    class_names: tuple[str, ...]  # of the version, in order
    method: str
    incumbent: str  # `calibrator.json`; the candidate is compared with it
    seen_row_digests: bytes  # digests (16 bytes a row) of the rows that the incumbent was fitted on
    created_at: float  # seconds since 1970 UTC, for the document
    keep_prediction: bool = False
    allow_prediction_change: bool = False
    reference: Path | None = None  # the reference set: candidates must not be worse on it
    earlier: CalibratorDocument | None = None  # the candidate, if it was fitted before
    traffic: NDArray[np.float32] | None = None  # recent logits without labels
    usual_gaps: ReferenceBins | None = None  # of the version's baseline
    # Named by the alarm: the result says what a method that may change predictions would do.
    blamed_class: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)  # for lines of the log
    traceparent: str = ""  # of the request; "" if it had none


@dataclass(frozen=True)
class JobResult:
    """The candidate of a job and its verdict, or an error."""

    calibrator: str = ""  # id of the candidate, which is fitted on all rows
    kind: str = ""
    document: str = ""  # `calibrator.json`
    admitted: bool = False
    held: bool = False  # a finding keeps it from going live without force
    reasons: tuple[str, ...] = ()  # those that decide come first
    findings: tuple[dict[str, Any], ...] = ()  # documents; those that hold come first
    # Mean confidence before and after, on the set and on recent traffic (None without any).
    on_set: dict[str, float] | None = None
    on_traffic: dict[str, float] | None = None
    label_shift: dict[str, Any] | None = None  # of the traffic, under the incumbent
    warnings: tuple[str, ...] = ()  # from fitting; findings too
    # of `incumbent` and `candidate`; None where there was no row to compare them on
    scores: dict[str, Any] | None = None
    seconds: float = 0.0
    error: str | None = None  # a sentence; all other fields are empty then


def serve(connection: Connection, log_format: Literal["text", "json"] = "text") -> None:
    """Run jobs from the pipe until the parent closes it, and send progress and results.

    Progress is sent every `BEAT_SECONDS` even if it is the same, as a sign of life.
    """
    if hasattr(os, "nice"):
        os.nice(_NICE)
    # Threads of linear algebra spin while they wait for each other. On all cores, beside
    # predictions, a linear stage took eighteen times as long as on one thread. The limit applies
    # to loaded libraries only, and SciPy brings its own: so import it first.
    importlib.import_module("scipy.optimize")
    threadpool_limits(1)
    configure_logging(log_format)
    threading.Thread(target=_end_with_parent, name="trueprob-parent", daemon=True).start()
    while True:
        try:
            job = connection.recv()
            REQUEST.set(job.request)
            with _Reports(connection) as reports:
                result = run(job, reports.progress)
            connection.send(result)
        except (EOFError, OSError):
            return


class _Reports:
    """Sends progress, and repeats it from a thread of its own; the pipe takes one at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._done = threading.Event()
        self._share = 0.0
        self._thread = threading.Thread(target=self._repeat, name="trueprob-beat", daemon=True)

    def __enter__(self) -> _Reports:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def progress(self, share: float) -> None:
        """Send the share of the job that is done."""
        self._share = share
        with self._sending:
            self._connection.send(share)

    def _repeat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                self.progress(self._share)
            except OSError:  # the parent is gone; the next receive says so
                return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the main thread may be deep in a fit


def run(job: Job, progress: Callable[[float], None] = lambda _share: None) -> JobResult:
    """Judge a method, and fit the candidate if needed; a failure gives a result with an error."""
    started = time.perf_counter()
    k = len(job.class_names)
    allowed = {
        "keep_prediction": job.keep_prediction,
        "allow_prediction_change": job.allow_prediction_change,
    }
    try:
        incumbent = loads_calibrator(job.incumbent.encode())
        rows = incumbent.masked_set(load_calibration_set(job.path, n_classes=k))
        if job.traffic is not None and incumbent.masks is not None:
            job = replace(job, traffic=incumbent.masks.masked(job.traffic))
        seen = np.frombuffer(job.seen_row_digests, np.uint8).reshape(-1, 16)
        method, replaced = method_for_set(job.method, rows, **allowed)
        other = _other_method(job, method, rows)
        judging = _JUDGING if other is None else _JUDGING / 3
        verdict = admit(
            incumbent,
            method,
            rows,
            seen_row_digests=seen,
            **allowed,
            progress=lambda share: progress(judging * share),
        )
        compared = None
        if other is not None:
            compared = admit(
                incumbent,
                other,
                rows,
                seen_row_digests=seen,
                progress=lambda share: progress(judging * (1.0 + 2.0 * share)),
            )
        fitted, document = _candidate(job, method, rows, incumbent.masks)
        checked = check_candidate(
            incumbent, fitted, rows, traffic=job.traffic, usual_gaps=job.usual_gaps
        )
        label_shift = _label_shift(job, incumbent, rows, seen)
        check = None
        if job.reference is not None:
            check = check_reference(
                incumbent,
                fitted.calibrator,
                incumbent.masked_set(load_calibration_set(job.reference, n_classes=k)),
                fitted_row_digests=rows.row_digests,
            )
    except TrueprobError as error:
        return JobResult(error=str(error))
    except Exception as error:  # noqa: BLE001 - an error in one fit must not end the process
        _LOG.exception("a fit with %s failed", job.method)
        return JobResult(error=f"the fit failed with {type(error).__name__}; see the log")
    held, traffic = bool(checked.holds), checked.on_traffic
    findings = (*checked.findings, *replaced)
    return JobResult(
        calibrator=fitted.calibrator.id,
        kind=fitted.calibrator.kind,
        document=document,
        admitted=verdict.admitted and (check is None or check.passed) and not held,
        held=held,
        reasons=(
            *_in_order(verdict, check, checked, replaced),
            *_advice(job, method, verdict, other, compared),
        ),
        findings=tuple(each.to_dict() for each in findings),
        on_set=checked.on_set.to_dict(),
        on_traffic=None if traffic is None else traffic.to_dict(),
        label_shift=label_shift,
        warnings=fitted.warnings,
        scores={
            side: None if scores is None else scores.to_dict()
            for side, scores in verdict.scores.items()
        },
        seconds=time.perf_counter() - started,
    )


def _candidate(
    job: Job, method: str, rows: CalibrationSet, masks: InputStage | None
) -> tuple[FittedCalibrator, str]:
    """The candidate, with the masks of the incumbent, and its document."""
    if job.earlier is not None:
        earlier = job.earlier
        calibrator = loads_calibrator(earlier.document.encode())
        fitted = FittedCalibrator(calibrator, FitOutcome.CONVERGED, earlier.warnings)
        return fitted, earlier.document
    fitted = fit_rows(
        method,
        rows,
        keep_prediction=job.keep_prediction,
        allow_prediction_change=job.allow_prediction_change,
    )
    created_at = datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="seconds")
    source = FittedOn.of(rows, created_at)
    calibrator = fitted.calibrator.with_class_names(job.class_names).with_masks(masks)
    named = replace(fitted, calibrator=calibrator.with_uncertainty(rows))
    return named, json.dumps(to_dict(named.calibrator, source), allow_nan=False)


def _in_order(
    verdict: Verdict,
    check: ReferenceCheck | None,
    checked: CandidateCheck,
    replaced: tuple[Finding, ...],
) -> tuple[str, ...]:
    """All reasons, those that decide first."""
    compared = list(verdict.reasons)
    if check is not None:
        decides = verdict.admitted and not check.passed
        compared.insert(0 if decides else len(compared), check.reason)
    warnings = [each for each in checked.findings if each not in checked.holds]
    return (*map(str, checked.holds), *compared, str(checked), *map(str, (*warnings, *replaced)))


def _label_shift(
    job: Job, incumbent: Calibrator, rows: CalibrationSet, seen: NDArray[np.uint8]
) -> dict[str, Any] | None:
    """Whether the traffic has another mix of classes than the new rows; None with few of either.

    An advice for whoever reads the report: nothing here or in the parent acts on it.
    """
    traffic = job.traffic
    if traffic is None or len(np.unique(traffic, axis=0)) < LEAST_TRAFFIC:
        return None
    is_new = is_new_row(rows.row_digests, seen)  # the incumbent was fitted on the others
    chosen = np.flatnonzero(is_new)
    if chosen.size == 0:
        return None
    if chosen.size > _ADVICE_ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _ADVICE_ROWS, replace=False))
    new = rows.subset(chosen)
    try:
        found = check_label_shift(
            incumbent.predict_proba(new.logits),
            new.labels,
            incumbent.predict_proba(traffic),
            weights=new.weights,
            groups=new.groups,
        )
    except InvalidInput:  # too few rows or groups
        return None
    source, target = found.prior.source, found.prior.target
    return {
        "advised": found.advised,
        "sentence": str(found),
        "rows": found.traffic_rows,
        "classes": [
            {
                "class_name": job.class_names[c],
                "before": float(source[c]),
                "after": float(target[c]),
            }
            for c in found.changed_classes(_SHOWN_CLASSES)
        ],
    }


def _other_method(job: Job, method: str, rows: CalibrationSet) -> str | None:
    """A method that may do better because it may change predictions, to be compared; or None.

    With two classes it is `smart-binary`. Otherwise an alarm must name a class, and the set must
    allow a class-wise fit within minutes.
    """
    k = len(job.class_names)
    if k == 2:
        kept = keeps_prediction(
            method,
            k,
            keep_prediction=job.keep_prediction,
            allow_prediction_change=job.allow_prediction_change,
        )
        other = BINARY if kept else None
    else:
        other = _CLASS_WISE if job.blamed_class is not None else None
    if other is None or rows.logits.size > _COMPARED_LOGITS or method_for_set(other, rows)[1]:
        return None
    return other


def _advice(
    job: Job, method: str, verdict: Verdict, other: str | None, compared: Verdict | None
) -> tuple[str, ...]:
    """What a method that may change predictions would do."""
    mine = verdict.scores["candidate"]
    theirs = None if compared is None else compared.scores["candidate"]
    said = None
    if compared is not None and mine is not None and theirs is not None:
        change = f"{theirs.nll - mine.nll:+.3f}".replace("-", "−")
        admitted = "" if compared.admitted else "not "
        said = (
            f"{other}, which may change predictions, would change NLL by {change} nats on the "
            f"same rows and would {admitted}be admitted"
        )
    if len(job.class_names) == 2:
        better = mine is not None and theirs is not None and theirs.nll < mine.nll
        if said is None or not better or compared is None or not compared.admitted:
            return ()
        return (
            f"{method} keeps predictions: {said}; method=smart without keep_prediction fits it",
        )
    if job.blamed_class is None:
        return ()
    setting = "TRUEPROB_ALLOW_PREDICTION_CHANGE=true"
    alarm = f"the alarm names class {job.blamed_class!r}, and {method} has one map for all classes"
    if said is None:
        return (f"{alarm}: {setting} allows a class-wise method, which may change predictions",)
    return (f"{alarm}: {said}; {setting} allows it",)
