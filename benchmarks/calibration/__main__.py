"""Prints the tables and writes them into docs/benchmarks.md and docs/benchmarks-calibration.md.

python -m benchmarks.calibration [--small] [--only PART] [--no-write]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmarks.calibration.ablations import ablations_report
from benchmarks.calibration.peers import all_methods, authors_smart
from benchmarks.calibration.probability_intervals import intervals_report
from benchmarks.calibration.quality import measure
from benchmarks.calibration.quality_tables import quality_report
from benchmarks.calibration.report import PACKAGES, machine, write_section
from benchmarks.calibration.sets import ROOT, default_folder, logit_sets
from benchmarks.calibration.shifts import shifts_report
from benchmarks.calibration.sizes.report import brief_report, full_report, measured
from benchmarks.calibration.speed import speed_report

DOCUMENT = ROOT / "docs" / "benchmarks.md"
SIZES_PACKAGES = ("venn-abers", "betacal", "splinecalib")
EVERY_TABLE = ROOT / "docs" / "benchmarks-calibration.md"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smaller sets, fewer draws")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--data", type=Path, default=default_folder(), help="default $BENCH_DATA")
    return parser.parse_args(arguments)


def quality(options: argparse.Namespace) -> str:
    methods = all_methods()
    if options.small:  # of the two forms of one recipe, the one in NumPy
        methods = [method for method in methods if method.fit is not authors_smart]
    return quality_report(measure(logit_sets(options.data, small=options.small), methods), methods)


def sizes(options: argparse.Namespace) -> str:
    cells = measured(options.data, small=options.small)
    every = full_report(cells)
    if options.no_write:
        print(every)
    else:
        write_section(EVERY_TABLE, "sizes", every)
    return brief_report(cells)


def ablations(options: argparse.Namespace) -> str:
    return ablations_report(logit_sets(options.data, small=options.small))


def shifts(options: argparse.Namespace) -> str:
    return shifts_report(logit_sets(options.data, small=options.small), all_methods())


def intervals(options: argparse.Namespace) -> str:
    sets = logit_sets(options.data, small=options.small)
    return intervals_report(sets, n_draws=40 if options.small else 200)


def speed(options: argparse.Namespace) -> str:
    return speed_report(small=options.small)


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "quality": quality,
    "sizes": sizes,
    "ablations": ablations,
    "shifts": shifts,
    "intervals": intervals,
    "speed": speed,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 2 when there is no data."""
    options = parse(arguments)
    if not (options.data / "logits").is_dir():
        print(f"{options.data / 'logits'} is not there: set BENCH_DATA", file=sys.stderr)
        return 2
    if importlib.util.find_spec("torch"):
        import torch

        # Tensors of a few thousand rows: two threads of a busy machine are slower than one.
        torch.set_num_threads(1)
    importlib.import_module("scipy.optimize")  # limits hold for what is loaded
    for name in [options.only] if options.only else PARTS:
        start = time.perf_counter()
        # Threads of linear algebra spin while they wait: on a busy machine fits take many times
        # as long. `speed` is measured as users have it.
        with threadpool_limits(None if name == "speed" else 1):
            text = PARTS[name](options)
        command = f"make bench-calibration BENCH='--only {name}{' --small' * options.small}'"
        took = f"{time.perf_counter() - start:.0f} s"
        names = (*PACKAGES, *SIZES_PACKAGES) if name == "sizes" else PACKAGES
        text = f"`{command}`: {took} on {machine(names)}\n\n{text}"
        print(f"\n## {name}\n\n{text}\n", flush=True)
        if not options.no_write:
            write_section(DOCUMENT, name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
