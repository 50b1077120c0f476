"""Prints the tables and writes them into docs/benchmarks.md.

python -m benchmarks.control [--small] [--only PART] [--no-write]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks.calibration.report import machine, write_section
from benchmarks.calibration.sets import ROOT
from benchmarks.control.admission import admission_report
from benchmarks.control.beside_fit import beside_fit_report
from benchmarks.control.labels import labels_report
from benchmarks.control.remembered import remembered_report
from benchmarks.control.scrape import scrape_report

DOCUMENT = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("numpy", "scipy", "sqlalchemy", "psycopg", "uvicorn", "uvloop", "httptools", "orjson")
PARTS: dict[str, Callable[..., str]] = {
    "labels": labels_report,
    "beside-fit": beside_fit_report,
    "admission": admission_report,
    "scrape": scrape_report,
    "remembered": remembered_report,
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--small", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts."""
    options = parse(arguments)
    for name in [options.only] if options.only else PARTS:
        start = time.perf_counter()
        text = PARTS[name](small=options.small)
        command = f"make bench-control BENCH='--only {name}{' --small' * options.small}'"
        took = f"{time.perf_counter() - start:.0f} s"
        text = f"`{command}`: {took} on {machine(PACKAGES)}\n\n{text}"
        print(f"\n## {name}\n\n{text}\n", flush=True)
        if not options.no_write:
            write_section(DOCUMENT, name, text, benchmark="control")
    return 0


if __name__ == "__main__":
    sys.exit(main())
