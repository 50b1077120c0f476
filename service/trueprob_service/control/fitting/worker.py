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
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from trueprob.admission.decision import admit
from trueprob.admission.reference import ReferenceCheck, check_reference
from trueprob.admission.verdict import Verdict
from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set
from trueprob.calibrators import Calibrator, FittedOn, loads_calibrator, to_dict
from trueprob.errors import TrueprobError
from trueprob.findings.finding import Severity
from trueprob.findings.set_check import check_set
from trueprob.fitting.methods import fit_rows

__all__ = ["CalibratorDocument", "Job", "JobResult", "run", "serve"]

_LOG: Final = logging.getLogger(__name__)
# Niceness: predictions in the parent have priority when the processor is busy.
_NICE: Final = 5
# Judging's share of the time: five fits on four fifths of the rows, before one fit on all.
_JUDGING: Final = 0.8


@dataclass(frozen=True)
class CalibratorDocument:
    """A fitted calibrator as JSON."""

    document: str  # `calibrator.json`
    warnings: tuple[str, ...] = ()  # from fitting it


@dataclass(frozen=True)
class Job:
    """A fit for the child process."""

    path: Path  # the stored calibration set
    n_classes: int
    method: str
    incumbent: str  # `calibrator.json`; the candidate is compared with it
    seen_row_digests: bytes  # digests (16 bytes a row) of the rows that the incumbent was fitted on
    created_at: float  # seconds since 1970 UTC, for the document
    allow_prediction_change: bool = False
    reference: Path | None = None  # the reference set: candidates must not be worse on it
    earlier: CalibratorDocument | None = None  # the candidate, if it was fitted before


@dataclass(frozen=True)
class JobResult:
    """The candidate of a job and its verdict, or an error."""

    calibrator: str = ""  # id of the candidate, which is fitted on all rows
    kind: str = ""
    document: str = ""  # `calibrator.json`
    admitted: bool = False
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # from fitting
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
    change = job.allow_prediction_change
    try:
        rows = load_calibration_set(job.path, n_classes=job.n_classes)
        seen = np.frombuffer(job.seen_row_digests, np.uint8).reshape(-1, 16)
        verdict = admit(
            loads_calibrator(job.incumbent.encode()),
            job.method,
            rows,
            seen_row_digests=seen,
            allow_prediction_change=change,
            progress=lambda share: progress(_JUDGING * share),
        )
        candidate, fitted = _candidate(job, rows)
        findings = check_set(rows)  # those that hold come first
        check = None
        if job.reference is not None:
            check = check_reference(
                loads_calibrator(job.incumbent.encode()),
                candidate,
                load_calibration_set(job.reference, n_classes=job.n_classes),
                fitted_row_digests=rows.row_digests,
            )
    except TrueprobError as error:
        return JobResult(error=str(error))
    except Exception as error:  # noqa: BLE001 - an error in one fit must not end the process
        _LOG.exception("a fit with %s failed", job.method)
        return JobResult(error=f"the fit failed with {type(error).__name__}; see the log")
    holds = [finding for finding in findings if finding.severity is Severity.HOLD]
    reasons = _in_order(verdict, check)
    return JobResult(
        calibrator=candidate.id,
        kind=candidate.kind,
        document=fitted.document,
        admitted=verdict.admitted and (check is None or check.passed) and not holds,
        reasons=(*map(str, holds), *reasons, *map(str, findings[len(holds) :])),
        warnings=fitted.warnings,
        scores={
            side: None if scores is None else scores.to_dict()
            for side, scores in verdict.scores.items()
        },
        seconds=time.perf_counter() - started,
    )


def _candidate(job: Job, rows: CalibrationSet) -> tuple[Calibrator, CalibratorDocument]:
    if job.earlier is not None:
        return loads_calibrator(job.earlier.document.encode()), job.earlier
    fitted = fit_rows(job.method, rows, allow_prediction_change=job.allow_prediction_change)
    created_at = datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="seconds")
    source = FittedOn.of(rows, created_at)
    document = json.dumps(to_dict(fitted.calibrator, source), allow_nan=False)
    return fitted.calibrator, CalibratorDocument(document, tuple(fitted.warnings))


def _in_order(verdict: Verdict, check: ReferenceCheck | None) -> tuple[str, ...]:
    """All reasons, the decisive one first."""
    if check is None:
        return verdict.reasons
    if verdict.admitted and not check.passed:
        return (check.reason, *verdict.reasons)
    return (*verdict.reasons, check.reason)
