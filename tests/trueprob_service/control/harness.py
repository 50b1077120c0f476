"""A control plane with its routes, on a real database, and a clock that the test sets."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray

from trueprob.errors import TrueprobError
from trueprob_service.control.api import create_router
from trueprob_service.control.fitting.process import JobRunner
from trueprob_service.control.fitting.worker import Job, JobResult, run
from trueprob_service.control.plane import ControlPlane
from trueprob_service.edge.problems import problem_for
from trueprob_service.errors import ServiceError
from trueprob_service.inference.answer import compute
from trueprob_service.inference.deployment import Deployment, ServedVersion
from trueprob_service.inference.deployments import Deployments
from trueprob_service.inference.identified import remember
from trueprob_service.receipts.receipt import input_digests
from trueprob_service.settings import Settings

START = 1_800_000_000.0
NPZ = {"content-type": "application/x-npz"}
WAIT = {"prefer": "wait=60"}
SECRET = "of every test on PostgreSQL"


@dataclass
class Clock:
    """A clock whose time the test sets, in seconds since 1970."""

    now: float = START

    def __call__(self) -> float:
        return self.now


class BlockNetwork:
    """A network that tests can compute themselves: logits are the means of an image's rows."""

    failure = None

    async def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return block_logits(images)

    def close(self) -> None:
        """Nothing runs."""


class Runner:
    """What all runners of the tests share. No test cancels their jobs."""

    progress = 0.0

    def cancel(self, job: Job) -> None:
        """No job can be cancelled."""

    def close(self) -> None:
        """Nothing runs."""


class InlineRunner(Runner):
    """Fits in the thread of the queue: a process of its own takes a second to start."""

    def run(self, job: Job) -> JobResult | None:
        return run(job)


class NoMeters:
    """Measures nothing; tests set the recent rows."""

    def __init__(self, *_of: object) -> None:
        self.rows: NDArray[np.float32] | None = None

    def observe(self, *measured: object) -> None:
        """Nothing is measured."""

    def recent_logits(self) -> NDArray[np.float32] | None:
        return self.rows


