"""The comparison on small draws: its scores and their errors, its cache, its tables and goals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.calibration.sizes.entrants import (
    AUTO,
    DEFAULT,
    FREE,
    NONE,
    Entrant,
    own_entrants,
)
from benchmarks.calibration.sizes.fresh import Recipe, kept, rounded, train
from benchmarks.calibration.sizes.goals import few_rows, first, goals_table, regret, seldom_worse
from benchmarks.calibration.sizes.pools import Pool, development_pools
from benchmarks.calibration.sizes.replicates import N_PARTS, SCORES, replicates, worse_by
from benchmarks.calibration.sizes.report import brief_report, full_report
from benchmarks.calibration.sizes.runs import Cell, Results, cells_of, draws_of, rows_of_draw
from benchmarks.calibration.sizes.tables import groups_of, mean_ranks, outcomes, ranks
from trueprob import score, softmax
from trueprob.scores.score import row_nll

Rows = NDArray[np.int64]


def made(n: int, k: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too large by a factor, and their labels."""
    generator = np.random.default_rng(seed)
    logits = 2.0 * generator.normal(size=(n, k))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return (factor * logits).astype(np.float32), labels


def pool_of(k: int = 2, *, part: str = "confirmation", name: str = "made_gumbel") -> Pool:
    z, y = made(700, k, 3.0)
    return Pool(name, part, "logits", z[:300], y[:300], z[300:], y[300:])  # type: ignore[arg-type]


# ----- Scores -----


@pytest.mark.parametrize("k", [2, 5])
def test_the_replicates_are_the_scores_with_and_without_a_part(k: int) -> None:
    z, y = made(800, k, 1.7)
    p = softmax(z).astype(np.float64)
    found = replicates(p, y)
    assert found.shape == (N_PARTS + 1, len(SCORES))
    for row, kept_rows in ((0, slice(None)), (4, np.arange(800) % N_PARTS != 3)):
        expected = score(p[kept_rows], y[kept_rows])
        for name in ("nll", "brier", "ece", "adaptive_ece", "classwise_ece"):
            value = found[row, SCORES.index(name)]
            assert value == pytest.approx(getattr(expected, name), rel=1e-9), name


def test_at_two_classes_the_auroc_is_that_of_class_one() -> None:
    z, y = made(400, 2, 1.0)
    p = softmax(z)
    positive, negative = p[y == 1, 1], p[y == 0, 1]
    pairs = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert replicates(p, y)[0, SCORES.index("auroc")] == pytest.approx(pairs)


def test_the_standard_error_is_that_of_paired_rows() -> None:
    z, y = made(4_000, 4, 1.0)
    good, bad = softmax(z), softmax((1.5 * z).astype(np.float32))
    difference, error = worse_by(replicates(bad, y), replicates(good, y))
    paired = row_nll(bad, y) - row_nll(good, y)
    assert difference[0] == pytest.approx(paired.mean(), rel=1e-6)
    assert error[0] == pytest.approx(paired.std() / np.sqrt(4_000), rel=0.5)
    assert difference[SCORES.index("ece")] > 2.5 * error[SCORES.index("ece")] > 0.0


def test_a_larger_auroc_is_better() -> None:
    z, y = made(600, 2, 1.0)
    noise = np.random.default_rng(1).normal(scale=4.0, size=z.shape).astype(np.float32)
    difference, _ = worse_by(replicates(softmax(z + noise), y), replicates(softmax(z), y))
    assert difference[SCORES.index("auroc")] > 0.0


# ----- Draws, and what is kept -----


def test_draws_are_without_replacement_and_differ() -> None:
    pool = pool_of()
    rows = rows_of_draw(pool, 50, 0)
    assert np.unique(rows).size == 50
    assert not np.array_equal(rows, rows_of_draw(pool, 50, 1))
    assert draws_of(pool, 300) == 1, "all rows can be drawn in one way only"
    assert draws_of(pool, 1_000) == 0


def entrant_of(calls: list[int], version: str = "1", *, ours: bool = False) -> Entrant:
    def run(pool: Pool, rows: Rows) -> np.ndarray:
        calls.append(rows.size)
        return softmax(pool.finite_logits(pool.test_values))

    return Entrant("counted", version, run, ours=ours)


