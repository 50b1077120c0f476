"""A stand-in for the service, small enough to be wrong in one way only."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import IdentityCalibrator, TemperatureCalibrator, to_dict
from trueprob.scores.binned import bin_index

MODEL = "m"
NAMES = ("a", "b", "c")
LIVE, OTHER = IdentityCalibrator(3), TemperatureCalibrator(3, 2.0)


class StandIn:
    """The state of a service with one model of three classes and one live calibrator.

    Attributes
    ----------
    wrong : str
        loses, counts twice, forgets, mixes, names another, fails, foreign, promotes, refuses, or
        nothing.
    """

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.asked: Counter[str] = Counter()
        self.predicted: dict[str, tuple[float, int]] = {}  # id → confidence, prediction
        self.counted: set[str] = set()
        self.bins = np.zeros((15, 3))  # labels, sum of confidence, right ones
        self._lock = threading.Lock()

    def is_odd(self, kind: str) -> bool:
        """True for the first request of a kind and for every third after it."""
        self.asked[kind] += 1
        return self.asked[kind] % 3 == 1

    def answer(self, method: str, path: str, document: Any) -> tuple[int, Any]:
        """Status and body of an answer."""
        with self._lock:
            if path == "/v2/health/ready":
                return 200, {"ready": True, "status": "ok"}
            if path.endswith("/probabilities"):
                return self._predict(document)
            if path.endswith("/labels"):
                return self._label(document)
            if path.endswith("/calibration"):
                if self.wrong == "foreign":
                    self._count(0.9, True)
                return 200, self._calibration()
            if path.endswith("/promotions"):
                row = {**self._pair(), "cause": "factory", "promoted_at": "2026-12-01T00:00:00Z"}
                return 200, {"items": [row], "next": None}
            if "/calibrators/" in path:
                return 200, to_dict(LIVE)
            return 200, {
                **self._pair(), "n_classes": 3, "class_names": NAMES, "declared": True,
                "versions": [], "unavailable": [],
            }  # fmt: skip

    def _pair(self) -> dict[str, Any]:
        promoted = self.wrong == "promotes" and self.asked.total() > 0
        live = "temperature-2" if promoted else "identity-0"
        return {"model": MODEL, "version": 1, "calibrator": live, "revision": 1}

    def _predict(self, logits: NDArray[np.float32]) -> tuple[int, Any]:
        odd = self.is_odd("predict")
        if odd and self.wrong == "refuses":
            return 422, {"code": "invalid_request", "detail": "no"}
        calibrator = OTHER if odd and self.wrong == "mixes" else LIVE
        probabilities = calibrator.predict_proba(logits)
        prediction = np.argmax(logits, axis=1)
        confidence = np.take_along_axis(probabilities, prediction[:, None], 1)[:, 0]
        ids = [uuid.uuid4().hex for _ in logits]
        for name, sure, found in zip(ids, confidence, prediction, strict=True):
            self.predicted[name] = float(sure), int(found)
        pair = self._pair()
        if odd and self.wrong == "names another":
            pair["calibrator"] = "temperature-2"
        return 200, {
            **pair, "probabilities": probabilities.tolist(), "prediction": prediction.tolist(),
            "class": [NAMES[each] for each in prediction], "confidence": confidence.tolist(),
            "temperature": None, "prediction_ids": ids,
        }  # fmt: skip

    def _label(self, document: Any) -> tuple[int, Any]:
        odd = self.is_odd("label")
        if odd and self.wrong == "fails":
            return 500, {"code": "internal_error", "detail": "see the log"}
        accepted = 0
        for name, label in zip(document["prediction_ids"], document["labels"], strict=True):
            if name in self.counted:
                continue
            accepted += 1
            confidence, prediction = self.predicted[name]
            first = odd and accepted == 1
            if not (first and self.wrong == "forgets"):
                self.counted.add(name)
            if not (first and self.wrong == "loses"):
                self._count(confidence, prediction == label)
            if first and self.wrong == "counts twice":
                self._count(confidence, prediction == label)
        n = len(document["labels"])
        again = {"accepted": accepted, "duplicate": n - accepted, "rejected": 0, "outcomes": []}
        return 200, again

    def _count(self, confidence: float, right: bool) -> None:
        index = int(bin_index(np.array([confidence]))[0])
        self.bins[index] += (1, confidence, right)

    def _calibration(self) -> dict[str, Any]:
        bins = [
            {
                "lower": index / 15, "upper": (index + 1) / 15, "count": int(labels),
                "confidence": confidence, "correct": int(right), "variance": 0.0,
            }
            for index, (labels, confidence, right) in enumerate(self.bins.tolist())
        ]  # fmt: skip
        verdict = {
            "state": "unknown", "sentence": "", "error_low": 0.0, "error_high": 1.0, "labels": 0,
            "labels_needed": None,
        }  # fmt: skip
        nothing = dict.fromkeys(
            ("ece", "ece_floor", "drift_ratio", "expected_accuracy", "observed_accuracy")
        )
        return {
            **self._pair(), **nothing, "window": "840h", "labels": int(self.bins[:, 0].sum()),
            "verdict": verdict, "advice": "", "class_error_low": 0.0, "class_error_high": 1.0,
            "classes": [], "bins": bins, "baseline": {},
        }  # fmt: skip


@contextlib.contextmanager
def stand_in(wrong: str = "") -> Iterator[tuple[str, StandIn]]:
    """A running stand-in: its address and its state."""
    state = StandIn(wrong)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = re.sub(r"\?.*", "", self.path)
            length = int(self.headers.get("content-length", 0))
            content = self.rfile.read(length)
            if self.headers.get("content-type") == "application/x-npy":
                document = np.load(io.BytesIO(content))
            else:
                document = json.loads(content or b"null")
            status, answer = state.answer(self.command, path, document)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
