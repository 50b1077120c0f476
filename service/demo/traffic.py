"""Pictures to the service, and what was on them some requests later."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.demo.pictures import png
from trueprob.client import Client

__all__ = ["LATENESS", "REQUEST", "Traffic"]

REQUEST: Final = 16  # pictures of a request
LATENESS: Final = 8  # requests until the labels of one come


class Traffic:
    """One client's requests, each followed later by its labels.

    A label comes `LATENESS` requests after its prediction whatever the prediction was, which is
    what the promise of the alarms asks for.

    Parameters
    ----------
    client : Client
    model : str

    Attributes
    ----------
    refused : int
        Labels that the service did not count.
    """

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._owed: deque[tuple[int, tuple[str, ...], list[int]]] = deque()
        self._requests = 0
        self.refused = 0

    @property
    def owed(self) -> bool:
        """Whether labels are still to come."""
        return bool(self._owed)

    def send(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Send the labels that are due, then pictures of shape (n, 8, 8, 1)."""
        self.wait()
        answer = self._client.predict(self._model, images=[png(image) for image in images])
        if answer.prediction_ids is None:
            raise AssertionError("receipts were asked for")
        self._owed.append((self._requests + LATENESS, answer.prediction_ids, labels.tolist()))

    def wait(self) -> None:
        """Let the time of one request pass: labels come, no picture goes."""
        self._requests += 1
        while self._owed and self._owed[0][0] <= self._requests:
            _, ids, labels = self._owed.popleft()
            self.refused += len(ids) - self._client.label(self._model, ids, labels).accepted
