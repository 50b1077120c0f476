"""Prints the tables and writes them into docs/benchmarks.md.

python -m benchmarks.serving [--small] [--only PART] [--no-write]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.calibration.report import machine, write_section
from benchmarks.calibration.sets import ROOT
from benchmarks.serving.beside import beside_report
from benchmarks.serving.competitors import SERVERS
from benchmarks.serving.environments import default_folder, environments
from benchmarks.serving.hostile import hostile_report
from benchmarks.serving.images import gpu_report, images_report
from benchmarks.serving.logits import logits_report
from benchmarks.serving.memory import memory_report
from benchmarks.serving.stage import Stage, make_stage

DOCUMENT = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("numpy", "scipy", "uvicorn", "uvloop", "httptools", "orjson", "fastapi", "onnxruntime")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--small", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument(
        "--environments",
        type=Path,
        default=default_folder(),
        help="where the other servers are installed, default $SERVING_ENVIRONMENTS",
    )
    return parser.parse_args(arguments)


def logits(stage: Stage, options: argparse.Namespace) -> str:
    return logits_report(stage, SERVERS, environments(options.environments), small=options.small)


def beside(stage: Stage, options: argparse.Namespace) -> str:
    return beside_report(stage, small=options.small)


def hostile(stage: Stage, options: argparse.Namespace) -> str:
    return hostile_report(stage, small=options.small)


def images(stage: Stage, options: argparse.Namespace) -> str:
    return images_report(stage, environments(options.environments), small=options.small)


def memory(stage: Stage, options: argparse.Namespace) -> str:
    return memory_report(stage, small=options.small)


def gpu(stage: Stage, options: argparse.Namespace) -> str:
    return gpu_report(stage, environments(options.environments), small=options.small)


PARTS: dict[str, Callable[[Stage, argparse.Namespace], str]] = {
    "logits": logits,
    "beside": beside,
    "hostile": hostile,
    "images": images,
    "memory": memory,
    "gpu": gpu,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts."""
    options = parse(arguments)
    for name in [options.only] if options.only else PARTS:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            text = PARTS[name](make_stage(Path(folder) / "stage"), options)
        command = f"make bench-serving BENCH='--only {name}{' --small' * options.small}'"
        took = f"{time.perf_counter() - start:.0f} s"
        text = f"`{command}`: {took} on {machine(PACKAGES)}\n\n{text}"
        print(f"\n## {name}\n\n{text}\n", flush=True)
        if not options.no_write:
            write_section(DOCUMENT, name, text, benchmark="serving")
    return 0


if __name__ == "__main__":
    sys.exit(main())
