"""How many labels of one input count a day.

That bounds what a single input that is sent again and again can make of the statistics. What
exceeds is not counted and its receipt stays unused: sent again on another day within the receipt's
time to live, it may still count. Labels of an input are told by its group, and counted for each
promotion by itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAY_SECONDS", "within_cap"]

DAY_SECONDS: Final = 86_400


def within_cap(before: NDArray[np.int64], *, per_input: int) -> NDArray[np.bool_]:
    """Which of some labels count."""
    return before < per_input if per_input else np.ones(len(before), np.bool_)
