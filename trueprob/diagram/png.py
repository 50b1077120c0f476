"""The same diagram as a PNG, by matplotlib (the extra `plots`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from trueprob.diagram.panel import Panel, shortened
from trueprob.errors import InvalidInput

__all__ = ["png"]

DPI: Final = 150
BAND, FILL, INSIDE, OUTSIDE = "#d4d4d4", "#5f7fa8", "#1f3a68", "#b3361b"


def png(panels: Sequence[Panel], *, title: str = "Reliability diagram") -> bytes:
    """Draw the panels side by side.

    Parameters
    ----------
    panels : sequence of Panel
        One or more; usually before and after.
    title : str
        Written above.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    InvalidInput
        There is no panel.
    ModuleNotFoundError
        matplotlib is not installed.
    """
    if not panels:
        raise InvalidInput("panels must have at least one panel, got none", field="panels")
    # Figure, not pyplot: no global state and no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 7.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(title, 36 * len(panels)), fontweight="bold")
    axes = figure.subplots(
        2, len(panels), squeeze=False, sharex=True, height_ratios=(4, 1), sharey="row"
    )
    for column, panel in enumerate(panels):
        _plot(axes[0, column], panel)
        _histogram(axes[1, column], panel)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("rows, %")
    handles, names = axes[0, 0].get_legend_handles_labels()
    # On one panel the four entries do not fit side by side.
    columns = 2 if len(panels) > 1 else 1
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    buffer = io.BytesIO()
    # Without the version of matplotlib in it, the same numbers give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot(axes: Any, panel: Panel) -> None:
    axes.set_title(_plain(panel.title, 40), fontsize=10, loc="left")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_box_aspect(1)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.bar(
        [b.lower for b in panel.bins],
        [b.band_high - b.band_low for b in panel.bins],
        width=[b.upper - b.lower for b in panel.bins],
        bottom=[b.band_low for b in panel.bins],
        align="edge", color=BAND, label="band of a calibrated model (95 %)",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "--", color="#8a8a8a", linewidth=1, label="confidence = accuracy")
    for b in panel.bins:
        axes.plot([b.confidence] * 2, [b.confidence, b.accuracy], color="black", linewidth=0.8)
    for inside, marker, edge, fill, name in (
        (True, "o", INSIDE, INSIDE, "in the band"),
        (False, "D", OUTSIDE, "white", "outside of it"),
    ):
        chosen = [b for b in panel.bins if b.inside == inside]
        axes.plot(
            [b.confidence for b in chosen], [b.accuracy for b in chosen], marker, color=edge,
            markerfacecolor=fill, markersize=5.5, clip_on=False, zorder=5, label=name,
        )  # fmt: skip


def _histogram(axes: Any, panel: Panel) -> None:
    axes.bar(
        [b.lower for b in panel.bins],
        [100 * b.share for b in panel.bins],
        width=[b.upper - b.lower for b in panel.bins],
        align="edge", color=FILL, edgecolor="black", linewidth=0.6,
    )  # fmt: skip
    axes.set_box_aspect(0.22)  # as wide as the plot above
    lines = panel.score_lines()
    names, values = "\n".join(n for n, _ in lines), "\n".join(v for _, v in lines)
    axes.set_xlabel("confidence")
    for x, text, side in ((0.0, names, "left"), (1.0, values, "right")):
        axes.text(x, -0.6, text, ha=side, va="top", fontsize=9, transform=axes.transAxes)


def _plain(text: str, limit: int) -> str:
    return shortened(text, limit).replace("$", r"\$")  # which would begin a formula
