"""The training benchmark runs, resumes, keeps to its budget, and its statistics are right."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.sam.__main__ import PARTS, main
from benchmarks.sam.document import report
from benchmarks.sam.findings import CLAIMS, findings, sensitivity
from benchmarks.sam.measure import result_of, run_missing
from benchmarks.sam.plan import MEMBERS, Cell, cells, known, teacher_recipe
from benchmarks.sam.tables import by_row, claims, mean_and_error, part_table, verdict


def planned(tmp_path: Path) -> list[Cell]:
    return list(cells(tmp_path / "cifar.npz", tmp_path, epochs=1))


def test_every_run_has_its_own_file_and_three_seeds(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert len({cell.key for cell in plan}) == len(plan)
    assert {cell.part for cell in plan} <= set(PARTS)
    rows: dict[tuple[str, str], set[int]] = {}
    for cell in plan:
        rows.setdefault((cell.part, cell.row), set()).add(cell.config.seed)
    assert set(map(frozenset, rows.values())) == {frozenset({0, 1, 2})}
    there = {member.name for member in MEMBERS if known(member.name)}
    assert {"sgd", "sam"} <= there
    assert {row for part, row in rows if part == "cifar10"} == there


def test_a_teacher_and_its_student_do_not_begin_alike(tmp_path: Path) -> None:
    students = [cell.config for cell in planned(tmp_path) if cell.part == "distillation"]
    assert {teacher_recipe(c).optimiser for c in students} == {"sgd", "sam"}
    assert all(teacher_recipe(c).seed != c.seed for c in students)
    assert all(not teacher_recipe(c).teacher for c in students)


@pytest.mark.slow
def test_a_result_is_kept_and_a_budget_stops(tmp_path: Path) -> None:
    plan = [cell for cell in planned(tmp_path) if cell.part == "digits"][:2]
    said: list[str] = []
    ticks = iter([0.0, 0.0, 100.0])
    results = run_missing(
        plan, tmp_path, budget_seconds=50, say=said.append, clock=lambda: next(ticks)
    )
    assert list(results) == [plan[0].key]
    assert said[-1] == "budget spent: 1 of 2 cells are left for the next call"
    before = (tmp_path / f"{plan[0].key}.json").read_bytes()
    again = run_missing(plan, tmp_path, budget_seconds=1000, say=said.append)
    assert len(again) == 2
    assert (tmp_path / f"{plan[0].key}.json").read_bytes() == before
    stored = json.loads(before)
    stored["config"]["rho"] = 0.9  # of another recipe
    (tmp_path / f"{plan[0].key}.json").write_text(json.dumps(stored))
    assert result_of(plan[0], tmp_path) is None
    text = part_table(by_row(plan, again, "digits"))
    assert "| sgd | 1 |" in text
    assert "± nan" not in text


def test_means_have_standard_errors() -> None:
    mean, error = mean_and_error([1.0, 2.0, 3.0])
    assert (mean, error) == (2.0, pytest.approx(1 / math.sqrt(3)))
    assert math.isnan(mean_and_error([1.0])[1])


def seeds(*values: float) -> dict[int, dict[str, object]]:
    both = [{"ece": v, "nll": v} for v in values]
    return {
        i: {"test": {"uncalibrated": s, "smart": s}, "seconds": 1.0} for i, s in enumerate(both)
    }


def test_a_claim_holds_only_beyond_two_standard_errors_and_in_every_seed() -> None:
    sgd = seeds(0.20, 0.21, 0.22)
    assert verdict(seeds(0.10, 0.12, 0.11), sgd, "uncalibrated", "ece")[2] == "held"
    assert verdict(seeds(0.30, 0.32, 0.31), sgd, "uncalibrated", "ece")[2] == "reversed"
    assert verdict(seeds(0.10, 0.12, 0.23), sgd, "uncalibrated", "ece")[2] == "not told apart"
    text = claims({"sgd": sgd, "sam": seeds(0.10, 0.12, 0.11)})
    assert "| sam below sgd: ECE % | -10.00 ± 0.58 | held |" in text
    one = claims({"sgd": seeds(0.2), "sam": seeds(0.1)})
    assert "| sam below sgd: ECE % | -10.00 | not told apart |" in one


@pytest.mark.slow
def test_the_command_runs_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--smoke", "--part", "distillation", "--data", str(tmp_path / "none")]
    assert main([*arguments, "--results", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "CIFAR-10 is left out" in captured.err
    assert "| sam teacher, sgd student | 1 |" in captured.out
    assert "Not measured" in captured.out or all(known(m.name) for m in MEMBERS)


def test_every_claim_is_about_rows_that_are_planned(tmp_path: Path) -> None:
    rows = {(cell.part, cell.row): cell for cell in planned(tmp_path)}
    for claim in CLAIMS:
        for row in (claim.first, claim.second):
            assert (claim.part, row) in rows, claim
            assert claim.scored == "test" or rows[claim.part, row].corrupted, claim


def test_the_findings_follow_from_the_numbers(tmp_path: Path) -> None:
    def scored(accuracy: float, ece: float) -> dict[str, object]:
        scores = {"accuracy": accuracy, "ece": ece, "nll": ece}
        return {"test": {"uncalibrated": scores, "smart": scores}, "seconds": 1.0}

    plan = [c for c in planned(tmp_path) if c.part == "digits" and c.row in ("sgd", "sam", "csam")]
    # SAM is right more often in every seed and better calibrated; CSAM about as SAM.
    by_name = {"sgd": (0.80, 0.2), "sam": (0.90, 0.1), "csam": (0.90, 0.1)}
    results = {}
    for cell in plan:
        accuracy, ece = by_name[cell.row]
        wobble = 0.001 * cell.config.seed * (-1 if cell.row == "csam" else 1)
        results[cell.key] = scored(accuracy + wobble, ece + wobble - 0.0005)
    text = findings(plan, results)
    held = "| SAM generalises better than SGD (2010.01412), digits | accuracy +10.0 ± 0.0 points "
    assert held + "| **held** |" in text
    assert "| SAM is better calibrated than SGD (2505.23866), digits | ECE -10.0 " in text
    assert "CSAM is better calibrated than SAM (2505.23866), digits | ECE -0.2 ± 0.1" in text
    assert text.index("**held**") < text.index("**not told apart**")
    assert "reversed" not in text.replace("0 reversed", "")
    assert findings(plan, {}) == ""
    text = report(plan, results, [])
    assert "missing" not in text
    assert "## Digits" in text
    assert "**1 of 9 runs are missing**: 1 of digits." in report(
        plan, {key: results[key] for key in list(results)[1:]}, []
    )


def test_the_best_gamma_and_rho_are_named() -> None:
    def rows(*eces: float) -> dict[int, dict[str, object]]:
        scores = [{"uncalibrated": {"ece": e, "accuracy": 0.9}} for e in eces]
        return {i: {"test": s} for i, s in enumerate(scores)}

    text = sensitivity(
        {
            "gamma 0, rho 0.05": rows(0.03, 0.03),
            "gamma 1, rho 0.05": rows(0.01, 0.01),
            "gamma 1, rho 0.2": rows(0.02, 0.02),
        }
    )
    assert "- gamma, ECE: best at gamma 1, rho 0.05 (1.0 %); from 1.0 to 3.0 %" in text
    assert "- rho, ECE: best at gamma 1, rho 0.05 (1.0 %); from 1.0 to 2.0 %" in text