@dataclass
class World:
    """A running control plane, with methods that send it requests."""

    settings: Settings
    clock: Clock
    plane: ControlPlane
    deployments: Deployments
    app: FastAPI
    counted: list[tuple[str, str, int, list[float]]] = field(default_factory=list)

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send one request, in an event loop of its own, so that several threads may call this."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                return await client.request(method, path, timeout=60, **request)

        return asyncio.run(send())

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def declare(self, model: str = "m", n_classes: int = 3) -> None:
        answer = self.call("PUT", f"/v1/models/{model}", json={"n_classes": n_classes})
        assert answer.status_code == 201, answer.text

    def upload(self, rows: bytes, query: str = "", model: str = "m", **headers: str) -> Any:
        """Upload rows and wait for the report of the fit."""
        answer = self.call(
            "POST",
            f"/v1/models/{model}/calibration-sets{query}",
            content=rows,
            headers={**NPZ, **WAIT, **headers},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    def promote(self, calibrator: str, revision: int, query: str = "") -> httpx.Response:
        return self.call(
            "POST",
            f"/v1/models/m/calibrators/{calibrator}/promote{query}",
            headers={"if-match": f'"{revision}"'},
        )

    def rollback(self, revision: int, body: object = None) -> httpx.Response:
        return self.call(
            "POST", "/v1/models/m/rollback", headers={"if-match": f'"{revision}"'}, json=body
        )

    def predict(
        self, logits: NDArray[np.float32], model: str = "m"
    ) -> tuple[Deployment, NDArray[np.float64], NDArray[np.int64], list[str]]:
        """Predict as the data plane does: deployment, confidence, prediction, prediction ids."""
        live = self.deployments.current(model)
        probabilities = live.calibrator.predict_proba(logits)
        prediction = live.calibrator.prediction(logits)
        confidence = probabilities.max(axis=1).astype(np.float64)
        assert live.revision is not None
        ids = self.plane.receipts.issue(
            model=live.served.model_digest,
            version=live.served.version,
            revision=live.revision,
            class_list=live.served.class_list_digest,
            prediction=prediction,
            confidence=confidence,
            group=input_digests(logits),
            candidate=None if live.candidate is None else live.candidate.answer(logits),
            predecessor=None if live.predecessor is None else live.predecessor.answer(logits),
        )
        return live, confidence, prediction, ids

    def predict_with_ids(
        self, logits: NDArray[np.float32], ids: Sequence[str], model: str = "m"
    ) -> list[str]:
        """Predict with ids as the data plane does; returns the prediction ids."""
        answer = compute(self.deployments.current(model), logits)
        stamp = self.plane.receipts.stamp(len(logits))
        assert self.plane.identified is not None
        remember(self.plane.identified, answer, list(ids), stamp)
        return answer.prediction_ids(self.plane.receipts, stamp)

    def label_by_id(
        self, ids: Sequence[str], labels: Sequence[Any], model: str = "m", wait: float = 0.0
    ) -> list[str]:
        """Send labels by id; returns the outcome of each."""
        body = {"ids": list(ids), "labels": list(labels)}
        answer = self.call("POST", f"/v1/models/{model}/labels?wait={wait}", json=body)
        assert answer.status_code == 200, answer.text
        outcomes = ["accepted"] * len(ids)
        for each in answer.json()["outcomes"]:
            outcomes[each["index"]] = each["outcome"]
        return outcomes

    def label(self, ids: Sequence[str], labels: Sequence[Any], model: str = "m") -> httpx.Response:
        return self.call(
            "POST",
            f"/v1/models/{model}/labels",
            json={"prediction_ids": list(ids), "labels": list(labels)},
        )


def start(
    settings: Settings,
    clock: Clock | None = None,
    *,
    job_runner: Callable[[], JobRunner] = InlineRunner,
    # Whether versions on disk have a network; or what makes it.
    network: bool | Callable[[ServedVersion], BlockNetwork] = False,
) -> World:
    """Start a control plane as the service does, with handlers of errors."""
    clock = clock or Clock()
    counted: list[tuple[str, str, int, list[float]]] = []

    def network_for(served: ServedVersion) -> BlockNetwork | None:
        if not network or served.manifest is None:
            return None
        return BlockNetwork() if network is True else network(served)

    deployments = Deployments(network_for=network_for, meters_for=NoMeters)
    plane = ControlPlane(
        settings,
        deployments=deployments,
        clock=clock,
        count_label=lambda model, outcome, n, lags: counted.append((model, outcome, n, list(lags))),
        job_runner=job_runner,
    )
    app = FastAPI()
    app.include_router(create_router(lambda: plane.services))

    async def answer(_request: Request, error: Exception) -> Response:
        problem = problem_for(error)
        return Response(problem.body, problem.status, headers=problem.headers)

    async def answer_validation(_request: Request, error: Exception) -> Response:
        return Response(str(error), 422)

    app.add_exception_handler(ServiceError, answer)
    app.add_exception_handler(TrueprobError, answer)
    app.add_exception_handler(RequestValidationError, answer_validation)
    plane.start()
    return World(settings, clock, plane, deployments, app, counted)


def settings_in(folder: Path, **more: Any) -> Settings:
    """Settings with state and models in a folder; for PostgreSQL also the secret that it needs."""
    folders: dict[str, Any] = {
        "state_dir": folder / "state",
        "model_repository": folder / "models",
    }
    if str(more.get("database_url", "")).startswith("postgresql"):
        folders["receipt_secrets"] = SECRET
    return Settings(**{**folders, **more})


def rows(
    seed: int, n: int = 600, n_classes: int = 3, sharpness: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits whose softmax at ``logits / sharpness`` is exactly right, and their labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (n, n_classes))
    draws = rng.gumbel(size=(n, n_classes))
    labels = np.argmax(logits + draws, axis=1)
    return (sharpness * logits).astype(np.float32), labels


def npz(**arrays: object) -> bytes:
    """An uploaded archive."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(values) for name, values in arrays.items()})
    return buffer.getvalue()


def overconfident(seed: int = 0, n: int = 600) -> bytes:
    """A set on which the identity calibrator is clearly overconfident."""
    logits, labels = rows(seed, n, sharpness=2.5)
    return npz(logits=logits, labels=labels)


def calibrated(seed: int = 1, n: int = 600) -> bytes:
    """A set on which the identity calibrator is right."""
    logits, labels = rows(seed, n)
    return npz(logits=logits, labels=labels)


def block_logits(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `BlockNetwork` answers for images of shape (n, k, w, 1)."""
    return (images.mean(axis=(2, 3)) / 16.0).astype(np.float32)
