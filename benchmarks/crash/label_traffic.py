"""Labels and labelled rows from one client or several threads, and the ledger that they keep.

Each batch of rows is predicted, labelled through its receipts, and sent once more as rows with
labels. What got no answer, or a refusal that asks to come again, is uncertain: it is kept and sent
again.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.crash.ledger import Batch, Ledger, RowBatch
from trueprob.client import Client, Prediction

__all__ = ["ROWS", "LabelTraffic", "drawn_labels", "random_labels"]

ROWS: Final = 25  # of a batch


def random_labels(answer: Prediction, rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels that have nothing to do with the answer."""
    return rng.integers(0, answer.probabilities.shape[1], len(answer.prediction))


def drawn_labels(answer: Prediction, rng: np.random.Generator) -> NDArray[np.int64]:
    """Labels drawn from the probabilities of the answer: they find it calibrated."""
    with np.errstate(divide="ignore"):
        scores = np.log(answer.probabilities)
    return np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)


class LabelTraffic:
    """Sends batches to one model and records what was acknowledged.

    Parameters
    ----------
    model : str
    n_classes : int
    faults : list of str
        What is wrong in an answer is appended to it.
    draw : callable
        Gives the labels of an answer.
    with_rows : bool
        Whether each batch is sent as labelled rows too.
    observe : callable, optional
        Gets the logits and the answer of each batch.
    rows : int
        Of a batch.

    Attributes
    ----------
    ledger : Ledger
    """

    def __init__(
        self,
        model: str,
        n_classes: int,
        faults: list[str],
        *,
        draw: Callable[[Prediction, np.random.Generator], NDArray[np.int64]] = random_labels,
        with_rows: bool = True,
        observe: Callable[[NDArray[np.float32], Prediction], None] | None = None,
        rows: int = ROWS,
    ) -> None:
        self.ledger = Ledger(n_classes=n_classes)
        self._model = model
        self._faults = faults
        self._draw = draw
        self._with_rows = with_rows
        self._observe = observe
        self._rows = rows
        self._lock = threading.Lock()

    def predict(
        self, client: Client, rng: np.random.Generator, *, binary: bool = False
    ) -> tuple[NDArray[np.float32], Prediction]:
        """Predict new rows; the logits and the answer."""
        shape = (self._rows, self.ledger.n_classes)
        logits = rng.normal(0.0, 2.0, shape).astype(np.float32)
        answer = client.predict(self._model, logits=logits, binary=binary)
        if self._observe is not None:
            self._observe(logits, answer)
        return logits, answer

    def send_batch(self, client: Client, rng: np.random.Generator) -> None:
        """Predict, label the predictions, and send the rows with their labels too."""
        logits, answer = self.predict(client, rng)
        batch = self.label(client, answer, rng)
        if self._with_rows:
            ids = tuple(uuid.uuid4().hex for _ in batch.labels)
            self._send(client, RowBatch(ids, logits, batch.labels))

    def label(self, client: Client, answer: Prediction, rng: np.random.Generator) -> Batch:
        """Send labels of an answer."""
        batch = Batch(answer, tuple(int(label) for label in self._draw(answer, rng)))
        self._send(client, batch)
        return batch

    def send_uncertain(self, client: Client) -> None:
        """Send the labels and rows again that were not answered."""
        uncertain: list[Any]
        for uncertain in (self.ledger.uncertain, self.ledger.uncertain_rows):
            for _ in range(len(uncertain)):
                self._send(client, uncertain.pop(0), at=0)

    def _send(self, client: Client, batch: Batch | RowBatch, *, at: int | None = None) -> None:
        """Send a batch; if it is not answered, it is uncertain, at that place among its like."""
        rows = isinstance(batch, RowBatch)
        try:
            if isinstance(batch, RowBatch):
                outcomes = client.label_rows(self._model, batch.ids, batch.logits, batch.labels)
            else:
                outcomes = client.label(self._model, batch.ids, batch.labels)
        except BaseException:
            uncertain: list[Any] = self.ledger.uncertain_rows if rows else self.ledger.uncertain
            with self._lock:
                uncertain.insert(len(uncertain) if at is None else at, batch)
            raise
        n = len(batch.labels)
        with self._lock:
            if isinstance(batch, RowBatch):
                self.ledger.rows.append(batch)
                self.ledger.duplicate_rows += outcomes.duplicate
            else:
                self.ledger.acknowledged.append(batch)
                self.ledger.accepted += outcomes.accepted
                self.ledger.duplicates += outcomes.duplicate
            if outcomes.accepted + outcomes.duplicate != n:
                kinds = sorted({each.outcome for each in outcomes.outcomes})
                self._faults.append(
                    f"of {n} {'rows' if rows else 'labels'} of a batch "
                    f"{outcomes.rejected} were rejected ({', '.join(kinds)})"
                )
            elif outcomes.accepted not in (0, n):
                self._faults.append(f"of {n} labels of a batch {outcomes.accepted} were accepted")
