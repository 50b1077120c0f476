"""Draws reliability diagrams as SVG, without dependencies; equal numbers give equal bytes.

The diagram can be read without colour: a filled circle is inside the band, a hollow diamond
outside. It has a title and a description for screen readers, and every text is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from trueprob.diagram.panel import DiagramBin, Panel, printable, shortened
from trueprob.errors import InvalidInput

__all__ = ["svg"]

# Pixels at the natural size.
SIDE: Final = 300  # of the square plot
LEFT, RIGHT, TOP = 58, 18, 70
HISTOGRAM_GAP, HISTOGRAM = 34, 64
SCORE_LINE: Final = 17
LEGEND: Final = 54
PANEL_WIDTH: Final = LEFT + SIDE + RIGHT
SCORES_TOP: Final = TOP + SIDE + HISTOGRAM_GAP + HISTOGRAM + 50

INK, FAINT, BAND, FILL = "#1a1a1a", "#8a8a8a", "#d4d4d4", "#5f7fa8"
INSIDE, OUTSIDE = "#1f3a68", "#b3361b"  # both dark in grey: the shape tells them apart


def svg(panels: Sequence[Panel], *, title: str = "Reliability diagram") -> str:
    """Draw the panels side by side.

    Parameters
    ----------
    panels : sequence of Panel
        One or more; usually before and after calibration.
    title : str
        Title above the panels.

    Returns
    -------
    str
        An SVG document.

    Raises
    ------
    InvalidInput
        `panels` is empty.
    """
    if not panels:
        raise InvalidInput("panels must have at least one panel, got none", field="panels")
    width = PANEL_WIDTH * len(panels)
    lines = len(panels[0].score_lines())
    height = SCORES_TOP + lines * SCORE_LINE + LEGEND
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">'
    )
    elements = [
        opening,
        f"<title>{_text(title)}</title>",
        f"<desc>{_text(_description(panels))}</desc>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _write(LEFT, 26, shortened(title, 36 * len(panels)), size=16, weight="bold"),
    ]
    tallest = max((b.share for panel in panels for b in panel.bins), default=1.0)
    for index, panel in enumerate(panels):
        elements.append(f'<g transform="translate({index * PANEL_WIDTH} 0)">')
        elements += [*_plot(panel), *_histogram(panel, tallest), *_scores(panel), "</g>"]
    elements += [*_legend(height - LEGEND + 22), "</svg>", ""]
    return "\n".join(elements)


def _plot(panel: Panel) -> list[str]:
    elements = [_write(LEFT, TOP - 12, shortened(panel.title, 40), size=13, weight="bold")]
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, y = _x(tick), _y(tick)
        elements += [
            _line(LEFT, y, LEFT + SIDE, y, stroke="#e6e6e6"),
            _write(LEFT - 7, y + 4, f"{tick:.1f}", anchor="end"),
            _write(x, TOP + SIDE + 16, f"{tick:.1f}", anchor="middle"),
        ]
    elements += [_box(b, _y(b.band_high), _y(b.band_low), BAND) for b in panel.bins]
    elements += [
        _line(_x(0), _y(0), _x(1), _y(1), stroke=FAINT, dash="5 4"),
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" stroke="{INK}"/>',
        _write(
            0, 0, "accuracy", anchor="middle",
            transform=f"translate({LEFT - 36} {TOP + SIDE // 2}) rotate(-90)",
        ),
    ]  # fmt: skip
    for b in panel.bins:
        x, y = _x(b.confidence), _y(b.accuracy)
        elements.append(_line(x, _y(b.confidence), x, y, stroke=INK))
        elements.append(_marker(x, y, inside=b.inside))
    return elements


def _histogram(panel: Panel, tallest: float) -> list[str]:
    bottom = TOP + SIDE + HISTOGRAM_GAP + HISTOGRAM
    elements = [
        _box(b, bottom - HISTOGRAM * b.share / tallest, bottom, FILL, stroke=INK)
        for b in panel.bins
    ]
    elements += [
        _line(LEFT, bottom, LEFT + SIDE, bottom, stroke=INK),
        _line(LEFT - 4, bottom - HISTOGRAM, LEFT, bottom - HISTOGRAM, stroke=INK),
        _line(LEFT, bottom - HISTOGRAM, LEFT, bottom, stroke=INK),
        _write(LEFT - 7, bottom - HISTOGRAM + 4, f"{100 * tallest:.0f} %", anchor="end"),
        _write(LEFT - 7, bottom + 4, "0 %", anchor="end"),
        _write(
            0, 0, "rows", anchor="middle",
            transform=f"translate({LEFT - 36} {bottom - HISTOGRAM // 2}) rotate(-90)",
        ),
        _write(LEFT + SIDE / 2, bottom + 20, "confidence", anchor="middle"),
    ]  # fmt: skip
    return elements


def _scores(panel: Panel) -> list[str]:
    elements = []
    for index, (name, value) in enumerate(panel.score_lines()):
        y = SCORES_TOP + index * SCORE_LINE
        elements += [_write(LEFT, y, name), _write(LEFT + SIDE, y, value, anchor="end")]
    return elements


def _legend(y: float) -> list[str]:
    second = LEFT + 122
    return [
        _marker(LEFT + 6, y - 4, inside=True),
        _write(LEFT + 18, y, "inside the band"),
        f'<rect x="{second}" y="{_n(y - 10)}" width="24" height="12" fill="{BAND}"/>',
        _write(second + 31, y, "band of a calibrated model (95 %)"),
        _marker(LEFT + 6, y + 14, inside=False),
        _write(LEFT + 18, y + 18, "outside of it"),
        _line(second, y + 14, second + 24, y + 14, stroke=FAINT, dash="5 4"),
        _write(second + 31, y + 18, "confidence = accuracy"),
    ]


def _description(panels: Sequence[Panel]) -> str:
    sentences = ["Accuracy against mean confidence in 15 bins; below, the share of rows in each."]
    for panel in panels:
        values = ", ".join(f"{name} {value}" for name, value in panel.score_lines())
        sentences.append(
            f"{panel.title}: {values}; {panel.n_outside} of "
            f"{len(panel.bins)} bins lie outside the band of a calibrated model."
        )
    return " ".join(sentences)


def _marker(x: float, y: float, *, inside: bool) -> str:
    if inside:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="4.5" fill="{INSIDE}"/>'
    points = " ".join(f"{_n(x + dx)},{_n(y + dy)}" for dx, dy in ((0, -6), (6, 0), (0, 6), (-6, 0)))
    return f'<polygon points="{points}" fill="#ffffff" stroke="{OUTSIDE}" stroke-width="2"/>'


def _box(b: DiagramBin, top: float, bottom: float, fill: str, stroke: str = "none") -> str:
    return (
        f'<rect x="{_n(_x(b.lower))}" y="{_n(top)}" width="{_n(SIDE * (b.upper - b.lower))}" '
        f'height="{_n(bottom - top)}" fill="{fill}" stroke="{stroke}" stroke-width="0.7"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, *, stroke: str, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" stroke="{stroke}"{dashed}/>'
    )


def _write(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int | None = None,
    weight: str = "",
    transform: str = "",
) -> str:
    attributes = {"text-anchor": "" if anchor == "start" else anchor, "font-weight": weight}
    attributes |= {"font-size": "" if size is None else str(size), "transform": transform}
    written = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items() if value)
    return f'<text x="{_n(x)}" y="{_n(y)}"{written}>{_text(text)}</text>'


def _text(value: str) -> str:
    return escape(printable(value))


def _x(value: float) -> float:
    return LEFT + SIDE * value


def _y(value: float) -> float:
    return TOP + SIDE * (1.0 - value)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
