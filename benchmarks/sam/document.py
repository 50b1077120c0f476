"""Writes docs/benchmarks-training.md: findings first, then the tables of every part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from benchmarks.sam.findings import findings, sensitivity
from benchmarks.sam.plan import Cell
from benchmarks.sam.tables import Results, by_row, claims, part_table

PREAMBLE = (
    "Written by `make bench-sam`, sentences and verdicts included. Digits: 424 noisy 8x8 digits, "
    "100 epochs of the demo's network. CIFAR-10: 2 000 of its images without augmentation, 25 "
    "epochs of ResNet-8, batches of 64: small enough for one core, and a regime in which SGD "
    "really becomes overconfident. What holds or fails here says nothing about WRN-28-10 on all "
    "of CIFAR-10."
)


def report(cells: list[Cell], results: Results, missing: Iterable[str]) -> str:
    """The text of all parts that have results."""
    parts = ["# Training benchmarks", "", PREAMBLE]
    absent = list(missing)
    if absent:
        parts += ["", f"Not measured, for this build has no such optimiser: {', '.join(absent)}."]
    left = Counter(cell.part for cell in cells if cell.key not in results)
    if left:
        named = ", ".join(f"{n} of {part}" for part, n in left.items())
        parts += ["", f"**{left.total()} of {len(cells)} runs are missing**: {named}."]
    found = findings(cells, results)
    if found:
        parts += ["", "## What held and what did not", "", found]
    for part in dict.fromkeys(cell.part for cell in cells):
        rows = by_row(cells, results, part)
        if not rows:
            continue
        parts += ["", f"## {part[0].upper()}{part[1:]}", "", part_table(rows)]
        if any("corrupted" in result for seeds in rows.values() for result in seeds.values()):
            heading = "Means over 13 corruptions at severities 1, 3 and 5:"
            parts += ["", heading, "", part_table(rows, scored="corrupted")]
        if part == "csam sensitivity":
            parts += ["", sensitivity(rows)]
        if part in ("digits", "cifar10"):
            parts += ["", "Every optimiser against SGD, and CSAM against SAM:", "", claims(rows)]
    return "\n".join(parts) + "\n"
