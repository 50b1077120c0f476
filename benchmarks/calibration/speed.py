"""Seconds of each operation and of its peer in the same run, and memory of a large fit."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.calibration.peers import probmetrics_method
from benchmarks.calibration.report import table
from benchmarks.calibration.sets import ROOT
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits
from trueprob.calibrators.linear.fit import fit_linear_stage
from trueprob.fitting.methods import FITTERS
from trueprob.scores.score import score

SMS_NOTE = (
    "Processor time of our slow fits in one thread, beside probmetrics' structured matrix scaling "
    "(`sms`) on the same rows:"
)
PUBLISHED_ELEMENTS = 100_000  # beyond, the published recipe runs 10 steps of 2 000
PEAK = """
import sys, tracemalloc
from benchmarks.calibration.speed import realistic
from trueprob.fitting.methods import FITTERS
FITTERS["smart"](*realistic(300, 10), None, seed=0)
logits, labels = realistic(int(sys.argv[1]), int(sys.argv[2]))
tracemalloc.start()
FITTERS["smart"](logits, labels, None, seed=0)
print(tracemalloc.get_traced_memory()[1] + logits.nbytes, logits.nbytes)
"""


def realistic(n: int, k: int, *, seed: int = 0) -> tuple[Logits, Labels]:
    """Logits of an overconfident network of about 80 % accuracy.

    The label's logit is raised by a normal amount; then all are multiplied by 1.7.
    """
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((n, k), dtype=np.float32)
    labels = generator.integers(0, k, n)
    raised = np.sqrt(2.0 * np.log(k)) + 2.0 + 2.0 * generator.standard_normal(n)
    logits[np.arange(n), labels] += raised.astype(np.float32)
    logits *= np.float32(1.7)
    return logits, labels.astype(np.int64)


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median after one call that warms up."""
    function()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def paired_seconds(
    function: Callable[[], object], reference: Callable[[], object], repeats: int
) -> tuple[float, float, float]:
    """Medians of both, called in turn, and of the ratio within a turn.

    A machine that others use changes from second to second; within a turn it is the same.
    """
    pairs = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        middle = time.perf_counter()
        reference()
        pairs.append((middle - start, time.perf_counter() - middle))
    pairs = pairs[1:]  # the first turn warms up
    return (
        statistics.median(ours for ours, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(ours / theirs for ours, theirs in pairs),
    )


def plain_softmax(logits: Logits) -> Logits:
    """The code that a user writes, in place on a copy."""
    work = logits.copy()
    work -= work.max(axis=1, keepdims=True)
    np.exp(work, out=work)
    work /= work.sum(axis=1, keepdims=True)
    return work


def import_seconds(statement: str, repeats: int = 15) -> tuple[float, float, float]:
    """`paired_seconds` of fresh interpreters that run the statement, and `import numpy`.

    They find compiled bytecode, as after an install.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(code: str) -> None:
            command = [sys.executable, "-c", code]
            subprocess.run(command, check=True, cwd=ROOT, env=environment)

        return paired_seconds(lambda: run(statement), lambda: run("import numpy"), repeats)


def published_seconds(logits: Logits, labels: Labels) -> tuple[float, int]:
    """Seconds of the published recipe by one torch thread or all, whichever is quicker.

    Returns
    -------
    (float, int)
        Of all steps, and how many were run: fewer for large sets, the rest is extrapolated.
    """
    import torch

    from benchmarks.calibration.smart_torch import EPOCHS, fit_network

    steps = EPOCHS if logits.size <= PUBLISHED_ELEMENTS else 10
    threads = torch.get_num_threads()
    taken = []
    for count in {1, threads}:
        torch.set_num_threads(count)
        start = time.perf_counter()
        fit_network(logits, labels, hidden=(16,), patience=None, epochs=steps)
        taken.append((time.perf_counter() - start) * EPOCHS / steps)
    torch.set_num_threads(threads)
    return min(taken), steps


def speed_report(*, small: bool = False) -> str:
    """The table; `small` divides the rows of the large cases by ten."""
    less = 10 if small else 1
    rows: list[list[str]] = []

    def fit_case(n: int, k: int, repeats: int) -> None:
        logits, labels = realistic(n, k)
        ours = median_seconds(lambda: FITTERS["smart"](logits, labels, None, seed=0), repeats)
        row = [f"fit `smart` {n} × {k}", f"{1000 * ours:.1f} ms"]
        if importlib.util.find_spec("torch"):
            seconds, steps = published_seconds(logits, labels)
            text = f"published recipe in torch, {seconds:.1f} s ({steps} steps run)"
            row += [text, f"1 : {seconds / ours:.0f}"]
        else:
            row += ["torch not installed", ""]
        rows.append(row)

    fit_case(5_000, 10, 9)
    fit_case(25_000 // less, 1_000, 3)

    logits, labels = realistic(10_000 // less, 1_000)
    calibrator = FITTERS["smart"](logits[:1_000], labels[:1_000], None, seed=0).calibrator
    ours, softmax, ratio = paired_seconds(
        lambda: calibrator.predict_proba(logits), lambda: plain_softmax(logits), 25
    )
    rows.append(
        [
            f"`predict_proba` {logits.shape[0]} × 1000",
            f"{1000 * ours:.1f} ms",
            f"plain in-place NumPy softmax, {1000 * softmax:.1f} ms",
            f"{ratio:.2f}",
        ]
    )

    logits, labels = realistic(50_000 // less, 1_000)
    probabilities = plain_softmax(logits)
    scoring = median_seconds(lambda: score(probabilities, labels), 3)
    rows.append([f"`score` (evaluate) {logits.shape[0]} × 1000", f"{scoring:.2f} s", "", ""])

    for statement in ("import trueprob", "from trueprob import score", "from trueprob import fit"):
        seconds, numpy_seconds, ratio = import_seconds(statement)
        rows.append(
            [
                f"`{statement}`, fresh interpreter",
                f"{1000 * seconds:.0f} ms",
                f"`import numpy`, {1000 * numpy_seconds:.0f} ms",
                f"{ratio:.2f}",
            ]
        )

    peak, size = peak_memory(25_000 // less, 1_000)
    rows.append(
        [
            f"peak memory of the fit {25_000 // less} × 1000, input included",
            f"{peak / 1e6:.0f} MB",
            f"input, {size / 1e6:.0f} MB",
            f"{peak / size:.2f}",
        ]
    )
    text = table(["what", "median", "compared with", "ratio"], rows)
    with threadpool_limits(1):
        return f"{text}\n\n{SMS_NOTE}\n\n{against_sms(small=small)}"


def against_sms(*, small: bool = False) -> str:
    """Processor seconds of our slow fits and of probmetrics' `sms` on the same rows, one thread.

    `sms` is fitted before and after each of ours; the ratio is to the mean of the two.
    """
    if importlib.util.find_spec("probmetrics") is None:
        return "probmetrics is not installed."
    sms = probmetrics_method("sms")
    less = 10 if small else 1
    rows = []
    for n, k in ((10_000 // less, 100), (5_000 // less, 1_000)):
        logits, labels = realistic(n, k)
        sms(logits[:500], labels[:500])  # compiles
        before = cpu_seconds(lambda: sms(logits, labels))  # noqa: B023 - called at once
        for name, fit, goal in SLOW_FITS:
            limit = goal.get(k)
            if limit is None:
                continue
            ours = cpu_seconds(lambda: fit(logits, labels))  # noqa: B023
            after = cpu_seconds(lambda: sms(logits, labels))  # noqa: B023
            ratio = 2.0 * ours / (before + after)
            cells = [f"{ours:.1f} s", f"{0.5 * (before + after):.1f} s", f"{ratio:.1f}"]
            judged = ["–", "–"] if small else [f"{limit:g}", "yes" if ratio <= limit else "**no**"]
            rows.append([f"{name}, {n} × {k}", *cells, *judged])
            before = after
    return table(["fit", "ours", "`sms`", "ratio", "goal", "met"], rows)


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


# A name, a fit, and by number of classes how many times as long as `sms` it may take.
SLOW_FITS: tuple[tuple[str, Callable[[Logits, Labels], object], dict[int, float]], ...] = (
    (
        "`auto`, free",
        lambda z, y: FITTERS["auto"](z, y, None, seed=0, allow_prediction_change=True),
        {100: 15.0, 1_000: 10.0},
    ),
    ("`smart-matrix`", lambda z, y: FITTERS["smart-matrix"](z, y, None, seed=0), {100: 10.0}),
    (
        "`smart-matrix`, its linear stage once",
        lambda z, y: fit_linear_stage(z, y, full=True),
        {100: 3.0},
    ),
)


def peak_memory(n: int, k: int) -> tuple[int, int]:
    """Peak bytes of a fit as tracemalloc sees NumPy's arrays, and bytes of its input.

    The input counts once. In a fresh process; the resident set of a child cannot be used, it
    starts at its parent's.
    """
    command = [sys.executable, "-c", PEAK, str(n), str(k)]
    answer = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    peak, size = answer.stdout.split()
    return int(peak), int(size)
