"""What was promised, and whether it holds, with the number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.calibration.sizes.entrants import AUTO, CANDIDATES, DEFAULT, FREE, NONE, PEERS
from benchmarks.calibration.sizes.pools import PARTS
from benchmarks.calibration.sizes.replicates import SCORES
from benchmarks.calibration.sizes.runs import SIZES, Cell
from benchmarks.calibration.sizes.tables import (
    TITLES,
    entered,
    harm,
    label,
    mean_ranks,
    outcomes,
    value,
)

FEW, HARM = 20, 0.01  # rows, nats
WORSE = 0.02  # share of draws
ENOUGH, REGRET = 100, 0.005  # rows, nats

Row = tuple[str, str, bool]


def goals_table(cells: Sequence[Cell]) -> str:
    """One row per goal and part."""
    rows = []
    for part in reversed(PARTS):
        inside = [cell for cell in cells if cell.part == part]
        if inside:
            rows += [
                [goal, part, found, "yes" if met else "**no**"]
                for goal, found, met in goals(inside)
            ]
    return table(["goal", "sets", "found", "met"], rows)


def goals(cells: Sequence[Cell]) -> list[Row]:
    """All goals on the cells of one part."""
    two = [cell for cell in cells if cell.n_classes == 2]
    found = [few_rows(cells), seldom_worse(cells)]
    found.append(first(cells, FREE, "nll", SIZES))
    found.append(first(cells, FREE, "ece", [size for size in SIZES if size >= ENOUGH]))
    if two:
        found.append(first(two, DEFAULT, "nll", SIZES, place=2))
        found.append(first(two, DEFAULT, "classwise_ece", SIZES, place=2))
    return [*found, regret(cells, FREE), regret(cells, AUTO)]


def few_rows(cells: Sequence[Cell]) -> Row:
    """The default against no calibration at 20 rows, set by set."""
    by_pool = defaultdict(list)
    for cell in cells:
        if cell.size == FEW:
            by_pool[cell.pool].append(harm(cell, DEFAULT))
    means = {pool: float(np.mean(losses)) for pool, losses in by_pool.items()}
    worst = max(means, key=lambda pool: means[pool])
    above = sum(mean > HARM for mean in means.values())
    text = (
        f"{np.mean(list(means.values())):+.4f} nats in the mean, {means[worst]:+.4f} on {worst}; "
        f"above {HARM} on {above} of {len(means)} sets"
    )
    goal = f"`{DEFAULT}` on {FEW} rows: on no set worse than `{NONE}` by more than {HARM} nats"
    return goal, text, above == 0


def seldom_worse(cells: Sequence[Cell]) -> Row:
    """Draws of each size on which the default is significantly worse than no calibration."""
    shares, texts = [], []
    for size in SIZES:
        at = [cell for cell in cells if cell.size == size]
        if at:
            _, lost, n = outcomes(at, DEFAULT, NONE)[:, SCORES.index("nll")]
            shares.append(float(lost / n))
            texts.append(f"{size}: {lost:.0f} of {n:.0f}")
    goal = f"`{DEFAULT}` significantly worse than `{NONE}` in NLL on at most {WORSE:.0%} of draws"
    return goal, "; ".join(texts), max(shares) <= WORSE


def first(
    cells: Sequence[Cell], name: str, score: str, sizes: Sequence[int], *, place: int = 1
) -> Row:
    """The place by mean rank, among the methods that take every set, and among other packages'."""
    common = [n for n in entered(cells[0]) if all(n in entered(cell) for cell in cells)]
    peers = [n for n in common if n in PEERS]
    texts, places, others = [], [], []
    for size in sizes:
        at = [cell for cell in cells if cell.size == size]
        if not at:
            continue
        mean = mean_ranks(at, score, common)
        mine = sum(other < mean[name] for other in mean.values()) + 1
        places.append(mine)
        text = f"{size}: {mine}. ({mean[name]:.1f})"
        if mine > 1:
            leader = min(mean, key=lambda n: mean[n])
            text += f" after {label(leader)} ({mean[leader]:.1f})"
        texts.append(text)
        beside = mean_ranks(at, score, [name, *peers])
        ahead = sorted(
            (peer for peer in peers if beside[peer] < beside[name]), key=lambda n: beside[n]
        )
        others.append(f"{size}: {len(ahead) + 1}." + "".join(f" after {p}" for p in ahead[:1]))
    kind = " of two classes" if all(cell.n_classes == 2 for cell in cells) else ""
    title = TITLES[score] if score != "classwise_ece" or not kind else "ECE of P(class 1)"
    goal = (
        f"`{name}`{kind} {'first' if place == 1 else 'first or second'} of {len(common)} in {title}"
    )
    found = "; ".join(texts)
    if peers:
        found += f". Beside the {len(peers)} of other packages alone: {'; '.join(others)}"
    return goal, found, max(places) <= place


def regret(cells: Sequence[Cell], name: str) -> Row:
    """NLL above the candidate that is best on the set and size in hindsight."""
    texts, means = [], []
    for size in (size for size in SIZES if size >= ENOUGH):
        by_pool = defaultdict(list)
        for cell in cells:
            if cell.size == size:
                by_pool[cell.pool].append(cell)
        regrets = []
        for draws in by_pool.values():
            candidates = [c for c in CANDIDATES[name] if c in draws[0].found]
            mean = {
                c: np.mean([value(cell, c, "nll") for cell in draws]) for c in [*candidates, name]
            }
            regrets.append(mean[name] - min(mean[c] for c in candidates))
        if regrets:
            means.append(float(np.mean(regrets)))
            texts.append(f"{size}: {means[-1]:+.4f}")
    goal = f"`{name}` at most {REGRET} nats above the best of its candidates, from {ENOUGH} rows"
    return goal, "; ".join(texts), max(means, default=0.0) <= REGRET
