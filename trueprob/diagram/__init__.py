"""Reliability diagrams: accuracy against confidence, before and after calibration.

`Panel.of` computes the numbers. `svg` draws them without any dependency, `png` with matplotlib
(extra `plots`); both draw the same.
"""

from trueprob.diagram.panel import DiagramBin, Panel
from trueprob.diagram.png import png
from trueprob.diagram.svg import svg

__all__ = ["DiagramBin", "Panel", "png", "svg"]
