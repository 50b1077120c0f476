"""The requests of a soak: what users, monitoring and the mistaken send."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np
from PIL import Image

from benchmarks.crash.label_traffic import LabelTraffic, drawn_labels
from benchmarks.torture.answers import ObservedAnswers
from benchmarks.torture.operator import Operator
from benchmarks.torture.own_service import MODEL, N_CLASSES
from trueprob.client import Client

__all__ = ["PICTURE_CLASSES", "PICTURE_MODEL", "BadRequest", "Mix", "Sender", "bad_requests"]

PICTURE_MODEL: Final = "digits"
PICTURE_CLASSES: Final = 10
PICTURES: Final = 4  # of a request
SIDE: Final = 8  # pixels
ROWS: Final = 10  # of a batch
FIELDS: Final = ("logits", "probabilities", "prediction", "confidence", "prediction_ids")


@dataclass(frozen=True)
class BadRequest:
    """A request that must be refused, and with which status."""

    status: int
    method: str
    path: str
    content: bytes = b""
    media_type: str = "application/json"


@dataclass(frozen=True)
class Sender:
    """What a thread sends requests with."""

    client: Client
    raw: httpx.Client  # for what the client does not offer
    rng: np.random.Generator


Work = Callable[[Sender], object]


def bad_requests(model: str) -> Sequence[BadRequest]:
    """Mistakes as users make them."""
    predict, label = f"/v1/models/{model}/probabilities", f"/v1/models/{model}/labels"
    return (
        BadRequest(400, "POST", predict, b'{"logits": [[1, 2'),
        BadRequest(422, "POST", predict, b'{"logits": [[1.0, 2.0]]}'),
        BadRequest(400, "POST", predict, b'{"logits": [[1.0, NaN, 2.0]]}'),
        BadRequest(415, "POST", predict, b"hello", "text/plain"),
        BadRequest(400, "POST", predict, b"\x93NUMPY", "application/x-npy"),
        BadRequest(404, "POST", "/v1/models/nobody/probabilities", b'{"logits": [[1.0, 2.0]]}'),
        BadRequest(405, "DELETE", predict),
        BadRequest(422, "POST", label, b'{"prediction_ids": ["forged"], "labels": ["no class"]}'),
        BadRequest(428, "POST", f"/v1/models/{model}/rollback"),
        BadRequest(404, "GET", "/nowhere"),
    )


class Mix:
    """Requests of all kinds, by weights.

    Parameters
    ----------
    metrics_urls : sequence of str
        Where each replica has its metrics.
    seed : int
    faults : list of str
        What is wrong in an answer is appended to it.

    Attributes
    ----------
    labels, picture_labels : LabelTraffic
    answers, picture_answers : ObservedAnswers
    operator : Operator
    works : tuple of (weight, function of a `Sender`)
    """

    def __init__(self, metrics_urls: Sequence[str], seed: int, faults: list[str]) -> None:
        self.answers, self.picture_answers = ObservedAnswers(), ObservedAnswers()
        self.labels = LabelTraffic(
            MODEL, N_CLASSES, faults, draw=drawn_labels, observe=self.answers.add, rows=ROWS
        )
        self.picture_labels = LabelTraffic(
            PICTURE_MODEL, PICTURE_CLASSES, faults, draw=drawn_labels, with_rows=False
        )
        self.operator = Operator(MODEL, N_CLASSES, seed)
        self._metrics_urls = metrics_urls
        self._faults = faults
        self._operating = threading.Lock()
        self._bad = bad_requests(MODEL)
        self.works: tuple[tuple[float, Work], ...] = (
            (30, lambda each: self.labels.predict(each.client, each.rng)),
            (15, lambda each: self.labels.predict(each.client, each.rng, binary=True)),
            (15, lambda each: self.labels.send_batch(each.client, each.rng)),
            (15, lambda each: self._pictures(each.client, each.rng)),
            (10, lambda each: self._mistake(each.raw, each.rng)),
            (5, lambda each: self._look(each.client, each.raw)),
            (4, lambda each: self._scrape(each.raw)),
            (2, lambda each: self._operate(each.client)),
        )

    def _pictures(self, client: Client, rng: np.random.Generator) -> None:
        pictures = []
        for _ in range(PICTURES):
            stream = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(stream, "PNG")
            pictures.append(stream.getvalue())
        answer = client.predict_fields(PICTURE_MODEL, FIELDS, images=pictures)
        assert answer.logits is not None
        self.picture_answers.add(answer.logits, answer)
        self.picture_labels.label(client, answer, rng)

    def _mistake(self, raw: httpx.Client, rng: np.random.Generator) -> None:
        bad = self._bad[int(rng.integers(len(self._bad)))]
        headers = {"content-type": bad.media_type} if bad.content else {}
        answer = raw.request(bad.method, bad.path, content=bad.content, headers=headers)
        if answer.status_code != bad.status:
            self._faults.append(
                f"{bad.method} {bad.path} with {bad.content[:40]!r} was answered with "
                f"{answer.status_code}, not {bad.status}"
            )

    def _look(self, client: Client, raw: httpx.Client) -> None:
        for path in ("/", "/v2/health/live", f"/v2/models/{PICTURE_MODEL}"):
            raw.get(path).raise_for_status()
        if not client.readiness()["ready"]:
            self._faults.append("the service said that it is not ready")
        client.calibration(MODEL)
        client.models()

    def _scrape(self, raw: httpx.Client) -> None:
        for url in self._metrics_urls:
            raw.get(f"{url}/metrics").raise_for_status()

    def _operate(self, client: Client) -> None:
        # One at a time: several would refuse one another's revisions.
        if self._operating.acquire(blocking=False):
            try:
                self.operator.act(client)
            finally:
                self._operating.release()
