"""A deployment that is not ours: only its HTTP API is used, with a key for predict and label."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import httpx

from benchmarks.crash.ledger import Totals, differences
from trueprob.client import Client, ServiceProblem, ServiceUnreachable

__all__ = ["CannotTest", "Deployment"]

WINDOW: Final = "840h"  # hourly bins are kept for so long
BINS: Final = 15


class CannotTest(Exception):
    """The deployment or the model cannot be tested; the message says why."""


class Deployment:
    """A running service behind one or several addresses.

    Parameters
    ----------
    urls : sequence of str
        Of a proxy, or of each replica.
    model : str
        A model that nobody else labels or promotes during the test.
    key : str, optional
        With the scopes predict and label.
    quiet_seconds : float
        How long the totals must not move before the test.

    Attributes
    ----------
    n_classes : int
    before : mapping
        Totals before the first label.

    Raises
    ------
    CannotTest
        No such model, no answer, or somebody else sends labels.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        key: str | None = None,
        *,
        quiet_seconds: float,
    ) -> None:
        self.urls = tuple(urls)
        self.model = model
        self._key = key
        self._clients = [Client(url, key=key, timeout_seconds=5) for url in urls]
        try:
            self._begin(quiet_seconds)
        except BaseException as error:
            self.close()
            if isinstance(error, ServiceProblem | ServiceUnreachable):
                raise CannotTest(f"model {model!r} at {urls[0]}: {error}") from error
            raise

    def _begin(self, quiet_seconds: float) -> None:
        described = self._clients[0].model(self.model)
        if described.n_classes is None:
            raise CannotTest(f"no version of model {self.model!r} can be served")
        self.n_classes = described.n_classes
        self._live = described.version, described.calibrator
        self.before = self._totals()
        time.sleep(quiet_seconds)
        if more := list(differences(self.before, self._totals())):
            raise CannotTest(
                f"somebody else labels model {self.model!r} ({more[0]}): declare a model for this "
                "test, as in PUT /v1/models/torture"
            )

    def connect(self, index: int, transport: httpx.BaseTransport | None = None) -> Client:
        """A client; the index chooses among several addresses."""
        url = self.urls[index % len(self.urls)]
        return Client(url, key=self._key, timeout_seconds=10, transport=transport)

    def readiness(self) -> list[str]:
        """What each address says: ok, degraded and why, or no answer."""
        said = []
        for client in self._clients:
            try:
                document = client.readiness()
            except ServiceUnreachable:
                said.append("no answer")
            except ServiceProblem as problem:
                said.append(str(problem.status))
            else:
                faults = {reason["fault"] for reason in document.get("reasons", ())}
                said.append(" ".join([str(document.get("status", "ok")), *sorted(faults)]))
        return said

    def totals(self, wanted: Totals) -> Totals:
        """The totals of the live calibrator.

        Raises
        ------
        CannotTest
            Another pair went live since the start.
        """
        del wanted  # they are fresh in any case
        return self._totals()

    def _totals(self) -> Totals:
        now = self._clients[0].calibration(self.model, WINDOW)
        if (now.version, now.calibrator) != self._live:
            raise CannotTest(
                f"version {now.version}, {now.calibrator} went live during the test: nobody else "
                "may promote on this model"
            )
        return {
            (now.calibrator, round(BINS * each["lower"])): (
                float(each["count"]), float(each["confidence"]), float(each["correct"])
            )
            for each in now.bins
            if each["count"]
        }  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()
