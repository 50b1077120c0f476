"""Prints how often the check holds broken and honest sets.

python -m benchmarks.set_check [--small] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.calibration.report import machine, percent, table
from benchmarks.calibration.sets import ROOT, LogitSet, default_folder, logit_sets, of_arrays
from benchmarks.set_check.kinds import BROKEN, HONEST, Drawn
from trueprob import CalibrationSet, Finding, InvalidInput, Severity, check_set

SIZES = (50, 200, 1_000)
DRAWS, DRAWS_WHEN_SMALL = 100, 4  # of each set and size
PACKAGES = ("numpy", "scipy")


def shipped_sets() -> list[LogitSet]:
    """The shipped digits: easy, and under harder conditions."""
    sets = []
    for name in ("digits_test", "digits_drifted"):
        with np.load(ROOT / "examples" / f"{name}.npz", allow_pickle=False) as arrays:
            logits, labels = arrays["logits"], arrays["labels"]
        sets.append(of_arrays(f"digits_{name}", logits, labels, logits, labels))
    return sets


def held(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.HOLD]


def named(drawn: Drawn, findings: Sequence[Finding]) -> bool:
    """Whether a finding has the right repair."""
    given = drawn.arrays["labels"]
    for repair in (f.repair for f in held(findings) if f.repair is not None):
        if drawn.field is not None and repair.field == drawn.field:
            return True
        repaired = None
        if repair.labels is not None:
            repaired = np.array(repair.labels)[given]
        elif repair.rows is not None:
            repaired = np.roll(given, repair.rows)
        if repaired is not None and np.array_equal(repaired, drawn.true_labels):
            return True
    return False


def broken_row(kind: str, sets: Sequence[LogitSet], draws: int) -> list[str]:
    cells = []
    for n in SIZES:
        count = holds = repairable = right = 0
        for index, data in enumerate(sets):
            for draw in range(draws):
                generator = np.random.default_rng([n, index, draw])
                drawn = BROKEN[kind](data, n, generator, sets)
                if drawn is None:
                    continue
                count += 1
                try:
                    findings = check_set(CalibrationSet.from_arrays(drawn.arrays))
                except InvalidInput:  # refused before any check
                    holds += 1
                    continue
                holds += bool(held(findings))
                repairable += drawn.has_repair
                right += drawn.has_repair and named(drawn, findings)
        share = percent(holds / count, 1) if count else "–"
        cells += [share, percent(right / repairable, 1) if repairable else "–"]
    return [kind, *cells]


def honest_row(kind: str, sets: Sequence[LogitSet], draws: int, classes: range) -> list[str]:
    cells = []
    for n in SIZES:
        count = holds = 0
        for index, data in enumerate(sets):
            # An event against all other classes is a set of two.
            if (2 if "event" in kind else data.n_classes) not in classes:
                continue
            for draw in range(draws):
                rows = HONEST[kind](data, n, np.random.default_rng([n, index, draw]))
                if rows is not None:
                    count += 1
                    holds += bool(held(check_set(rows)))
        cells.append(f"{percent(holds / count, 2)} ({count})" if count else "–")
    return [kind + (", k = 2" if classes == range(2, 3) else ", k ≥ 3"), *cells]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.set_check", description=__doc__)
    parser.add_argument("--small", action="store_true", help="small sets, fewer draws")
    parser.add_argument("--data", type=Path, default=default_folder(), help="default $BENCH_DATA")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    sets = [*shipped_sets(), *logit_sets(options.data, small=options.small)]
    if len(sets) == 2:
        print(f"{options.data / 'logits'} has no sets: set BENCH_DATA", file=sys.stderr)
    draws = DRAWS_WHEN_SMALL if options.small else DRAWS
    broken_header = ["broken, %"]
    for n in SIZES:
        broken_header += [f"{n} rows: held", "repair named"]
    broken = table(broken_header, [broken_row(kind, sets, draws) for kind in BROKEN])
    honest = table(
        ["honest: held wrongly, % (sets)", *(f"{n} rows" for n in SIZES)],
        [
            honest_row(kind, sets, draws, classes)
            for kind in HONEST
            for classes in (range(2, 3), range(3, 10_000))
            if not ("event" in kind and classes.start == 3)
            and not ("k ≥ 3" in kind and classes.start == 2)
        ],
    )
    took = f"{time.perf_counter() - start:.0f} s on {machine(PACKAGES)}"
    print(f"{len(sets)} sets, {draws} draws of each and size; {took}\n\n{broken}\n\n{honest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
