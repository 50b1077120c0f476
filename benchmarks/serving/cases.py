"""The four bodies of logits, and the work that every server does with them."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import loads_calibrator

STAGE = "SERVING_BENCH_STAGE"  # the variable that tells an application where the calibrators are


@dataclass(frozen=True)
class Case:
    """A body: n rows of k logits as JSON or in a binary form."""

    n: int
    k: int
    binary: bool

    @property
    def name(self) -> str:
        return f"{self.n} × {self.k} {'binary' if self.binary else 'JSON'}"

    @property
    def model(self) -> str:
        return model_name(self.k)

    @property
    def logits(self) -> NDArray[np.float32]:
        """Three decimals, as people send them: JSON is not made longer than it is."""
        generator = np.random.default_rng(self.n + self.k)
        drawn = 3.0 * generator.standard_normal((self.n, self.k))
        return np.round(drawn, 3).astype(np.float32)

    @property
    def rows(self) -> list[list[float]]:
        return [[round(float(value), 3) for value in row] for row in self.logits]


CASES = (
    Case(1, 10, binary=False),
    Case(256, 1000, binary=False),
    Case(256, 1000, binary=True),
    Case(4096, 10, binary=True),
)
CLASSES = (10, 1000)


def model_name(k: int) -> str:
    return f"logits{k}"


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def read_npy(body: bytes) -> NDArray[Any]:
    return np.load(io.BytesIO(body), allow_pickle=False)


class Work:
    """The work of a prediction in NumPy and the fields of its answer, for the other servers.

    Parameters
    ----------
    k : int
        Classes; the calibrator is the one in the stage folder, the service's own.
    """

    def __init__(self, k: int) -> None:
        path = Path(os.environ[STAGE]) / "calibrators" / f"{k}.json"
        self.calibrator = loads_calibrator(path.read_bytes())
        self._first = {
            "model": model_name(k),
            "version": 1,
            "calibrator": self.calibrator.id,
            "revision": 1,
        }
        self._class_names = [str(index) for index in range(k)]

    def probabilities(self, logits: Any) -> NDArray[np.float32]:
        """All that a binary answer holds."""
        return self.calibrator.predict_proba(np.asarray(logits, np.float32))

    def arrays(self, logits: Any) -> dict[str, NDArray[Any] | None]:
        """What a JSON answer holds."""
        logits = np.asarray(logits, np.float32)
        probabilities = self.calibrator.predict_proba(logits)
        prediction = self.calibrator.prediction(logits)
        temperature = self.calibrator.temperature(logits)
        return {
            "probabilities": probabilities,
            "prediction": prediction,
            "confidence": probabilities[np.arange(len(logits)), prediction],
            "temperature": None if temperature is None else temperature.astype(np.float32),
        }

    def fields(self, logits: Any) -> dict[str, Any]:
        """The service's JSON answer without receipts; arrays stay arrays."""
        arrays = self.arrays(logits)
        names = self._class_names
        return {
            **self._first,
            "probabilities": arrays["probabilities"],
            "prediction": arrays["prediction"],
            "class": [names[index] for index in arrays["prediction"]],
            "confidence": arrays["confidence"],
            "temperature": arrays["temperature"],
        }


def all_work() -> dict[str, Work]:
    """Cases by model name."""
    return {model_name(k): Work(k) for k in CLASSES}
