"""How many of the images that wait are run at once: as many as go fastest by the row.

More at once is not always faster. On a CPU a batch that outgrows the caches is slower by the row
than half of it (a ResNet-18 on two cores: 24.6 rows a second in batches of 16, 17.6 in batches of
32). So the rate of each power of two is remembered as batches run; each is tried once when so many
wait, and one of them again now and then. Nobody waits for a batch to fill.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BatchSize"]

_RECENT: Final = 0.3  # share of the last batch in a size's rate
_AS_GOOD: Final = 0.95  # of the best rate: then the larger batch is taken
_SMALLEST_TRIED: Final = 4  # a power of two; smaller ones are not tried on purpose
_TRY_EVERY: Final = 64  # choices


class BatchSize:
    """Chooses the rows of the next batch; knows nothing of requests and clocks.

    Parameters
    ----------
    max_rows : int
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._rates: dict[int, float] = {}  # rows a second by power of two
        self._choices = 0

    def choose(self, waiting: int) -> int:
        """Rows to take of those that wait; 1 or more.

        Parameters
        ----------
        waiting : int
        """
        most = min(waiting, self._max_rows)
        whole = _power(most)
        if most < 2 * _SMALLEST_TRIED or whole not in self._rates:
            return most
        known = {size: rate for size, rate in self._rates.items() if size == whole or size < most}
        best = max(known.values())
        size = max(size for size, rate in known.items() if rate >= _AS_GOOD * best)
        smaller = [1 << i for i in range(_SMALLEST_TRIED.bit_length() - 1, whole.bit_length() - 1)]
        untried = [each for each in smaller if each not in self._rates]
        self._choices += 1
        turn, rest = divmod(self._choices, _TRY_EVERY)
        if untried:
            size = untried[-1]
        elif rest == 0:
            # What was measured long ago, or when the machine was busy, may be true no more.
            size = [*smaller, whole][turn % (len(smaller) + 1)]
        return most if size == whole else size

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a batch that ran.

        Parameters
        ----------
        rows : int
        seconds : float
        """
        size, rate = _power(rows), rows / max(seconds, 1e-9)
        before = self._rates.get(size, rate)
        self._rates[size] = before + _RECENT * (rate - before)


def _power(rows: int) -> int:
    """The power of two that is nearest by ratio."""
    below = 1 << (rows.bit_length() - 1)
    return below if rows * rows < 2 * below * below else 2 * below
