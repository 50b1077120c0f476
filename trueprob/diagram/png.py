"""Draws reliability diagrams as PNG, with matplotlib (extra `plots`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from trueprob.diagram.panel import Panel, shortened
from trueprob.errors import InvalidInput

__all__ = ["png"]

DPI: Final = 150
# In inches from the lower left corner. The layout is fixed because the automatic layouts of
# matplotlib shrink the plots when texts are long.
PANEL_WIDTH, HEIGHT, LEFT, SIDE = 4.2, 7.6, 0.7, 3.3
PLOT_BOTTOM, HISTOGRAM_BOTTOM, HISTOGRAM = 3.55, 2.5, 0.7
SCORES_BELOW, SCORE_LINE = 0.5, 0.2
BAND, FILL, INSIDE, OUTSIDE = "#d4d4d4", "#5f7fa8", "#1f3a68", "#b3361b"


def png(panels: Sequence[Panel], *, title: str = "Reliability diagram") -> bytes:
    """Draw the panels side by side.

    Parameters
    ----------
    panels : sequence of Panel
        One or more; usually before and after calibration.
    title : str
        Title above the panels.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    InvalidInput
        `panels` is empty.
    ModuleNotFoundError
        matplotlib is not installed.
    """
    if not panels:
        raise InvalidInput("panels must have at least one panel, got none", field="panels")
    # Figure and not pyplot, which has global state and needs a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = PANEL_WIDTH * len(panels), HEIGHT
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(
        LEFT / width, 1 - 0.35 / height, _plain(title, 36 * len(panels)), fontsize=12,
        fontweight="bold",
    )  # fmt: skip
    tallest = max((b.share for panel in panels for b in panel.bins), default=1.0)

    def axes(column: int, bottom: float, tall: float) -> Any:
        left = column * PANEL_WIDTH + LEFT
        return figure.add_axes((left / width, bottom / height, SIDE / width, tall / height))

    for column, panel in enumerate(panels):
        plot = axes(column, PLOT_BOTTOM, SIDE)
        _plot(plot, panel)
        _histogram(axes(column, HISTOGRAM_BOTTOM, HISTOGRAM), panel, tallest)
    figure.legend(
        *plot.get_legend_handles_labels(), loc="lower left", ncols=2, frameon=False, fontsize=8,
        bbox_to_anchor=(LEFT / width - 0.1 / width, 0.05 / height), borderaxespad=0,
        columnspacing=0.8, handlelength=1.5, handletextpad=0.5,
    )  # fmt: skip
    buffer = io.BytesIO()
    # Without the version of matplotlib, equal numbers give equal bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot(axes: Any, panel: Panel) -> None:
    axes.set_title(_plain(panel.title, 40), fontsize=10, loc="left")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_ylabel("accuracy")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.bar(
        [b.lower for b in panel.bins],
        [b.band_high - b.band_low for b in panel.bins],
        width=[b.upper - b.lower for b in panel.bins],
        bottom=[b.band_low for b in panel.bins],
        align="edge", color=BAND, label="calibrated model (95 %)",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "--", color="#8a8a8a", linewidth=1, label="confidence = accuracy")
    for b in panel.bins:
        axes.plot([b.confidence] * 2, [b.confidence, b.accuracy], color="black", linewidth=0.8)
    for inside, marker, edge, fill, name in (
        (True, "o", INSIDE, INSIDE, "inside the band"),
        (False, "D", OUTSIDE, "white", "outside of it"),
    ):
        chosen = [b for b in panel.bins if b.inside == inside]
        axes.plot(
            [b.confidence for b in chosen], [b.accuracy for b in chosen], marker, color=edge,
            markerfacecolor=fill, markersize=5.5, clip_on=False, zorder=5, label=name,
        )  # fmt: skip


def _histogram(axes: Any, panel: Panel, tallest: float) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 105 * tallest), xlabel="confidence", ylabel="rows, %")
    axes.bar(
        [b.lower for b in panel.bins],
        [100 * b.share for b in panel.bins],
        width=[b.upper - b.lower for b in panel.bins],
        align="edge", color=FILL, edgecolor="black", linewidth=0.6,
    )  # fmt: skip
    for line, (name, value) in enumerate(panel.score_lines()):
        y = -(SCORES_BELOW + line * SCORE_LINE) / HISTOGRAM
        for x, text, side in ((0.0, name, "left"), (1.0, value, "right")):
            axes.text(x, y, text, ha=side, va="top", fontsize=9, transform=axes.transAxes)


def _plain(text: str, limit: int) -> str:
    return shortened(text, limit).replace("$", r"\$")  # a dollar sign would begin a formula
