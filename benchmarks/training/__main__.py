"""Prints the tables and writes them into docs/benchmarks.md.

python -m benchmarks.training [--small] [--only PART] [--no-write]
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from benchmarks.calibration.report import machine, write_section
from benchmarks.calibration.sets import ROOT
from benchmarks.training.cost import cost_report
from benchmarks.training.memory import memory_report
from benchmarks.training.own import own_report
from benchmarks.training.peers import peers_report

DOCUMENT = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("torch", "pytorch-optimizer")
PARTS = {
    "cost": cost_report,
    "memory": memory_report,
    "peers": peers_report,
    "own": own_report,
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--small", action="store_true", help="small batches, fewer rounds")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts."""
    options = parse(arguments)
    torch.set_num_threads(1)  # so that the processor time of the process is the time of a step
    for name in [options.only] if options.only else PARTS:
        start = time.perf_counter()
        text = PARTS[name](small=options.small)
        command = f"make bench-training BENCH='--only {name}{' --small' * options.small}'"
        took = f"{time.perf_counter() - start:.0f} s"
        text = f"`{command}`: {took} on {machine(PACKAGES)}\n\n{text}"
        print(f"\n## {name}\n\n{text}\n", flush=True)
        if not options.no_write:
            write_section(DOCUMENT, name, text, benchmark="training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
