"""The text of the part `sizes`: what is in brief, and every table."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.calibration.sets import ROOT, SMALL_ELEMENTS
from benchmarks.calibration.sizes.entrants import DEFAULT, FREE, missing_peers
from benchmarks.calibration.sizes.goals import goals_table
from benchmarks.calibration.sizes.pools import PARTS
from benchmarks.calibration.sizes.runs import Cell, all_pools, run
from benchmarks.calibration.sizes.tables import (
    against_none_table,
    distance_table,
    duel_table,
    groups_of,
    pool_table,
    rank_table,
)

FEWER = 4  # of the draws, with `--small`
RANKS_NOTE = (
    "Mean ranks, 1 is best: ranks of each draw, averaged over draws, then over sets. A fit that "
    "failed is last. Columns without a size are over all sizes. AUROC: of P(class 1) for two "
    "classes, else of the confidence for being right. For two classes the class-wise ECE is that "
    "of P(class 1)."
)
DISTANCES_NOTE = "Means over draws, then over sets; the best method is chosen for each draw."
AGAINST_NOTE = (
    "Shares of draws on which the method is significantly better / worse than no calibration "
    "(paired on the test rows by a jackknife of 20 parts, one-sided 1 %), the draw with the "
    "largest loss in NLL, and the number of fits that failed."
)
DUELS_NOTE = "Shares of draws that ours wins / loses significantly against each method, as above."


def cache_folder() -> Path:
    """$BENCH_CACHE, a relative one taken from the repository's root."""
    return ROOT / os.environ.get("BENCH_CACHE", "var/bench-calibration")


def measured(data: Path, *, small: bool) -> list[Cell]:
    pools = all_pools(data, cache_folder())
    if small:
        pools = (pool for pool in pools if pool.values.size <= SMALL_ELEMENTS)
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    processes = int(os.environ.get("BENCH_PROCESSES", processes))
    return run(pools, cache_folder(), processes=processes, fewer=FEWER if small else 1)


def brief_report(cells: Sequence[Cell]) -> str:
    """The goals, and mean ranks on the confirmation sets."""
    parts = [amount(cells), goals_table(cells)]
    for group in groups_of(cells):
        if group.title.startswith("Confirmation"):
            parts += [f"{group.title}, mean ranks:", rank_table(group)]
    return "\n\n".join([*parts, RANKS_NOTE, *left_out(cells)])


def amount(cells: Sequence[Cell]) -> str:
    """How much was fitted, those included whose results were kept from an earlier run."""
    n = sum(len(cell.found) + len(cell.failed) for cell in cells)
    seconds = sum(sum(cell.seconds.values()) for cell in cells)
    n_pools = len({cell.pool for cell in cells})
    return (
        f"{n_pools} sets, {len(cells)} draws, {n} fits that take {seconds / 60:.0f} minutes of "
        "processor time when none is kept from an earlier run."
    )


def full_report(cells: Sequence[Cell]) -> str:
    """Every table."""
    groups = groups_of(cells)
    parts = []
    for title, make, note in (
        ("Mean ranks", rank_table, RANKS_NOTE),
        ("Distances", distance_table, DISTANCES_NOTE),
        ("Against no calibration", against_none_table, AGAINST_NOTE),
        (f"`{DEFAULT}` against each", partial(duel_table, own=DEFAULT), DUELS_NOTE),
        (f"`{FREE}` against each", partial(duel_table, own=FREE), DUELS_NOTE),
    ):
        parts += [f"### {title}", note]
        for group in groups:
            parts += [f"{group.title}:", make(group)]
    parts.append("### The sets")
    for part in reversed(PARTS):
        parts += [f"{part.capitalize()}:", pool_table(cells, part)]
    return "\n\n".join(parts)


def left_out(cells: Sequence[Cell]) -> list[str]:
    """Peers that are not installed, and why fits failed, the commonest reasons."""
    # Numbers in a message differ from draw to draw.
    reasons = Counter(
        f"{name}: {re.sub(r'[0-9]+', 'N', why)[:100]}"
        for cell in cells
        for name, why in cell.failed.items()
    )
    lines = [f"- {name}: not installed." for name in missing_peers()]
    lines += [f"- {reason} ({n} draws)" for reason, n in reasons.most_common(8)]
    return ["Not compared:", "\n".join(lines)] if lines else []
