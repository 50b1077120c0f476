"""Who is ahead: mean ranks, distances, and significant wins and losses, as markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.report import nats, percent, table
from benchmarks.calibration.sizes.entrants import DEFAULT, FREE, NONE, OWN, PEERS
from benchmarks.calibration.sizes.pools import PARTS, Part
from benchmarks.calibration.sizes.replicates import (
    LARGER_IS_BETTER,
    N_PARTS,
    SCORES,
    worse_by,
)
from benchmarks.calibration.sizes.runs import SIZES, Cell

# Student's t with 19 degrees of freedom, one-sided 1 %.
SIGNIFICANT = 2.539
ROUNDING = 1e-6  # of any score; float32 probabilities that are meant to be equal differ by less
assert N_PARTS == 20
TITLES = {
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "adaptive_ece": "adaptive ECE",
    "smooth_ece": "smooth ECE",
    "classwise_ece": "class-wise ECE",
    "auroc": "AUROC",
}
BY_SIZE = ("nll", "ece")
OVER_SIZES = tuple(score for score in SCORES if score not in BY_SIZE)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Cells that are put into one table."""

    title: str
    cells: list[Cell]

    @property
    def names(self) -> list[str]:
        """Ours, then the peers, each in the order of their list."""
        order = [*(own.name for own in OWN), *PEERS]
        found = dict.fromkeys(name for cell in self.cells for name in entered(cell))
        return sorted(found, key=lambda name: order.index(name) if name in order else len(order))

    def at(self, size: int) -> list[Cell]:
        return [cell for cell in self.cells if cell.size == size]

    @property
    def sizes(self) -> list[int]:
        return [size for size in SIZES if self.at(size)]


def entered(cell: Cell) -> list[str]:
    return [*cell.found, *cell.failed]


def groups_of(cells: Sequence[Cell]) -> list[Group]:
    """Two classes, where more methods exist, and more; each part apart."""
    kinds: dict[str, Callable[[int], bool]] = {
        "two classes": lambda k: k == 2,
        "three and more classes": lambda k: k > 2,
    }
    groups = []
    for part in reversed(PARTS):
        for kind, holds in kinds.items():
            inside = [cell for cell in cells if cell.part == part and holds(cell.n_classes)]
            if inside:
                n_pools = len({cell.pool for cell in inside})
                title = f"{part.capitalize()}, {kind} ({n_pools} sets)"
                groups.append(Group(title, inside))
    return groups


def value(cell: Cell, name: str, score: str) -> float:
    """The score, larger is worse; NaN of a fit that failed."""
    if name not in cell.found:
        return float("nan")
    found = float(cell.found[name][0, SCORES.index(score)])
    return -found if score == LARGER_IS_BETTER else found


def ranks(cell: Cell, score: str, names: Sequence[str]) -> dict[str, float]:
    """1 for the best; ties share; a fit that failed is last. Empty where the score is undefined."""
    from scipy.stats import rankdata

    inside = [name for name in names if name in cell.found or name in cell.failed]
    values = np.array([value(cell, name, score) for name in inside])
    if np.isnan(values).all():
        return {}
    values[np.isnan(values)] = np.inf
    return dict(zip(inside, rankdata(values.round(9)), strict=True))


def mean_over_pools(values: Iterable[tuple[str, float]]) -> float:
    """Mean over draws within each pool, then over pools."""
    by_pool = defaultdict(list)
    for pool, one in values:
        if not np.isnan(one):
            by_pool[pool].append(one)
    return float(np.mean([np.mean(v) for v in by_pool.values()])) if by_pool else float("nan")


def mean_ranks(cells: Sequence[Cell], score: str, names: Sequence[str]) -> dict[str, float]:
    """Mean rank of each method that entered."""
    found = [(cell.pool, ranks(cell, score, names)) for cell in cells]
    return {
        name: mean_over_pools((pool, r[name]) for pool, r in found if name in r) for name in names
    }


# ----- Tables -----


def rank_table(group: Group) -> str:
    """Mean ranks in NLL and ECE by size, in the other scores over all sizes."""
    columns = {
        f"{TITLES[score]}, {size}": mean_ranks(group.at(size), score, group.names)
        for score in BY_SIZE
        for size in group.sizes
    }
    columns |= {TITLES[score]: mean_ranks(group.cells, score, group.names) for score in OVER_SIZES}
    return best_first(group.names, columns, "{:.1f}")


