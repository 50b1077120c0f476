"""Candidates in the shadow of the live pair, as flows (see `trueprob.client.flow`)."""

from __future__ import annotations

from dataclasses import dataclass

from trueprob.client.answers import LivePair, read
from trueprob.client.flow import JSON, Flow, Request, address, answered, to_json

__all__ = ["ShadowSummary", "end_shadow", "shadow", "start_shadow"]


@dataclass(frozen=True)
class ShadowSummary(LivePair):
    """A candidate beside the live pair of this revision; ``promoted`` is what it became."""

    state: str
    policy: str
    labels: int
    better_log10: float
    worse_log10: float
    threshold_log10: float
    alpha: float
    promoted: int | None
    started_at: str
    started_by: str | None
    ended_at: str | None


def shadow(model: str) -> Flow[ShadowSummary]:
    """Evidence both ways of what shadows the model, or did last."""
    reply = yield from answered(Request("GET", _address(model), again=True))
    return read(ShadowSummary, reply.json())


def start_shadow(model: str, calibrator: str, *, policy: str | None = None) -> Flow[ShadowSummary]:
    """Compare a calibrator of the live version with what is live, on the labels to come.

    Parameters
    ----------
    model, calibrator : str
    policy : {"act", "tell"}, optional
        Promote or drop it by the evidence, or only say so; default: the service's.
    """
    body = to_json({"calibrator": calibrator} | ({} if policy is None else {"policy": policy}))
    request = Request("PUT", _address(model), headers=JSON, content=body, again=True)
    reply = yield from answered(request)
    return read(ShadowSummary, reply.json())


def end_shadow(model: str) -> Flow[None]:
    """Stop comparing; what was found until then can still be read."""
    yield from answered(Request("DELETE", _address(model)))


def _address(model: str) -> str:
    return address("v1", "models", model, "shadow")
