"""What every answer must agree with: the calibrator that it names, and the history."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import Calibrator
from trueprob.client import Client, PartialPrediction, Prediction, PromotionSummary

__all__ = ["ObservedAnswers"]

AGREE_TO: Final = 2e-6  # float32 probabilities from another order of sums
NUMBERS: Final = 3000  # of an answer that are kept at most


@dataclass(frozen=True)
class _Observed:
    version: int
    calibrator: str
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class ObservedAnswers:
    """Answers that wait to be compared with a calculation of our own.

    An answer mixes calibrators if its probabilities are not those that the calibrator it names
    gives, or if a revision names two pairs.
    """

    def __init__(self) -> None:
        self._waiting: list[_Observed] = []
        self._pairs: dict[int, set[tuple[int, str]]] = {}
        self._calibrators: dict[tuple[int, str], Calibrator] = {}
        self._lock = threading.Lock()
        self.compared = 0

    def add(self, logits: NDArray[np.float32], answer: Prediction | PartialPrediction) -> None:
        """Keep an answer, as far as memory allows."""
        rows = max(1, NUMBERS // logits.shape[1])
        seen = _Observed(
            answer.version, answer.calibrator, logits[:rows], answer.probabilities[:rows]
        )
        with self._lock:
            self._waiting.append(seen)
            if answer.revision is not None:
                pair = answer.version, answer.calibrator
                self._pairs.setdefault(answer.revision, set()).add(pair)

    def differences(self, client: Client, model: str) -> Iterable[str]:
        """A sentence for each answer that disagrees; the answers are forgotten."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        wrong = 0
        for each in waiting:
            calibrator = self._calibrator(each.version, each.calibrator, client, model)
            wanted = calibrator.predict_proba(each.logits)
            wrong += not np.allclose(wanted, each.probabilities, rtol=0, atol=AGREE_TO)
        self.compared += len(waiting)
        if wrong:
            yield f"{wrong} answers do not have the probabilities of the calibrator that they name"
        yield from self._wrong_revisions(lambda: client.promotions(model))

    def _wrong_revisions(self, history: Callable[[], Iterable[PromotionSummary]]) -> Iterable[str]:
        promoted = {row.revision: (row.version, row.calibrator) for row in history()}
        with self._lock:
            pairs = {revision: set(each) for revision, each in self._pairs.items()}
        for revision, named in sorted(pairs.items()):
            if named != {promoted.get(revision)}:
                yield (
                    f"answers of revision {revision} name {sorted(named)}, "
                    f"the history has {promoted.get(revision)}"
                )

    def _calibrator(self, version: int, name: str, client: Client, model: str) -> Calibrator:
        if (version, name) not in self._calibrators:
            self._calibrators[version, name] = client.calibrator(model, name, version=version)
        return self._calibrators[version, name]