def test_results_of_an_unchanged_version_are_read_and_not_computed(tmp_path: Path) -> None:
    calls: list[int] = []
    pool, path = pool_of(), tmp_path / "results.sqlite3"
    before = list(cells_of(pool, [entrant_of(calls)], Results(path), fewer=4))
    n = len(calls)
    assert n == len(before) > 3
    after = list(cells_of(pool, [entrant_of(calls)], Results(path), fewer=4))
    assert len(calls) == n
    assert np.array_equal(before[0].found["counted"], after[0].found["counted"])
    list(cells_of(pool, [entrant_of(calls, "2")], Results(path), fewer=4))
    assert len(calls) == 2 * n


def test_a_peer_that_fails_is_recorded_and_one_of_ours_ends_the_run(tmp_path: Path) -> None:
    def fails(pool: Pool, rows: Rows) -> np.ndarray:
        raise RuntimeError("no such thing")

    def wrong(pool: Pool, rows: Rows) -> np.ndarray:
        return np.full(pool.test_values.shape, np.nan)

    results = Results(tmp_path / "results.sqlite3")
    peers = [Entrant("failing", "1", fails), Entrant("wrong", "1", wrong)]
    cell = next(cells_of(pool_of(), peers, results))
    assert cell.failed["failing"] == "RuntimeError: no such thing"
    assert "not finite" in cell.failed["wrong"]
    with pytest.raises(RuntimeError, match="no such thing"):
        next(cells_of(pool_of(), [Entrant("mine", "1", fails, ours=True)], results))


# ----- Pools -----


def test_a_pool_gives_its_numbers_as_finite_logits() -> None:
    z, y = made(10, 3, 1.0)
    p = rounded(softmax(z).astype(np.float64), 1)
    assert (p == 0.0).any()
    pool = Pool("a", "confirmation", "probabilities", p, y, p, y)
    assert np.isfinite(pool.finite_logits(p)).all()
    assert np.array_equal(pool.finite_logits(p).argmax(axis=1), p.argmax(axis=1))
    other = Pool("a", "confirmation", "log_probabilities", p, y, p, y)
    assert pool.digest != other.digest


def test_rounded_rows_sum_to_one_and_none_is_empty() -> None:
    p = np.array([[0.004, 0.996], [0.5, 0.5], [0.123, 0.877]])
    assert rounded(p, 2) == pytest.approx(np.array([[0.0, 1.0], [0.5, 0.5], [0.12, 0.88]]))
    flat = np.full((1, 1_000), 1e-3)
    flat[0, 7] += 1e-9
    assert rounded(flat, 2)[0].sum() == pytest.approx(1.0)
    assert rounded(flat, 2)[0].argmax() == 7


def test_a_classifier_is_trained_once(tmp_path: Path) -> None:
    recipe = Recipe("cancer", "forest", 150)
    trained: list[str] = []

    def make() -> list[Pool | None]:
        trained.append(recipe.name)
        return [train(recipe, tmp_path)]

    (one,) = kept(tmp_path, recipe.name, make)
    (two,) = kept(tmp_path, recipe.name, make)
    assert trained == ["cancer_forest"]
    assert one.digest == two.digest
    assert (one.inputs, one.family, one.n_classes) == ("probabilities", "cancer", 2)
    assert (one.values == 0.0).any(), "trees that agree give exact zeros"
    assert list(kept(tmp_path, "absent", lambda: [None])) == []


def test_rebuilt_tails_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "logits").mkdir()
    z, y = made(60, 3, 1.0)
    for name in ("one_network", "one_network_top5"):
        np.savez(
            tmp_path / "logits" / f"{name}.npz",
            val_logits=z,
            val_labels=y,
            test_logits=z,
            test_labels=y,
        )
    assert [pool.name for pool in development_pools(tmp_path)] == ["one_network"]


# ----- Tables and goals -----


def cell_of(nll: dict[str, float | None], *, size: int = 100, k: int = 2, draw: int = 0) -> Cell:
    """Scores that differ between the parts a little, alike for all methods."""
    wave = 0.01 * np.sin(np.arange(N_PARTS + 1))[:, None]
    found = {
        name: np.full((N_PARTS + 1, len(SCORES)), value) + wave
        for name, value in nll.items()
        if value is not None
    }
    failed = {name: "why" for name, value in nll.items() if value is None}
    return Cell("a_pool", "a", "confirmation", k, size, draw, found, failed, {})


