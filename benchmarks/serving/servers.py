"""The interface of a server; the service itself and the bare ASGI application."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.serving.cases import STAGE, Case, npy, read_npy
from benchmarks.serving.load import Request
from benchmarks.serving.processes import Running, running
from benchmarks.serving.stage import Stage

APPLICATIONS = "benchmarks.serving.applications"
JSON, NPY = "application/json", "application/x-npy"
Asked = Callable[[Case], Request | None]
Answer = Callable[[bytes, Case], NDArray[Any]]


@dataclass(frozen=True)
class Server:
    """One server.

    Attributes
    ----------
    name : str
        In the tables.
    command : callable
        ``(python, port, stage) -> command line``.
    request : callable
        ``case -> Request``, None where it has no such form.
    probabilities : callable
        From the body of an answer, so that it is compared with the library's.
    environment : str or None
        Of `environments`; None: the one that runs the benchmark.
    ready : str
        Path that answers when it is ready.
    more : mapping
        Other rows of the table from the same process: name to its request.
    """

    name: str
    command: Callable[[str, int, Stage], Sequence[str]]
    request: Asked
    probabilities: Answer
    environment: str | None = None
    ready: str = "/v2/health/ready"
    more: dict[str, Asked] = field(default_factory=dict)

    def rows(self, stage: Stage) -> dict[str, Asked]:
        """Every row of the table that this process fills; a request carries the key."""

        def keyed(asked: Asked) -> Asked:
            def request(case: Case) -> Request | None:
                found = asked(case)
                return None if found is None else found.with_key(stage.key)

            return request

        return {
            name: keyed(asked) for name, asked in {self.name: self.request, **self.more}.items()
        }

    def running(
        self, python: str, stage: Stage, *more: str, cores: Collection[int] = ()
    ) -> AbstractContextManager[Running]:
        """Start it; `more` is added to its command line."""
        return running(
            lambda port: [*self.command(python, port, stage), *more],
            ready=self.ready,
            environment={STAGE: str(stage.folder)},
            cores=cores,
        )


def own_command(python: str, port: int, stage: Stage) -> list[str]:
    """The service itself, with a key file; metrics are always on."""
    return [
        python, "-m", "trueprob_service", "serve", "--port", str(port), "--model-repository",
        str(stage.models), "--state-dir", str(stage.folder / "state"), "--api-keys-file",
        str(stage.keys),
    ]  # fmt: skip


def own_request(case: Case, *, receipts: bool = False) -> Request | None:
    path = f"/v1/models/{case.model}/probabilities?receipts={str(receipts).lower()}"
    if not case.binary:
        return Request(path, json_body({"logits": case.rows}), {"Content-Type": JSON})
    if receipts:
        return None  # an .npy answer is the probabilities alone
    return Request(path, npy(case.logits), {"Content-Type": NPY, "Accept": NPY})


def json_body(document: object) -> bytes:
    return orjson.dumps(document)


def by_content(body: bytes, case: Case) -> NDArray[Any]:
    return read_npy(body) if case.binary else np.asarray(orjson.loads(body)["probabilities"])


def module(name: str) -> Callable[[str, int, Stage], list[str]]:
    return lambda python, port, _: [python, "-m", f"{APPLICATIONS}.{name}", str(port)]


OURS = Server(
    "**Trueprob**",
    own_command,
    own_request,
    by_content,
    more={"**Trueprob**, receipts on": lambda case: own_request(case, receipts=True)},
)
BARE = Server("bare ASGI", module("bare"), own_request, by_content)
