"""How often a candidate is admitted that is worse, as good or better by a known NLL."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.calibration.report import percent, table
from benchmarks.control.synthetic_truth import Condition
from benchmarks.serving.spread import judged
from trueprob.admission.decision import admit

SIZES: Final = (200, 1_000, 5_000)
STATED: Final = 0.10  # docs/http-api.md, Admission, of a candidate as good as the incumbent
CHUNK: Final = 20  # uploads of one job
PROCESSES: Final = 2
WORSE: Final = (
    Condition("worse by 0.02, too sure", "identity", 0.02, 0.0),
    Condition("worse by 0.02, not sure enough", "identity", -0.02, 0.0),
)
EQUAL: Final = (
    Condition("as good: too sure for not sure enough", "identity", 0.02, -0.02),
    Condition("as good: not sure enough for too sure", "identity", -0.02, 0.02),
    Condition("`smart` for the truth itself", "smart", 0.0, 0.0),
)
GAINS: Final = (0.005, 0.01, 0.02, 0.05, 0.1)
JUDGED_GAIN: Final = 0.02
METHOD: Final = "smart"  # the service's default


@dataclass(frozen=True)
class Counts:
    """Uploads per cell: of the verdict, of candidates as good, of the other power figures."""

    judged: int
    equal: int
    power: int


@dataclass(frozen=True)
class Share:
    """Number of uploads and of those admitted."""

    admitted: int
    uploads: int

    @property
    def value(self) -> float:
        return self.admitted / self.uploads

    @property
    def text(self) -> str:
        """In percent with its standard error."""
        error = np.sqrt(max(self.value * (1.0 - self.value), 1.0 / self.uploads) / self.uploads)
        return f"{percent(self.value, 1)} ± {percent(float(error), 1)}"


def admitted(condition: Condition, n: int, seeds: Sequence[int]) -> int:
    """Number of admitted uploads of n rows, by the code of the service."""
    count = 0
    for seed in seeds:
        incumbent, rows = condition.draw(n, seed)
        count += admit(incumbent, condition.method, rows, seed=seed).admitted
    return count


def shares(pool: ProcessPoolExecutor, condition: Condition, uploads: int) -> dict[int, Share]:
    """Admissions for each size."""
    starts = range(0, uploads, CHUNK)
    jobs = {
        n: [
            pool.submit(admitted, condition, n, range(start, min(start + CHUNK, uploads)))
            for start in starts
        ]
        for n in reversed(SIZES)
    }
    return {n: Share(sum(job.result() for job in jobs[n]), uploads) for n in SIZES}


def admission_report(*, small: bool = False) -> str:
    """The tables; `small` takes fewer uploads."""
    counts = Counts(60, 30, 20) if small else Counts(1_000, 400, 100)
    # Read by the children when they load NumPy: two processes on two cores need no more threads.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        worse = {c: shares(pool, c, counts.judged) for c in WORSE}
        equal = {
            c: shares(pool, c, counts.power if c.method == METHOD else counts.equal) for c in EQUAL
        }
        power = {
            gain: shares(
                pool,
                Condition(f"better by {gain:g}", METHOD, 0.0, gain),
                counts.judged if gain == JUDGED_GAIN else counts.power,
            )
            for gain in GAINS
        }
    return "\n".join(_lines(worse, equal, power, counts))


def _lines(
    worse: dict[Condition, dict[int, Share]],
    equal: dict[Condition, dict[int, Share]],
    power: dict[float, dict[int, Share]],
    counts: Counts,
) -> list[str]:
    header = ["admitted, % of uploads", *(f"{n} rows" for n in SIZES)]

    def row(name: str, of: dict[int, Share]) -> list[str]:
        return [name, *(of[n].text for n in SIZES)]

    limit = STATED + 2.0 * float(np.sqrt(STATED * (1.0 - STATED) / counts.equal))
    exact = {c: of for c, of in equal.items() if c.method != METHOD}
    wrong = (
        "Ten classes, labels drawn from softmax(z), calibrators wrong by a temperature that "
        "costs exactly the nats named. After ± one standard error."
    )
    exactly = (
        f"The candidate is exactly as good as said (method `identity`): {counts.judged} uploads "
        f"a cell of the worse, {counts.equal} of those as good. In the last row it is "
        f"`{METHOD}`, fitted, and its incumbent the truth, so that it can only be worse: "
        f"{counts.power} uploads. Fewer than 1 000 where nothing is judged by them, for the time "
        "that they take."
    )
    fitted = (
        f"The incumbent is too sure by that many nats; the candidate is `{METHOD}`, cross-fitted "
        f"on the upload, and what its fit costs comes off. {counts.power} uploads a cell, of "
        f"{JUDGED_GAIN:g} nats {counts.judged}."
    )
    return [
        wrong,
        "",
        "### Worse, and as good",
        exactly,
        "",
        table(
            header,
            [
                *(row(c.name, of) for c, of in worse.items()),
                *(row(c.name, of) for c, of in equal.items()),
            ],
        ),
        "",
        judged(
            f"a candidate worse by 0.02 nats is admitted in at most {percent(STATED, 0)} %, the "
            "share that is stated",
            STATED,
            {f"{c.name}, {n} rows": of[n].value for c, of in worse.items() for n in SIZES},
            at_most=True,
        ),
        judged(
            f"one as good is admitted in about {percent(STATED, 0)} % (at most "
            f"{percent(limit, 1)} %: two standard errors more)",
            limit,
            {f"{c.name}, {n} rows": of[n].value for c, of in exact.items() for n in SIZES},
            at_most=True,
        ),
        "",
        "### Power",
        fitted,
        "",
        table(header, [row(f"better by {gain:g} nats", of) for gain, of in power.items()]),
    ]
