"""Steady mixed traffic on a service of its own; exit code 1 when something grows, fails or is lost.

Two replicas on SQLite. The traffic: predictions as JSON and binary, pictures, labels by receipt and
with rows, uploads with fits, promotions, rollbacks, scrapes, the page, readiness, bad requests.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from benchmarks.soak.run import Soak, SoakOutcome
from benchmarks.torture.own_service import OwnService
from benchmarks.torture.report import outcomes

MODELS = Path(__file__).parents[2] / "models"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when nothing grew, failed or was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=40.0, help="works a second (default 40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the result as a document")
    options = parser.parse_args(arguments)
    for name in ("minutes", "rate"):
        if not 0 < getattr(options, name) < float("inf"):
            parser.error(f"--{name} must be above 0, got {getattr(options, name)}")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {options.json} cannot be written: there is no such folder")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="trueprob-soak-") as folder,
            closing(OwnService(Path(folder), on_small_disk=False, models=MODELS)) as service,
        ):
            outcome = Soak(service, rate=options.rate, seed=options.seed).run(60 * options.minutes)
    except KeyboardInterrupt:
        return 130
    if options.json:
        options.json.write_text(json.dumps(asdict(outcome), indent=1) + "\n", "utf-8")
    print(text_of(outcome))
    return int(bool(outcome.findings))


def text_of(outcome: SoakOutcome) -> str:
    """Tables in Markdown, and the verdict."""
    lines = ["| requests | answers |", "|---|---|"]
    lines += [f"| {kind} | {outcomes(counted)} |" for kind, counted in outcome.requests.items()]
    lines += ["", "| after the warm-up | first | last | growth | 95 % interval | bound |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {each.process}: {each.quantity} | {each.blocks[0]:.1f} | {each.blocks[-1]:.1f} | "
        f"{each.growth:+.1f} | {each.low:+.1f} to {each.high:+.1f} | {each.bound:g} |"
        for each in outcome.growths
    ]
    lines += ["", "| predictions, ms | p50 | p99 |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {each['p50']:g} | {each['p99']:g} |"
        for name, each in outcome.latencies.items()
    ]
    size = "–" if outcome.bytes_per_label is None else f"{outcome.bytes_per_label:.0f}"
    lines += [
        "",
        f"{outcome.seconds:g} s, {outcome.labels} labels, {outcome.rows} labelled rows, "
        f"{outcome.uploads} uploads, {outcome.promotions} promotions, {outcome.answers} answers "
        f"computed again, {size} bytes of database a label or row: "
        + (f"{len(outcome.findings)} things are wrong" if outcome.findings else "nothing is wrong"),
    ]
    lines += [f"- {each.kind}: {each.sentence}" for each in outcome.findings]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
