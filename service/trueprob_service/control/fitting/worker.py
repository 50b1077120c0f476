"""The code of the child process: reads a stored set, judges, fits, and returns plain values.

`trueprob_service.control.fitting.process` spawns it. It imports only the core, so it starts fast
and has no sockets and no database. It ends with its parent, even in the middle of a fit: another
replica runs that fit again.
"""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from trueprob.admission.decision import admit
from trueprob.admission.reference import ReferenceCheck, check_reference
from trueprob.admission.verdict import Verdict
from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set
from trueprob.calibrators import (
    FitOutcome,
    FittedCalibrator,
    FittedOn,
    loads_calibrator,
    to_dict,
)
from trueprob.drift.reference_bins import ReferenceBins
from trueprob.errors import TrueprobError
from trueprob.findings.finding import Finding
from trueprob.findings.incumbent_check import CandidateCheck, check_candidate
from trueprob.fitting.methods import fit_rows, method_for_set

__all__ = ["CalibratorDocument", "Job", "JobResult", "run", "serve"]

_LOG: Final = logging.getLogger(__name__)
# Niceness: predictions in the parent have priority when the processor is busy.
_NICE: Final = 5
# Judging's share of the time: five fits on four fifths of the rows, before one fit on all.
_JUDGING: Final = 0.8
_CLASS_WISE: Final = "smart-vector"
# Five fits of it on so many logits take minutes; larger sets are not compared.
_COMPARED_LOGITS: Final = 20_000_000


@dataclass(frozen=True)
class CalibratorDocument:
    """A fitted calibrator as JSON."""

    document: str  # `calibrator.json`
    warnings: tuple[str, ...] = ()  # from fitting it
    at_bound: bool = False  # whether a parameter stopped at its bound


@dataclass(frozen=True)
class Job:
    """A fit for the child process."""

    path: Path  # the stored calibration set
    class_names: tuple[str, ...]  # of the version, in order
    method: str
    incumbent: str  # `calibrator.json`; the candidate is compared with it
    seen_row_digests: bytes  # digests (16 bytes a row) of the rows that the incumbent was fitted on
    created_at: float  # seconds since 1970 UTC, for the document
    allow_prediction_change: bool = False
    reference: Path | None = None  # the reference set: candidates must not be worse on it
    earlier: CalibratorDocument | None = None  # the candidate, if it was fitted before
    traffic: NDArray[np.float32] | None = None  # recent logits without labels
    usual_gaps: ReferenceBins | None = None  # of the version's baseline
    # Named by the alarm: the result says what a method that may change predictions would do.
    blamed_class: str | None = None


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
    warnings: tuple[str, ...] = ()  # from fitting; findings too
    # of `incumbent` and `candidate`; None where there was no row to compare them on
    scores: dict[str, Any] | None = None
    seconds: float = 0.0
    error: str | None = None  # a sentence; all other fields are empty then


def serve(connection: Connection) -> None:
    """Run jobs from the pipe until the parent closes it, and send progress and results."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    # Threads of linear algebra spin while they wait for each other. On all cores, beside
    # predictions, a linear stage took eighteen times as long as on one thread. The limit applies
    # to loaded libraries only, and SciPy brings its own: so import it first.
    importlib.import_module("scipy.optimize")
    threadpool_limits(1)
    threading.Thread(target=_end_with_parent, name="trueprob-parent", daemon=True).start()
    while True:
        try:
            job = connection.recv()
            connection.send(run(job, connection.send))
        except (EOFError, OSError):
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the main thread may be deep in a fit


def run(job: Job, progress: Callable[[float], None] = lambda _share: None) -> JobResult:
    """Judge a method, and fit the candidate if needed; a failure gives a result with an error."""
    started = time.perf_counter()
    change, k = job.allow_prediction_change, len(job.class_names)
    try:
        rows = load_calibration_set(job.path, n_classes=k)
        seen = np.frombuffer(job.seen_row_digests, np.uint8).reshape(-1, 16)
        incumbent = loads_calibrator(job.incumbent.encode())
        method, replaced = method_for_set(job.method, rows, allow_prediction_change=change)
        judging = _JUDGING if job.blamed_class is None else _JUDGING / 3
        verdict = admit(
            incumbent,
            method,
            rows,
            seen_row_digests=seen,
            allow_prediction_change=change,
            progress=lambda share: progress(judging * share),
        )
        class_wise = None
        if job.blamed_class is not None and _can_compare(rows):
            class_wise = admit(
                incumbent,
                _CLASS_WISE,
                rows,
                seen_row_digests=seen,
                progress=lambda share: progress(judging * (1.0 + 2.0 * share)),
            )
        fitted, document = _candidate(job, method, rows)
        checked = check_candidate(
            incumbent, fitted, rows, traffic=job.traffic, usual_gaps=job.usual_gaps
        )
        check = None
        if job.reference is not None:
            check = check_reference(
                incumbent,
                fitted.calibrator,
                load_calibration_set(job.reference, n_classes=k),
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
            *_class_advice(job, method, verdict, class_wise),
        ),
        findings=tuple(each.to_dict() for each in findings),
        on_set=checked.on_set.to_dict(),
        on_traffic=None if traffic is None else traffic.to_dict(),
        warnings=fitted.warnings,
        scores={
            side: None if scores is None else scores.to_dict()
            for side, scores in verdict.scores.items()
        },
        seconds=time.perf_counter() - started,
    )


def _candidate(job: Job, method: str, rows: CalibrationSet) -> tuple[FittedCalibrator, str]:
    """The candidate and its document."""
    if job.earlier is not None:
        earlier = job.earlier
        outcome = FitOutcome.AT_BOUND if earlier.at_bound else FitOutcome.CONVERGED
        calibrator = loads_calibrator(earlier.document.encode())
        return FittedCalibrator(calibrator, outcome, earlier.warnings), earlier.document
    fitted = fit_rows(method, rows, allow_prediction_change=job.allow_prediction_change)
    created_at = datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="seconds")
    source = FittedOn.of(rows, created_at)
    calibrator = fitted.calibrator.with_class_names(job.class_names).with_uncertainty(rows)
    named = replace(fitted, calibrator=calibrator)
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


def _can_compare(rows: CalibrationSet) -> bool:
    """Whether a class-wise method can be fitted to these rows in minutes, and makes sense."""
    return rows.logits.size <= _COMPARED_LOGITS and not method_for_set(_CLASS_WISE, rows)[1]


def _class_advice(
    job: Job, method: str, verdict: Verdict, class_wise: Verdict | None
) -> tuple[str, ...]:
    """What a class-wise method would do, if the alarm names a class."""
    if job.blamed_class is None:
        return ()
    setting = "TRUEPROB_ALLOW_PREDICTION_CHANGE=true"
    alarm = f"the alarm names class {job.blamed_class!r}, and {method} has one map for all classes"
    mine = verdict.scores["candidate"]
    other = None if class_wise is None else class_wise.scores["candidate"]
    if class_wise is None or mine is None or other is None:
        return (f"{alarm}: {setting} allows a class-wise method, which may change predictions",)
    change = f"{other.nll - mine.nll:+.3f}".replace("-", "−")
    admitted = "" if class_wise.admitted else "not "
    would = f"would change NLL by {change} nats on the same rows and would {admitted}be admitted"
    return (f"{alarm}: {_CLASS_WISE}, which may change predictions, {would}; {setting} allows it",)
