"""Every entrant on every draw: a cell is a pool, a number of rows and a draw.

Results are kept in a database in the cache, by the content of the pool, the rows drawn, and the
entrant's version: a second run computes what has changed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.sizes import replicates as scoring
from benchmarks.calibration.sizes.entrants import Entrant, own_entrants, peer_entrants
from benchmarks.calibration.sizes.fresh import confirmation_pools
from benchmarks.calibration.sizes.pools import Part, Pool, development_pools
from benchmarks.calibration.sizes.replicates import N_PARTS, SCORES, replicates

SIZES = (20, 50, 100, 300, 1_000, 5_000)
DRAWS = {20: 10, 50: 8, 100: 6, 300: 4, 1_000: 3, 5_000: 1}
MANY_CLASSES, SLOWER = 50, 2  # from so many classes on, a half of the draws

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """Scores of all entrants on one draw.

    Attributes
    ----------
    found : dict of str to ndarray of shape (21, 7)
        By entrant, see `replicates`.
    failed : dict of str to str
        Entrant → why it has no finite probabilities of the right shape.
    seconds : dict of str to float
        Processor time of fit and answer.
    """

    pool: str
    family: str
    part: Part
    n_classes: int
    size: int
    draw: int
    found: dict[str, Array]
    failed: dict[str, str]
    seconds: dict[str, float]


def draws_of(pool: Pool, size: int, *, fewer: int = 1) -> int:
    """How many; one where all rows are drawn, none above the pool's rows."""
    n = pool.labels.shape[0]
    if size >= n:
        return int(size == n)
    return max(1, DRAWS[size] // (SLOWER if pool.n_classes >= MANY_CLASSES else 1) // fewer)


def rows_of_draw(pool: Pool, size: int, draw: int) -> NDArray[np.int64]:
    """Rows without replacement, by a seed of the size and the draw."""
    generator = np.random.default_rng([size, draw, 18])
    return generator.permutation(pool.labels.shape[0])[:size]


def cells_of(
    pool: Pool, entrants: Iterable[Entrant], results: Results, *, fewer: int = 1
) -> Iterator[Cell]:
    """All cells of one pool."""
    taking = [entrant for entrant in entrants if entrant.takes(pool)]
    for size in SIZES:
        for draw in range(draws_of(pool, size, fewer=fewer)):
            rows = rows_of_draw(pool, size, draw)
            cell = Cell(pool.name, pool.family, pool.part, pool.n_classes, size, draw, {}, {}, {})
            for entrant in taking:
                results.add(cell, entrant, pool, rows)
            yield cell


class Results:
    """The database of results."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS results "
            "(key TEXT PRIMARY KEY, seconds REAL, failed TEXT, scores BLOB)"
        )

    def add(self, cell: Cell, entrant: Entrant, pool: Pool, rows: NDArray[np.int64]) -> None:
        """Put the entrant's result into the cell; one of ours that raises ends the run."""
        parts = [pool.digest, cell.size, cell.draw, entrant.name, entrant.version, SCORING]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        row = self.connection.execute(
            "SELECT seconds, failed, scores FROM results WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            row = fitted_and_scored(entrant, pool, rows)
            self.connection.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", (key, *row)
            )
        seconds, failed, scores = row
        cell.seconds[entrant.name] = seconds
        if failed is not None:
            cell.failed[entrant.name] = failed
        else:
            shape = (N_PARTS + 1, len(SCORES))
            cell.found[entrant.name] = np.frombuffer(scores).reshape(shape)


SCORING = hashlib.sha256(Path(scoring.__file__).read_bytes()).hexdigest()[:8]


def fitted_and_scored(
    entrant: Entrant, pool: Pool, rows: NDArray[np.int64]
) -> tuple[float, str | None, bytes | None]:
    """Seconds, why it failed, the scores."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            p = entrant.run(pool, rows)
        if p.shape != pool.test_values.shape:
            raise ValueError(f"probabilities of shape {p.shape}")
        if not np.isfinite(p).all() or p.min() < 0.0:
            raise ValueError("probabilities that are not finite or below 0")
    except Exception as error:
        if entrant.ours:
            raise
        return time.process_time() - start, f"{type(error).__name__}: {error}"[:200], None
    seconds = time.process_time() - start
    return seconds, None, replicates(p, pool.test_labels).tobytes()


def all_pools(data: Path, cache: Path) -> Iterator[Pool]:
    yield from development_pools(data)
    yield from confirmation_pools(data, cache / "sets")


def run(
    pools: Iterable[Pool],
    cache: Path,
    *,
    processes: int = 1,
    fewer: int = 1,
) -> list[Cell]:
    """All cells of all pools; the pools with the most to do first."""
    ordered = sorted(pools, key=lambda pool: -pool.n_classes * min(pool.labels.size, SIZES[-1]))
    found = []
    # Fresh interpreters: a fork would take locks of torch's threads with it.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        waiting = [executor.submit(_cells, pool, cache, fewer) for pool in ordered]
        try:
            for done in as_completed(waiting):
                cells = done.result()
                found += cells
                spent = sum(sum(cell.seconds.values()) for cell in cells)
                print(f"{cells[0].pool}: {len(cells)} draws, {spent:.0f} s of fits", flush=True)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return sorted(found, key=lambda cell: (cell.part, cell.pool, cell.size, cell.draw))


def _cells(pool: Pool, cache: Path, fewer: int) -> list[Cell]:
    import importlib.util

    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
    entrants = [*own_entrants(), *peer_entrants()]
    return list(cells_of(pool, entrants, Results(cache / "results.sqlite3"), fewer=fewer))
