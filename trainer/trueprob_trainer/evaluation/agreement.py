"""Whether a repeated training reproduces the figures of a shipped version.

Not to the last digit: another processor sums in another order, and a hundred epochs turn the last
bit into another network of the same kind. Both are scored on the same test rows, so figures are
held to what those rows can tell: an ECE to its noise floor, an accuracy to two standard errors.
"""

from dataclasses import dataclass
from math import sqrt

from trueprob.repository.manifest import Manifest
from trueprob_trainer.errors import BadInput


@dataclass(frozen=True)
class Agreement:
    """Figure by figure."""

    # name, ours, the shipped one, allowed difference; fractions
    rows: tuple[tuple[str, float, float, float], ...]

    @property
    def holds(self) -> bool:
        """Whether every difference is allowed."""
        return all(abs(ours - shipped) <= allowed for _, ours, shipped, allowed in self.rows)

    def table(self) -> str:
        """Lines for a terminal, in percent."""
        lines = [f"{'figure':<24}{'now %':>9}{'shipped %':>11}{'allowed ±':>11}"]
        for name, *values in self.rows:
            now, shipped, allowed = (f"{100 * value:.2f}" for value in values)
            lines.append(f"{name:<24}{now:>9}{shipped:>11}{allowed:>11}")
        answer = "yes" if self.holds else "no"
        return "\n".join([*lines, f"agree within the noise floor: {answer}"])


def compare(ours: Manifest, shipped: Manifest) -> Agreement:
    """Compare the test scores of two versions.

    Raises `BadInput`: scored on other data, or without scores.
    """
    try:
        a, b = ours.scores["test"], shipped.scores["test"]
        if (a["n"], ours.training["dataset"]) != (b["n"], shipped.training["dataset"]):
            raise BadInput("versions can be compared on one data set only, got two")
        rows = []
        for state in ("uncalibrated", "calibrated"):
            floor = max(a[state]["ece_floor"], b[state]["ece_floor"])
            rows.append((f"ECE, {state}", a[state]["ece"], b[state]["ece"], floor))
        accuracy = b["uncalibrated"]["accuracy"]
        allowed = 2 * sqrt(accuracy * (1 - accuracy) / b["n"])
        rows.append(("accuracy", a["uncalibrated"]["accuracy"], accuracy, allowed))
    except KeyError as problem:
        raise BadInput(f"manifest has no entry {problem} to compare") from problem
    return Agreement(tuple(rows))
