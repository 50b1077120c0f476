"""State of a betting test: one logarithm for each bet, and the number of units counted.

The state is a value: `update` of a statistic takes one and returns another. Its size does not
depend on the number of labels. `to_dict` and `from_dict` keep floats bit for bit: `json` writes the
shortest decimal that reads back as the same float, and the many floats of `ClassStates` are written
as base64.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.drift.counting_order import Factors
from trueprob.errors import InvalidDocument, InvalidInput

__all__ = ["BetState", "ClassStates"]

FORMAT: Final = 1
BetArray = NDArray[np.float64]


@dataclass(frozen=True)
class ClassStates:
    """States of the bets on single classes, for the classes that were predicted so far.

    Attributes
    ----------
    n_classes : int
        Of the model.
    ids : bytes
        The classes, ascending, as little-endian int32.
    numbers : bytes
        One row of little-endian float64 a class: the logarithm for each bet and, for change, what
        the learned bet knows of the class.
    learned_log : float
        For change: logarithm of the sum of the learned bet.
    pending : int
        For change: units since the learned bet has last learned.
    """

    n_classes: int
    ids: bytes = b""
    numbers: bytes = b""
    learned_log: float = -math.inf
    pending: int = 0

    def arrays(self, width: int) -> tuple[NDArray[np.int64], BetArray]:
        """Classes of shape (m,), and their numbers of shape (m, width)."""
        ids = np.frombuffer(self.ids, "<i4").astype(np.int64)
        return ids, np.frombuffer(self.numbers, "<f8").reshape(len(ids), width)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, for `from_dict`."""
        return {
            "n_classes": self.n_classes,
            "ids": base64.b64encode(self.ids).decode(),
            "numbers": base64.b64encode(self.numbers).decode(),
            "learned_log": None if self.learned_log == -math.inf else self.learned_log,
            "pending": self.pending,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ClassStates:
        """Read what `to_dict` wrote; `InvalidDocument` if it is something else."""
        try:
            learned_log = document["learned_log"]
            states = cls(
                int(document["n_classes"]),
                base64.b64decode(document["ids"], validate=True),
                base64.b64decode(document["numbers"], validate=True),
                -math.inf if learned_log is None else float(learned_log),
                int(document["pending"]),
            )
        except (KeyError, TypeError, ValueError):
            raise InvalidDocument("classes must hold the states of bets on classes") from None
        n = len(states.ids) // 4
        if (
            len(states.ids) % 4
            or len(states.numbers) % (8 * max(n, 1))
            or (states.numbers and not n)
        ):
            raise InvalidDocument("classes must hold a row of numbers for each class")
        return states


@dataclass(frozen=True)
class BetState:
    """State of `Evidence` or `ChangeDetector`.

    Attributes
    ----------
    statistic : str
        "evidence" or "change".
    mixture : str
        Name of the mixture of bets; factors of another mixture are refused.
    n : int
        Units counted since the start.
    logs : tuple of float
        For each bet: the logarithm of its wealth (evidence), or of 1 + its Shiryaev–Roberts sum
        (change).
    idle : tuple of int
        For each bet of a change detector: units since its factor last differed from 1. Empty for
        evidence.
    classes : ClassStates or None
        None before the first label, and without bets on classes.
    """

    statistic: str
    mixture: str
    n: int
    logs: tuple[float, ...]
    idle: tuple[int, ...] = ()
    classes: ClassStates | None = None

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON, for `from_dict`."""
        return {
            "format": FORMAT,
            "statistic": self.statistic,
            "mixture": self.mixture,
            "n": self.n,
            "logs": list(self.logs),
            "idle": list(self.idle),
            **({} if self.classes is None else {"classes": self.classes.to_dict()}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> BetState:
        """Read what `to_dict` wrote.

        Raises
        ------
        InvalidDocument
            The document is not a state.
        """
        if document.get("format") != FORMAT:
            raise InvalidDocument(f"format must be {FORMAT}, got {document.get('format')!r}")
        names = {key: document.get(key) for key in ("statistic", "mixture")}
        for key, name in names.items():
            if not isinstance(name, str):
                raise InvalidDocument(f"{key} must be a string, got {type(name).__name__}")
        n, logs, idle = (document.get(key) for key in ("n", "logs", "idle"))
        if not _is_count(n):
            raise InvalidDocument("n must be an integer of at least 0")
        if not isinstance(idle, list) or not all(map(_is_count, idle)):
            raise InvalidDocument("idle must be a list of integers of at least 0")
        if not isinstance(logs, list) or not all(
            isinstance(x, float | int) and not isinstance(x, bool) and math.isfinite(x)
            for x in logs
        ):
            raise InvalidDocument("logs must be a list of finite numbers")
        classes = document.get("classes")
        if classes is not None and not isinstance(classes, Mapping):
            raise InvalidDocument("classes must be an object")
        numbers = int(n or 0), tuple(map(float, logs)), tuple(idle)
        states = None if classes is None else ClassStates.from_dict(classes)
        return cls(str(names["statistic"]), str(names["mixture"]), *numbers, states)

    def advanced(
        self,
        logs: BetArray,
        factors: Factors,
        idle: NDArray[np.int64] | None = None,
        classes: ClassStates | None = None,
    ) -> BetState:
        """The next state: these factors counted, with the new logarithms."""
        return BetState(
            self.statistic,
            self.mixture,
            self.n + factors.n_units,
            tuple(logs.tolist()),
            () if idle is None else tuple(idle.tolist()),
            classes,
        )

    def logs_for(self, statistic: str, mixture: str, n_bets: int) -> BetArray:
        """The logarithms; InvalidInput if they belong to another statistic or mixture."""
        expected, got = (statistic, mixture, n_bets), (self.statistic, self.mixture, len(self.logs))
        if got != expected or len(self.idle) != (n_bets if statistic == "change" else 0):
            raise InvalidInput(
                f"state must be of {statistic} with the {n_bets} bets of {mixture}, "
                f"got {got[0]} with the {got[2]} bets of {got[1]}: start again from start()",
                field="state",
            )
        return np.array(self.logs)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
