"""Reliability diagrams: what was claimed against what came true, before and after calibration.

`Panel.of` reads the numbers, `svg` draws them as text without any dependency and `png` by
matplotlib (the extra `plots`). Both show the same.
"""

from trueprob.diagram.panel import Bin, Panel
from trueprob.diagram.png import png
from trueprob.diagram.svg import svg

__all__ = ["Bin", "Panel", "png", "svg"]