def distance_table(group: Group) -> str:
    """NLL above the best method of the draw, and ECE, in the mean."""
    columns: dict[str, dict[str, float]] = {}
    for size in group.sizes:
        cells = group.at(size)
        least = [np.nanmin([value(c, name, "nll") for name in c.found]) for c in cells]
        columns[f"NLL above the best, {size}"] = {
            name: mean_over_pools(
                (cell.pool, value(cell, name, "nll") - low)
                for cell, low in zip(cells, least, strict=True)
            )
            for name in group.names
        }
    first = best_first(group.names, columns, "{:.3f}")
    columns = {
        f"ECE %, {size}": {
            name: mean_over_pools(
                (cell.pool, 100.0 * value(cell, name, "ece")) for cell in group.at(size)
            )
            for name in group.names
        }
        for size in group.sizes
    }
    return f"{first}\n\n{best_first(group.names, columns, '{:.2f}')}"


def best_first(names: Sequence[str], columns: dict[str, dict[str, float]], form: str) -> str:
    """The smallest number of each column is bold; ours are in code."""
    rows = []
    for name in names:
        row = [label(name)]
        for by_name in columns.values():
            one = by_name.get(name, float("nan"))
            text = "–" if np.isnan(one) else form.format(one)
            low = min((v for v in by_name.values() if not np.isnan(v)), default=float("nan"))
            row.append(f"**{text}**" if text == form.format(low) else text)
        rows.append(row)
    return table(["method", *columns], rows)


def label(name: str) -> str:
    return name if name in PEERS else f"`{name}`"


def outcomes(cells: Sequence[Cell], ours: str, theirs: str) -> Array:
    """Per score: draws on which ours is significantly better, worse, and draws; shape (3, 7)."""
    counts = np.zeros((3, len(SCORES)))
    for cell in cells:
        if ours not in cell.found or theirs not in cell.found:
            continue
        difference, error = worse_by(cell.found[ours], cell.found[theirs])
        limit = np.maximum(SIGNIFICANT * error, ROUNDING)
        defined = ~np.isnan(difference)
        counts[0] += defined & (difference < -limit)
        counts[1] += defined & (difference > limit)
        counts[2] += defined
    return counts


def harm(cell: Cell, name: str) -> float:
    """NLL above no calibration, nats; NaN where either failed."""
    return value(cell, name, "nll") - value(cell, NONE, "nll")


def against_none_table(group: Group) -> str:
    """Draws won and lost against no calibration, and the largest loss."""
    rows = []
    for name in group.names:
        if name == NONE:
            continue
        row = [label(name), *shares(*outcomes(group.cells, name, NONE))]
        for size in group.sizes:
            losses = [harm(cell, name) for cell in group.at(size)]
            row.append("–" if np.isnan(losses).all() else f"{np.nanmax(losses):+.3f}")
        row.append(str(sum(name in cell.failed for cell in group.cells)))
        rows.append(row)
    header = [
        "method",
        *(f"{TITLES[score]}, better / worse %" for score in SCORES),
        *(f"worst draw of {size}, nats" for size in group.sizes),
        "failed",
    ]
    return table(header, rows)


def duel_table(group: Group, own: str) -> str:
    """Draws that one of ours wins and loses against each other method."""
    rows = []
    for name in group.names:
        if name == own:
            continue
        won, lost, n = outcomes(group.cells, own, name)
        rows.append([label(name), *shares(won, lost, n)])
    return table([f"`{own}` against", *(f"{TITLES[score]} %" for score in SCORES)], rows)


def shares(won: Array, lost: Array, n: Array) -> list[str]:
    """Percent of draws won / lost, per score."""
    return [
        f"{100 * better / some:.0f} / {100 * worse / some:.1f}" if some else "–"
        for better, worse, some in zip(won, lost, n, strict=True)
    ]


def pool_table(cells: Sequence[Cell], part: Part) -> str:
    """The sets: size, what no calibration reaches, and the default and `auto` at 300 rows."""
    rows = []
    for name in dict.fromkeys(cell.pool for cell in cells if cell.part == part):
        inside = [cell for cell in cells if cell.pool == name]
        size = max(cell.size for cell in inside if cell.size <= 300)
        at = [cell for cell in inside if cell.size == size]
        row = [name, str(inside[0].n_classes), str(size)]
        for score, show in (("nll", nats), ("ece", percent)):
            row += [
                show(float(np.nanmean([value(cell, method, score) for cell in at])))
                for method in (NONE, DEFAULT, FREE)
            ]
        rows.append(row)
    header = ["set", "classes", "rows"]
    header += [f"{s}: `{m}`" for s in ("NLL", "ECE %") for m in (NONE, DEFAULT, FREE)]
    return table(header, rows)
