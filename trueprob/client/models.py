"""Models, calibrators and promotions, as flows (see `trueprob.client.flow`)."""

from __future__ import annotations

from collections.abc import Sequence

from trueprob.calibrators import Calibrator, loads_calibrator
from trueprob.client.answers import (
    CalibratorSummary,
    LivePair,
    ModelDescription,
    PromotionSummary,
    read,
)
from trueprob.client.flow import JSON, Flow, Request, address, answered, items, to_json

__all__ = [
    "calibrator",
    "calibrators",
    "declare",
    "delete_model",
    "model",
    "models",
    "promote",
    "promote_version",
    "promotions",
    "rollback",
]


def models() -> Flow[tuple[ModelDescription, ...]]:
    """Every model."""
    found = yield from items("/v1/models")
    return tuple(read(ModelDescription, item) for item in found)


def model(name: str) -> Flow[ModelDescription]:
    """One model with its live pair and its versions."""
    reply = yield from answered(Request("GET", address("v1", "models", name), again=True))
    return read(ModelDescription, reply.json())


def declare(
    name: str, *, n_classes: int | None = None, class_names: Sequence[str] | None = None
) -> Flow[ModelDescription]:
    """Declare a model whose network runs elsewhere; the same a second time changes nothing."""
    wish = {"n_classes": n_classes, "class_names": None if class_names is None else [*class_names]}
    content = to_json({key: value for key, value in wish.items() if value is not None})
    path = address("v1", "models", name)
    reply = yield from answered(Request("PUT", path, headers=JSON, content=content, again=True))
    return read(ModelDescription, reply.json())


def delete_model(name: str, *, revision: int) -> Flow[None]:
    """Delete a declared model, or one whose folder is gone, with all that belongs to it.

    ``revision`` is the live one that the decision is based on.
    """
    yield from answered(
        Request("DELETE", address("v1", "models", name), headers=_if_match(revision))
    )


def promote_version(name: str, version: int, *, revision: int) -> Flow[ModelDescription]:
    """Make a version live; ``revision`` is the live one that the decision is based on."""
    content, headers = to_json({"live_version": version}), {**JSON, **_if_match(revision)}
    path = address("v1", "models", name)
    reply = yield from answered(Request("PUT", path, headers=headers, content=content))
    return read(ModelDescription, reply.json())


def calibrators(model: str) -> Flow[tuple[CalibratorSummary, ...]]:
    """Every calibrator of a model."""
    found = yield from items(address("v1", "models", model, "calibrators"))
    return tuple(read(CalibratorSummary, item) for item in found)


def calibrator(model: str, calibrator: str, *, version: int | None = None) -> Flow[Calibrator]:
    """A calibrator itself, as ``calibrator.json`` has it, for use without the service."""
    path = address("v1", "models", model, "calibrators", calibrator)
    reply = yield from answered(Request("GET", path, {"version": version}, again=True))
    return loads_calibrator(reply.content)


def promote(
    model: str,
    calibrator: str,
    *,
    revision: int,
    version: int | None = None,
    force: bool = False,
) -> Flow[LivePair]:
    """Make a calibrator live.

    Parameters
    ----------
    model, calibrator : str
    revision : int
        The live one that the decision is based on: refused when another came first.
    version : int, optional
        The calibrator's; default: the live one.
    force : bool
        Promote one that was not admitted; the history says so.
    """
    path = address("v1", "models", model, "calibrators", calibrator, "promote")
    params = {"version": version, "force": force}
    reply = yield from answered(Request("POST", path, params, _if_match(revision)))
    return read(LivePair, reply.json())


def rollback(model: str, *, revision: int, to: int | None = None) -> Flow[LivePair]:
    """Go back to the pair of revision ``to``, or undo the last promotion.

    ``revision`` is the live one that the decision is based on.
    """
    content = None if to is None else to_json({"revision": to})
    headers = {**_if_match(revision), **({} if content is None else JSON)}
    path = address("v1", "models", model, "rollback")
    reply = yield from answered(Request("POST", path, headers=headers, content=content))
    return read(LivePair, reply.json())


def promotions(model: str) -> Flow[tuple[PromotionSummary, ...]]:
    """The history of what was live, newest first."""
    found = yield from items(address("v1", "models", model, "promotions"))
    return tuple(read(PromotionSummary, item) for item in found)


def _if_match(revision: int) -> dict[str, str]:
    return {"if-match": f'"{revision}"'}
