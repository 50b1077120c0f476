"""Prints how often the check holds broken and honest sets, and writes it to docs/benchmarks.md.

python -m benchmarks.set_check [--small] [--only PART] [--no-write]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.calibration.report import machine, percent, table, write_section
from benchmarks.calibration.sets import ROOT, LogitSet, default_folder, logit_sets, of_arrays
from benchmarks.set_check.broken import BROKEN, OTHER_INPUTS, Breaker, Drawn
from benchmarks.set_check.honest import HONEST, Maker, corrupted_pictures, plain
from trueprob import CalibrationSet, Finding, InvalidInput, Severity, check_set
from trueprob.fitting.fit import fit_calibration_set

DOCUMENT = ROOT / "docs" / "benchmarks.md"
SIZES = (50, 200, 1_000)
DRAWS, DRAWS_WHEN_SMALL = 40, 4  # of each set and size
LEAST_COUNT, LEAST_COUNT_WHEN_SMALL = 1_000, 20  # sets in a cell of the table of honest sets
COST = ((1_000, 10), (5_000, 10), (5_000, 100))
PACKAGES = ("numpy", "scipy")
ROUNDS = 5


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


def outcome(drawn: Drawn) -> tuple[bool, bool]:
    """Whether a broken set is held or refused, and whether the repair is named."""
    try:
        findings = check_set(CalibrationSet.from_arrays(drawn.arrays))
    except InvalidInput as error:  # refused before any check
        return True, f"are these {drawn.field}?" in error.message
    return bool(held(findings)), named(drawn, findings)


def broken_row(kind: str, breaker: Breaker, sets: Sequence[LogitSet], draws: int) -> list[str]:
    cells = []
    for n in SIZES:
        outcomes = []
        repairable = False
        for index, data in enumerate(sets):
            for draw in range(draws):
                drawn = breaker(data, n, np.random.default_rng([n, index, draw]), sets)
                if drawn is not None:
                    outcomes.append(outcome(drawn))
                    repairable = drawn.has_repair
        holds, right = np.mean(outcomes, axis=0) if outcomes else (float("nan"), float("nan"))
        cells += [percent(holds, 1), percent(right, 1) if repairable else "–"]
    return [kind, *cells]


def broken_report(kinds: Mapping[str, Breaker], sets: Sequence[LogitSet], draws: int) -> str:
    header = ["broken, %"]
    for n in SIZES:
        header += [f"{n} rows: held", "repair named"]
    return table(header, (broken_row(*kind, sets, draws) for kind in kinds.items()))


def honest_row(kind: str, maker: Maker, sets: Sequence[LogitSet], least: int) -> list[str] | None:
    """Share held wrongly; None where no set can be made."""
    cells = []
    for n in SIZES:
        able = [i for i, d in enumerate(sets) if maker(d, n, np.random.default_rng(0)) is not None]
        made = (
            maker(sets[i], n, np.random.default_rng([n, i, draw]))
            for draw in range(-(-least // max(len(able), 1)))
            for i in able
        )
        holds = [bool(held(check_set(rows))) for rows in made if rows is not None]
        cells.append(f"{percent(float(np.mean(holds)))} ({len(holds)})" if holds else "–")
    return [kind, *cells] if set(cells) != {"–"} else None


def honest_rows(sets: Sequence[LogitSet], data: Path, *, small: bool) -> Iterator[list[str] | None]:
    least = LEAST_COUNT_WHEN_SMALL if small else LEAST_COUNT
    two = [d for d in sets if d.n_classes == 2]
    more = [d for d in sets if d.n_classes > 2]
    for kind, maker in HONEST.items():
        if "event" in kind:  # against all other classes: two
            yield honest_row(f"{kind}, k = 2", maker, sets, least)
            continue
        yield honest_row(f"{kind}, k = 2", maker, two, least)
        yield honest_row(f"{kind}, k ≥ 3", maker, more, least)
    for severity, pictures in corrupted_pictures(data, small=small):
        yield honest_row(f"corrupted pictures, severity {severity}", plain, pictures, least)


def honest_report(rows: Iterable[list[str] | None]) -> str:
    header = ["honest: held wrongly, % (sets)", *(f"{n} rows" for n in SIZES)]
    return table(header, (row for row in rows if row is not None))


def cpu_seconds(action: Callable[[CalibrationSet], object], data: CalibrationSet) -> float:
    """Median of some rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        action(data)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def cost_report() -> str:
    """CPU time of the check beside that of `trueprob.fit`, medians of some rounds."""
    rows = []
    for n, k in COST:
        generator = np.random.default_rng(0)
        z = 2.0 * generator.normal(size=(n, k))
        labels = (z + generator.gumbel(size=(n, k))).argmax(axis=1)
        data = CalibrationSet((2.5 * z).astype(np.float32), labels)
        fit_calibration_set(data)
        check = cpu_seconds(check_set, data)
        whole = cpu_seconds(fit_calibration_set, data)
        share = check / (whole - check)
        rows.append([f"{n} × {k}", f"{1e3 * check:.1f}", f"{1e3 * whole:.0f}", percent(share, 1)])
    return table(["rows × classes", "check, ms", "`trueprob.fit`, ms", "check / rest, %"], rows)


PARTS = ("broken", "other-inputs", "honest", "cost")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.set_check", description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smaller sets, fewer draws")
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
    sets = [*shipped_sets(), *logit_sets(options.data, small=options.small)]
    draws = DRAWS_WHEN_SMALL if options.small else DRAWS
    parts: dict[str, Callable[[], str]] = {
        "broken": lambda: broken_report(BROKEN, sets, draws),
        "other-inputs": lambda: broken_report(OTHER_INPUTS, sets, draws),
        "honest": lambda: honest_report(honest_rows(sets, options.data, small=options.small)),
        "cost": cost_report,
    }
    for name in [options.only] if options.only else PARTS:
        start = time.perf_counter()
        with threadpool_limits(1):
            text = parts[name]()
        command = f"make bench-set-check BENCH='--only {name}{' --small' * options.small}'"
        took = f"{time.perf_counter() - start:.0f} s"
        text = f"`{command}`: {len(sets)} sets, {took} on {machine(PACKAGES)}\n\n{text}"
        print(f"\n## {name}\n\n{text}\n", flush=True)
        if not options.no_write:
            write_section(DOCUMENT, name, text, benchmark="set-check")
    return 0


if __name__ == "__main__":
    sys.exit(main())
