"""Prints the tables and writes them into docs/benchmarks.md.

python -m benchmarks.drift [--small] [--only PART] [--no-write]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.calibration.report import machine, write_section
from benchmarks.calibration.sets import ROOT, default_folder, logit_sets
from benchmarks.drift.classes import classes_report
from benchmarks.drift.cost import cost_report
from benchmarks.drift.delay import delay_report
from benchmarks.drift.interval import interval_report
from benchmarks.drift.label_shift import label_shift_report
from benchmarks.drift.promise import promise_report
from benchmarks.drift.quiet import quiet_report
from benchmarks.drift.real_classes import real_classes_report
from benchmarks.drift.real_shifts import real_shifts_report

DOCUMENT = ROOT / "docs" / "benchmarks.md"
PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "promise": lambda o: promise_report(logit_sets(o.data, small=o.small), small=o.small),
    "quiet": lambda o: quiet_report(small=o.small),
    "delay": lambda o: delay_report(small=o.small),
    "classes": lambda o: classes_report(small=o.small),
    "interval": lambda o: interval_report(small=o.small),
    "real-shifts": lambda o: real_shifts_report(
        logit_sets(o.data, small=o.small), o.data, small=o.small
    ),
    "real-classes": lambda o: real_classes_report(
        logit_sets(o.data, small=o.small), o.data, small=o.small
    ),
    "label-shift": lambda o: label_shift_report(
        logit_sets(o.data, small=o.small), o.data, small=o.small
    ),
    "cost": lambda o: cost_report(small=o.small),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--small", action="store_true", help="smaller sets, fewer and shorter runs")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--data", type=Path, default=default_folder(), help="default $BENCH_DATA")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 2 when there is no data."""
    options = parse(arguments)
    if not (options.data / "logits").is_dir():
        print(f"{options.data / 'logits'} is not there: set BENCH_DATA", file=sys.stderr)
        return 2
    for name in [options.only] if options.only else PARTS:
        start = time.perf_counter()
        text = PARTS[name](options)
        command = f"make bench-drift BENCH='--only {name}{' --small' * options.small}'"
        took = f"{time.perf_counter() - start:.0f} s"
        text = f"`{command}`: {took} on {machine()}\n\n{text}"
        print(f"\n## {name}\n\n{text}\n", flush=True)
        if not options.no_write:
            write_section(DOCUMENT, name, text, benchmark="drift")
    return 0


if __name__ == "__main__":
    sys.exit(main())
