"""Trains the missing cells, prints the tables and writes docs/benchmarks-training.md.

python -m benchmarks.sam [--smoke] [--part PART] [--budget-minutes 40] [--no-write | --partial]
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from benchmarks.calibration.report import machine
from benchmarks.calibration.sets import ROOT, default_folder
from benchmarks.sam.document import report
from benchmarks.sam.measure import run_missing
from benchmarks.sam.plan import MEMBERS, SEEDS, cells, known

DOCUMENT = ROOT / "docs" / "benchmarks-training.md"
PARTS = ("digits", "cifar10", "label noise", "csam sensitivity", "distillation")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sam", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one epoch, one seed, not written")
    parser.add_argument("--part", choices=PARTS, help="one part")
    parser.add_argument("--budget-minutes", type=float, default=40.0)
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--partial", action="store_true", help="write though runs are missing")
    parser.add_argument("--results", type=Path, default=ROOT / "var" / "bench-sam")
    parser.add_argument("--data", type=Path, default=default_folder(), help="default $BENCH_DATA")
    options = parser.parse_args(arguments)
    cifar = options.data / "images" / "cifar10_jpeg.npz"
    if not cifar.exists():
        print("CIFAR-10 is left out: BENCH_DATA has no images/cifar10_jpeg.npz", file=sys.stderr)
    folder = options.results / "smoke" if options.smoke else options.results
    planned = list(
        cells(
            cifar if cifar.exists() else None,
            folder,
            seeds=SEEDS[:1] if options.smoke else SEEDS,
            epochs=1 if options.smoke else 0,
        )
    )
    planned = [cell for cell in planned if options.part in (None, cell.part)]
    budget = 60 * options.budget_minutes
    say = functools.partial(print, flush=True)
    results = run_missing(planned, folder, budget_seconds=budget, say=say)
    text = report(planned, results, [m.name for m in MEMBERS if known(m.name) is None])
    text += f"\nOn {machine()}; mean ± standard error over seeds {', '.join(map(str, SEEDS))}.\n"
    print(text)
    if options.smoke or options.no_write or options.part is not None:
        return 0
    if cifar.exists() and (options.partial or len(results) == len(planned)):
        DOCUMENT.write_text(text, "utf-8")
    else:
        print("not written: runs are missing, --partial writes all the same", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
