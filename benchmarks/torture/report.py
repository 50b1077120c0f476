"""The table of a run, in Markdown, and its last sentence."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.torture.run import Episode, Outcome

__all__ = ["line_of", "summary_of", "table_head"]

COLUMNS = (
    "fault",
    "held, s",
    "ready after, s",
    "longest without a prediction, s",
    "longest without a label, s",
    "predictions",
    "labels",
    "readiness said",
)


def table_head() -> str:
    """Names of the columns and the line below them."""
    return f"{_row(COLUMNS)}\n|---|{'---:|' * 4}---|---|---|"


def line_of(episode: Episode) -> str:
    """An episode as a row, and a line below it for each thing that disagrees."""
    ready = "never" if episode.ready_seconds is None else f"{episode.ready_seconds:g}"
    said, noticed = ", ".join(episode.readiness) or "ok", episode.degraded_seconds
    row = _row(
        (
            f"{episode.fault}: {episode.what}".replace("|", "\\|"),
            f"{episode.held_seconds:g}" if episode.held_seconds else "–",
            ready,
            f"{episode.longest_without_prediction:g}",
            f"{episode.longest_without_label:g}",
            outcomes(episode.requests.get("predict", {})),
            outcomes(episode.requests.get("label", {})),
            said + (f" after {noticed:g} s" if noticed is not None else ""),
        )
    )
    return "\n".join([row, *(f"WRONG: {each}" for each in episode.disagreements)])


def summary_of(outcome: Outcome) -> str:
    """What was sent, and whether all agrees."""
    verdict = (
        f"{len(outcome.disagreements)} things disagree"
        if outcome.disagreements
        else "every acknowledged label counts once, and no other"
    )
    return (
        f"{len(outcome.episodes)} faults in {outcome.seconds:g} s, {outcome.labels} labels "
        f"({outcome.counted_unanswered} counted though their answer was lost), {outcome.rows} "
        f"labelled rows, {outcome.uploads} uploads, {outcome.promotions} promotions, "
        f"{outcome.answers} answers computed again: {verdict}"
    )


def outcomes(counted: Mapping[str, int]) -> str:
    """Counts by status, such as ``412 × 200, 3 × no answer``."""
    return ", ".join(f"{n} × {outcome}" for outcome, n in counted.items()) or "none"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
