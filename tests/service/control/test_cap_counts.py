"""A label that is capped uses up none of its key's share."""

from typing import Any

from service.control.label_caps import LabelCaps


class Counts:
    """The table's counts, in memory."""

    def __init__(self) -> None:
        self.label_counts = self
        self.kept: dict[Any, int] = {}

    def add(self, _model: str, _day: int, more: dict[Any, int]) -> dict[Any, int]:
        for name, n in more.items():
            self.kept[name] = self.kept.get(name, 0) + n
        return {name: self.kept[name] for name in more}


def test_what_was_capped_is_given_back() -> None:
    counts: Any = Counts()
    caps = LabelCaps(3, 1)
    assert caps.take(counts, "m", [7, 7, 7], by="a", now=0.0) == [True, False, False]
    assert caps.take(counts, "m", [8, 9, 10], by="a", now=0.0) == [True, True, False]
