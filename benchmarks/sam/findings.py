"""The claims of the papers, each tested on these numbers and answered in one sentence.

A claim is a comparison of two rows of a part in one score. It held when every seed says so and the
mean paired difference is beyond two standard errors; reversed when they say the contrary as
clearly; else three seeds of this size cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.calibration.report import table
from benchmarks.sam.plan import Cell
from benchmarks.sam.tables import Results, by_row, mean_and_error, verdict

Rows = Mapping[str, Mapping[int, Any]]


@dataclass(frozen=True)
class Claim:
    """`first` has the better score than `second`: a higher accuracy, a lower ECE or NLL."""

    text: str
    part: str
    first: str
    second: str
    score: str
    state: str = "uncalibrated"
    scored: str = "test"


SCORES = {"accuracy": ("accuracy", -100, "points"), "ece": ("ECE", 100, "points")}
SCORES["nll"] = ("NLL", 1, "nats")

CLEAN = (("digits", "digits"), ("cifar10", "CIFAR-10"))


def _claims() -> Iterable[Claim]:
    for part, data in CLEAN:
        for name, rival, score, paper in (
            ("sam", "sgd", "accuracy", "SAM generalises better than SGD (2010.01412)"),
            ("sam", "sgd", "ece", "SAM is better calibrated than SGD (2505.23866)"),
            ("csam", "sam", "ece", "CSAM is better calibrated than SAM (2505.23866)"),
            ("csam", "sgd", "ece", "CSAM is better calibrated than SGD (2505.23866)"),
            ("asam", "sam", "accuracy", "ASAM generalises better than SAM (2102.11600)"),
            ("functional-sam", "sam", "nll", "Functional-SAM's NLL is below SAM's (2502.02407)"),
            ("looksam", "sgd", "accuracy", "LookSAM generalises better than SGD (2203.02714)"),
            ("momentum-sam", "sgd", "accuracy", "Momentum-SAM beats SGD in one pass (2401.12033)"),
        ):
            yield Claim(f"{paper}, {data}", part, name, rival, score)
        for name in ("sam", "csam"):
            text = f"{name.upper()} is ahead of SGD after SMART, too, {data}"
            yield Claim(text, part, name, "sgd", "nll", state="smart")
    for rate in ("20%", "40%"):
        for name, score, what in (
            ("sam", "accuracy", "SAM resists label noise better than SGD (2010.01412)"),
            ("sam", "ece", "SAM stays better calibrated than SGD"),
            ("csam", "ece", "CSAM stays better calibrated than SGD"),
        ):
            rows = f"{name}, noise {rate}", f"sgd, noise {rate}"
            yield Claim(f"{what}, {rate} label noise", "label noise", *rows, score)
        rows = f"csam, noise {rate}", f"sam, noise {rate}"
        yield Claim(
            f"CSAM stays better calibrated than SAM, {rate} label noise",
            "label noise", *rows, "ece",
        )  # fmt: skip
    for name, rival in (("sam", "sgd"), ("csam", "sgd"), ("csam", "sam")):
        text = f"{name.upper()} stays better calibrated than {rival.upper()} under corruption"
        yield Claim(f"{text} (2505.23866)", "cifar10", name, rival, "ece", scored="corrupted")
    for student in ("sgd", "sam"):
        rows = f"sam teacher, {student} student", f"sgd teacher, {student} student"
        for state, when in (("uncalibrated", ""), ("smart", ", after SMART")):
            score = "ece" if state == "uncalibrated" else "nll"
            text = f"A SAM teacher gives a better calibrated {student.upper()} student{when}"
            yield Claim(text, "distillation", *rows, score, state)


CLAIMS = tuple(_claims())
ORDER = ("held", "reversed", "not told apart")


def judged(claim: Claim, rows: Rows) -> tuple[str, str, str] | None:
    """Heading, shown difference and verdict, None with fewer than two seeds of both."""
    seeds = set(rows.get(claim.first, ())) & set(rows.get(claim.second, ()))
    if len(seeds) < 2:  # one difference has no error
        return None
    heading, factor, unit = SCORES[claim.score]
    mean, error, word = verdict(
        rows[claim.first], rows[claim.second], claim.state, claim.score,
        scored=claim.scored, sign=-1 if factor < 0 else 1,
    )  # fmt: skip
    digits = 3 if claim.score == "nll" else 1
    spread = f" ± {abs(factor) * error:.{digits}f}" if error == error else ""
    return heading, f"{abs(factor) * mean:+.{digits}f}{spread} {unit}", word


def findings(cells: list[Cell], results: Results) -> str:
    """Every claim with its answer, those that hold first; empty if nothing was measured."""
    lines = []
    for claim in CLAIMS:
        found = judged(claim, by_row(cells, results, claim.part))
        if found is not None:
            heading, shown, word = found
            lines.append([claim.text, f"{heading} {shown}", f"**{word}**"])
    if not lines:
        return ""
    lines.sort(key=lambda line: ORDER.index(line[2].strip("*")))
    count = ", ".join(f"{sum(line[2] == f'**{w}**' for line in lines)} {w}" for w in ORDER)
    waiting = len(CLAIMS) - len(lines)
    more = f" {waiting} more wait for runs of two seeds or more." if waiting else ""
    return (
        f"Of {len(lines)} claims at this size: {count}.{more} A claim held when each seed says so "
        "and the mean paired difference (first minus second) exceeds two standard errors. With "
        "three seeds, and as many claims as these, one or two verdicts may be luck.\n\n"
        + table(("claim", "difference", "at this size"), lines)
    )


def sensitivity(rows: Rows) -> str:
    """The best γ and ρ of CSAM, and their effect compared with the spread over seeds."""
    sentences = []
    for name, fixed in (("gamma", "rho 0.05"), ("rho", "gamma 1,")):
        chosen = {row: seeds for row, seeds in rows.items() if fixed in row}
        if len(chosen) < 2:
            continue
        for score in ("ece", "accuracy"):
            heading, factor, _ = SCORES[score]
            means = {
                row: mean_and_error(100 * r["test"]["uncalibrated"][score] for r in seeds.values())
                for row, seeds in chosen.items()
            }
            best = min(means, key=lambda row: (-1 if factor < 0 else 1) * means[row][0])
            values = [mean for mean, _ in means.values()]
            typical = max(error for _, error in means.values())
            sentences.append(
                f"- {name}, {heading}: best at {best} ({means[best][0]:.1f} %); "
                f"from {min(values):.1f} to {max(values):.1f} % over the values tried, "
                f"standard errors up to {typical:.1f}."
            )
    return "\n".join(sentences)
