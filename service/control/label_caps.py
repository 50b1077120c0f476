"""How many labels of a day count: of one API key, and of predictions on one input.

Both bound what a single client, or a single input that is sent again and again, can make of the
statistics. What exceeds is not counted and its receipt stays unused: sent again on another day
within the receipt's time to live, it may still count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.control.store import Transaction
from service.control.store.label_counts import Counted

__all__ = ["LabelCaps"]

_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class LabelCaps:
    """The limits.

    Attributes
    ----------
    per_key, per_input : int
        Labels of a model and a day (UTC) that count; 0 for no limit.
    """

    per_key: int
    per_input: int

    def take(
        self,
        transaction: Transaction,
        model: str,
        inputs: Sequence[int],
        *,
        by: str | None,
        now: float,
    ) -> list[bool]:
        """Which of these labels count; they are counted with the answer.

        Parameters
        ----------
        transaction : Transaction
            Holds the model's lock.
        model : str
        inputs : sequence of int
            Of labels that would count, in the order in which they were sent: the digest of the
            input of each, 0 where there is none.
        by : str or None
            Id of the API key; those who need none share one limit.
        now : float
        """
        day = int(now // _DAY_SECONDS)
        names = [self._names(digest, by) for digest in inputs]
        limits = {"key": self.per_key, "input": self.per_input}
        wanted = Counter(name for each in names for name in each)
        # In one order: two processes that lock these rows never wait for each other.
        after = transaction.label_counts.add(model, day, dict(sorted(wanted.items())))
        left = {name: limits[name[0]] - (after[name] - n) for name, n in wanted.items()}
        unused: Counter[Counted] = Counter()
        taken = []
        for each in names:
            fits = all(left[name] > 0 for name in each)
            taken.append(fits)
            if fits:
                for name in each:
                    left[name] -= 1
            else:
                unused.update(each)
        less = {name: -n for name, n in sorted(unused.items())}
        transaction.label_counts.add(model, day, less)
        return taken

    def _names(self, digest: int, by: str | None) -> list[Counted]:
        names = []
        if self.per_key:
            names.append(("key", by or ""))
        if self.per_input and digest:
            names.append(("input", f"{digest:016x}"))
        return names
