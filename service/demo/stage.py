"""The service that the demo plays on: whether it will do, made ready, and put back afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from trueprob.client import Client, ServiceProblem, ServiceUnreachable

__all__ = ["Stage", "set_stage", "why_not"]

NOT_FOUND: Final = 404
CLASSES: Final = 10


def why_not(client: Client, url: str, model: str) -> str | None:
    """What keeps the demo from using the service at an address; None when it will do."""
    try:
        client.readiness()  # asked once; the others are asked again where nothing answers
        found = client.model(model)
        client.metrics()
    except ServiceUnreachable:
        return f"no service answers at {url}: start one with `make run`"
    except ServiceProblem as problem:
        if problem.status != NOT_FOUND:
            return f"the service at {url} refused: {problem.detail}"
        if problem.code == "model_not_found":
            return f"the service at {url} has no model {model!r}: start one with `make run`"
        return (
            f"{url} is no service of ours, or its /metrics is on another port (TRUEPROB_REPLICAS)"
        )
    if found.n_classes != CLASSES or not any(v.live and v.network for v in found.versions):
        return f"the model {model!r} at {url} is not the demo model"
    return None


@dataclass
class Stage:
    """What the demo found and what it changed.

    Attributes
    ----------
    model : str
    revision : int
        Live before the demo.
    earlier_labels : int
        Labels of the factory calibrator that the window of ``GET …/calibration`` holds already.
    made : set of int
        Revisions that are the demo's own.
    """

    model: str
    revision: int
    earlier_labels: int = 0
    made: set[int] = field(default_factory=set)

    def put_back(self, client: Client) -> bool:
        """Make the pair live again that was; False when somebody else has promoted meanwhile."""
        live = client.calibration(self.model).revision
        if live in self.made:
            client.rollback(self.model, revision=live, to=self.revision)
        return live in self.made or live == self.revision


def set_stage(client: Client, model: str) -> Stage:
    """Let the factory calibrator be live, with statistics that begin at zero.

    Raises
    ------
    ServiceProblem, ServiceUnreachable
    """
    found, said = client.model(model), client.calibration(model)
    factory = next(
        each.calibrator
        for each in client.calibrators(model)
        if each.origin == "factory" and each.version == said.version
    )
    stage = Stage(model, said.revision)
    if found.calibrator != factory or said.labels:
        # A promotion, of the same calibrator too, is where evidence and change begin anew.
        stage.made.add(client.promote(model, factory, revision=said.revision).revision)
        stage.earlier_labels = client.calibration(model).labels
    return stage
