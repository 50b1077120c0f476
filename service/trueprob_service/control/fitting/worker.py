"""The fitting process: reads a stored set, judges, fits, answers with plain values.

Spawned by `trueprob_service.control.fitting.runner`, it imports the core and nothing of the
service, so that it starts fast and holds neither sockets nor the database. It ends with its parent,
in the middle of a fit if need be: when a replica was killed, another one runs that fit again.
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
from trueprob.fitting.methods import fit_rows
from trueprob.fitting.report import set_warnings

__all__ = ["Fitted", "FittedBefore", "Job", "run", "serve"]

_LOG: Final = logging.getLogger(__name__)
# Predictions are answered by the parent: they come first when the processor is scarce.
_NICE: Final = 5
# Five fits on four fifths of the rows come before the one on all of them.
_JUDGING: Final = 0.8


@dataclass(frozen=True)
class FittedBefore:
    """A calibrator that was fitted on the same rows in the same way."""

    document: str  # `calibrator.json`
    warnings: tuple[str, ...] = ()  # of fitting it


@dataclass(frozen=True)
class Job:
    """What to fit."""

    path: Path  # the stored calibration set
    n_classes: int
    method: str
    incumbent: str  # `calibrator.json` of what the candidate is compared with
    seen_row_digests: bytes  # 16 bytes for each row on which the incumbent was fitted
    created_at: float  # seconds since 1970 UTC, for the document
    allow_prediction_change: bool = False  # whether the calibrator may change predictions
    # a set on which the candidate must not be significantly worse, to be admitted
    reference: Path | None = None
    before: FittedBefore | None = None  # what is judged in place of a calibrator that is fitted now


@dataclass(frozen=True)
class Fitted:
    """What came of it; ``error`` is a sentence, and then the rest is empty."""

    calibrator: str = ""  # the candidate, fitted on all rows
    kind: str = ""  # the candidate, fitted on all rows
    document: str = ""  # the candidate, fitted on all rows
    admitted: bool = False
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # of fitting
    # `incumbent` and `candidate`; None where no row could be compared
    scores: dict[str, Any] | None = None
    seconds: float = 0.0
    error: str | None = None


def serve(connection: Connection) -> None:
    """Answer jobs until the parent hangs up; on the way, say which share of one is done."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    # Threads of linear algebra wait for each other by spinning: beside predictions, on all
    # cores, a linear stage was seen to take eighteen times as long as on one thread. Only what
    # is loaded is limited, and SciPy brings libraries of its own.
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


def run(job: Job, progress: Callable[[float], None] = lambda _share: None) -> Fitted:
    """Judge, and fit if need be; failures are answers, whatever they are."""
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
        check = None
        if job.reference is not None:
            check = check_reference(
                loads_calibrator(job.incumbent.encode()),
                candidate,
                load_calibration_set(job.reference, n_classes=job.n_classes),
                fitted_row_digests=rows.row_digests,
            )
    except TrueprobError as error:
        return Fitted(error=str(error))
    except Exception as error:  # noqa: BLE001 - a fault in one fit must not end the process
        _LOG.exception("a fit with %s failed", job.method)
        return Fitted(error=f"the fit failed with {type(error).__name__}; the log says more")
    return Fitted(
        calibrator=candidate.id,
        kind=candidate.kind,
        document=fitted.document,
        admitted=verdict.admitted and (check is None or check.passed),
        reasons=(*_in_order(verdict, check), *set_warnings(rows)),
        warnings=fitted.warnings,
        scores={
            side: None if scores is None else scores.to_dict()
            for side, scores in verdict.scores.items()
        },
        seconds=time.perf_counter() - started,
    )


def _candidate(job: Job, rows: CalibrationSet) -> tuple[Calibrator, FittedBefore]:
    if job.before is not None:
        return loads_calibrator(job.before.document.encode()), job.before
    fitted = fit_rows(job.method, rows, allow_prediction_change=job.allow_prediction_change)
    created_at = datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="seconds")
    source = FittedOn(digest=rows.digest, n=rows.n, created_at=created_at)
    document = json.dumps(to_dict(fitted.calibrator, source), allow_nan=False)
    return fitted.calibrator, FittedBefore(document, tuple(fitted.warnings))


def _in_order(verdict: Verdict, check: ReferenceCheck | None) -> tuple[str, ...]:
    """Reasons, the deciding one first."""
    if check is None:
        return verdict.reasons
    if verdict.admitted and not check.passed:
        return (check.reason, *verdict.reasons)
    return (*verdict.reasons, check.reason)