def test_ranks_share_ties_and_put_failures_last() -> None:
    cell = cell_of({"a": 0.3, "b": 0.2, "c": 0.3, "d": None})
    assert ranks(cell, "nll", ["a", "b", "c", "d", "not there"]) == {
        "a": 2.5,
        "b": 1.0,
        "c": 2.5,
        "d": 4.0,
    }
    assert ranks(cell, "auroc", ["a", "b"]) == {"a": 1.0, "b": 2.0}


def test_mean_ranks_weigh_sets_and_not_draws() -> None:
    cells = [cell_of({"a": 0.1, "b": 0.2}, draw=draw) for draw in range(3)]
    other = cell_of({"a": 0.2, "b": 0.1})
    cells.append(Cell("another", *list(vars(other).values())[1:]))
    assert mean_ranks(cells, "nll", ["a", "b"]) == {"a": 1.5, "b": 1.5}


def test_outcomes_count_what_is_beyond_chance() -> None:
    z, y = made(4_000, 3, 3.0)
    found = {
        "good": replicates(softmax((z / 3.0).astype(np.float32)), y),
        "same": replicates(softmax((z / 3.001).astype(np.float32)), y),
        "bad": replicates(softmax(z), y),
    }
    cell = Cell("a_pool", "a", "confirmation", 3, 20, 0, found, {}, {})
    index = SCORES.index("nll")
    assert list(outcomes([cell], "good", "bad")[:, index]) == [1, 0, 1]
    assert list(outcomes([cell], "bad", "good")[:, index]) == [0, 1, 1]
    assert list(outcomes([cell], "good", "good")[:, index]) == [0, 0, 1]


def test_goals_are_met_by_numbers_that_meet_them_and_only_by_those() -> None:
    better = {NONE: 0.5, DEFAULT: 0.40, AUTO: 0.401, FREE: 0.39, "peer": 0.45}
    worse = {NONE: 0.5, DEFAULT: 0.52, AUTO: 0.6, FREE: 0.46, "peer": 0.45}
    for scores, expected in ((better, True), (worse, False)):
        cells = [cell_of(scores, size=size) for size in (20, 100)]
        assert few_rows(cells)[2] is expected
        assert first(cells, FREE, "nll", (20, 100))[2] is expected
        assert first(cells, DEFAULT, "nll", (20, 100), place=2)[2] is expected
        assert regret(cells, AUTO)[2] is expected
        assert seldom_worse(cells)[2] is expected
    table = goals_table([cell_of(worse, size=20), cell_of(worse, size=100)])
    assert "100: 2. (2.0) after `peer` (1.0)" in table
    assert "**no**" in table


def test_every_table_of_a_small_run(tmp_path: Path) -> None:
    quick = (NONE, "temperature", DEFAULT, AUTO, FREE)
    ours = [entrant for entrant in own_entrants() if entrant.name in quick]
    assert {entrant.name for entrant in own_entrants()} >= {*quick, "smart-matrix"}
    peer = entrant_of([])
    results = Results(tmp_path / "results.sqlite3")
    cells = []
    for pool in (pool_of(2), pool_of(3, part="development", name="other_gumbel")):
        cells += list(cells_of(pool, [*ours, peer], results, fewer=10))
    assert [group.title for group in groups_of(cells)] == [
        "Confirmation, two classes (1 sets)",
        "Development, three and more classes (1 sets)",
    ]
    brief, full = brief_report(cells), full_report(cells)
    assert "`smart` on 20 rows" in brief
    assert "ECE of P(class 1)" in brief
    assert brief.count("Confirmation, two classes (1 sets), mean ranks:") == 1
    for title in ("Mean ranks", "Distances", "Against no calibration", "`smart` against each"):
        assert f"### {title}" in full
    # Three times too sure: one temperature repairs it on every draw.
    losses = outcomes(cells, "temperature", NONE)[:, SCORES.index("nll")]
    assert losses[1] == 0.0
    assert losses[0] >= 0.5 * losses[2]
