"""Calibration sets and fits, as flows (see `trueprob.client.flow`).

Each upload carries an Idempotency-Key of its own, so that one whose answer was lost is sent again
without a second fit or a second copy of its rows.
"""

from __future__ import annotations

import uuid
from typing import Final

from trueprob.calibration_set import CalibrationSet, load_calibration_set
from trueprob.client.answers import CalibrationSetSummary, FitSummary, read
from trueprob.client.flow import JSON, Flow, Pause, Request, address, answered, items, to_json
from trueprob.client.problems import ServiceUnreachable
from trueprob.client.rows_body import NPZ, Rows, rows_body

__all__ = [
    "append",
    "calibration_set",
    "calibration_sets",
    "cancel_fit",
    "delete_calibration_set",
    "download",
    "fit",
    "fits",
    "start_fit",
    "upload",
    "wait_for_fit",
]

LONGEST_WAIT_SECONDS: Final = 60.0  # the service's own limit of Prefer: wait
POLL_SECONDS: Final = 0.2


def upload(
    model: str,
    rows: Rows,
    *,
    method: str | None = None,
    promote: str = "auto",
    version: int | None = None,
    name: str | None = None,
    allow_prediction_change: bool | None = None,
    force: bool = False,
    wait_seconds: float = 0.0,
    idempotency_key: str | None = None,
) -> Flow[FitSummary]:
    """Store held-out rows and fit a calibrator on them.

    Parameters
    ----------
    model : str
    rows : CalibrationSet, mapping, Path or bytes
        Arrays by name: ``labels`` (indices or class names) and one of ``logits``,
        ``probabilities``, ``log_probabilities``, ``images`` (decoded, or encoded ones as bytes);
        or an ``.npz`` or ``.csv`` file, or the bytes of an ``.npz``.
    method : str, optional
        Default: the service's.
    promote : {"auto", "never", "always", "shadow"}
        What becomes of a candidate; `shadow`: admitted or not, it shadows the live pair.
    version : int, optional
        Whose rows they are; default: the live one.
    name : str, optional
        What the set is called from now on.
    allow_prediction_change : bool, optional
        Default: the service's.
    force : bool
        Fit even a very small set.
    wait_seconds : float
        How long to wait for the report, at most 60; see `wait_for_fit` for longer.
    idempotency_key : str, optional
        Default: a new one.
    """
    content, kind = rows_body(rows)
    headers = {
        "content-type": kind,
        "idempotency-key": idempotency_key or uuid.uuid4().hex,
        **_prefer(wait_seconds),
    }
    params = {
        "method": method,
        "promote": promote,
        "version": version,
        "name": name,
        "allow_prediction_change": allow_prediction_change,
        "force": force,
    }
    path = address("v1", "models", model, "calibration-sets")
    request = Request("POST", path, params, headers, content, True, wait_seconds)
    reply = yield from answered(request)
    return read(FitSummary, reply.json())


def append(
    model: str,
    name: str,
    rows: Rows,
    *,
    version: int | None = None,
    idempotency_key: str | None = None,
) -> Flow[CalibrationSetSummary]:
    """Add rows to the set of this name, which the first rows make; nothing is fitted.

    Parameters
    ----------
    model, name : str
    rows, version, idempotency_key
        As for `upload`.
    """
    content, kind = rows_body(rows)
    headers = {"content-type": kind, "idempotency-key": idempotency_key or uuid.uuid4().hex}
    path = address("v1", "models", model, "calibration-sets", name, "rows")
    reply = yield from answered(
        Request("POST", path, {"version": version}, headers, content, again=True)
    )
    return read(CalibrationSetSummary, reply.json())


def calibration_sets(
    model: str, *, name: str | None = None
) -> Flow[tuple[CalibrationSetSummary, ...]]:
    """Every stored set of a model, or the one that a name means."""
    found = yield from items(address("v1", "models", model, "calibration-sets"), {"name": name})
    return tuple(read(CalibrationSetSummary, item) for item in found)


def calibration_set(model: str, digest: str) -> Flow[CalibrationSetSummary]:
    """One set, by digest or name."""
    reply = yield from answered(Request("GET", _set(model, digest), again=True))
    return read(CalibrationSetSummary, reply.json())


def download(model: str, digest: str) -> Flow[CalibrationSet]:
    """The rows of a set, by digest or name."""
    request = Request("GET", _set(model, digest), headers={"accept": NPZ}, again=True)
    reply = yield from answered(request)
    return load_calibration_set(reply.content)


def delete_calibration_set(model: str, digest: str) -> Flow[None]:
    """Delete a set that nothing uses, by digest or name."""
    yield from answered(Request("DELETE", _set(model, digest)))


def start_fit(
    model: str,
    calibration_set: str | None = None,
    *,
    source: str | None = None,
    method: str | None = None,
    promote: str = "auto",
    version: int | None = None,
    allow_prediction_change: bool | None = None,
    force: bool = False,
    wait_seconds: float = 0.0,
    idempotency_key: str | None = None,
) -> Flow[FitSummary]:
    """Fit a calibrator on a stored set, by digest or name; the rest is as for `upload`.

    With ``source="refit-window"`` in place of a set: on the rows that came with labels.
    """
    wish = {
        "calibration_set": calibration_set,
        "source": source,
        "method": method,
        "promote": promote,
        "version": version,
        "allow_prediction_change": allow_prediction_change,
        "force": force,
    }
    content = to_json({key: value for key, value in wish.items() if value is not None})
    key = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
    headers = {**JSON, **key, **_prefer(wait_seconds)}
    path = address("v1", "models", model, "fits")
    request = Request("POST", path, {}, headers, content, True, wait_seconds)
    reply = yield from answered(request)
    return read(FitSummary, reply.json())


def fits(model: str) -> Flow[tuple[FitSummary, ...]]:
    """Every fit of a model."""
    found = yield from items(address("v1", "models", model, "fits"))
    return tuple(read(FitSummary, item) for item in found)


def fit(model: str, fit: str) -> Flow[FitSummary]:
    """Where a fit stands and what came of it."""
    request = Request("GET", address("v1", "models", model, "fits", fit), again=True)
    return read(FitSummary, (yield from answered(request)).json())


def wait_for_fit(model: str, fit: str, *, seconds: float) -> Flow[FitSummary]:
    """Ask for a fit until it has ended.

    Raises
    ------
    ServiceUnreachable
        It had not ended after this time.
    """
    asked, pause = 0.0, POLL_SECONDS
    while True:
        request = Request("GET", address("v1", "models", model, "fits", fit), again=True)
        found = read(FitSummary, (yield from answered(request)).json())
        if found.ended:
            return found
        if asked >= seconds:
            raise ServiceUnreachable(f"fit {fit} is still {found.state} after {seconds:g} s")
        yield Pause(pause)
        asked, pause = asked + pause, min(2 * pause, 2.0)


def cancel_fit(model: str, fit: str) -> Flow[FitSummary]:
    """Give up a fit that waits or runs."""
    request = Request("DELETE", address("v1", "models", model, "fits", fit), again=True)
    return read(FitSummary, (yield from answered(request)).json())


def _set(model: str, digest: str) -> str:
    return address("v1", "models", model, "calibration-sets", digest)


def _prefer(wait_seconds: float) -> dict[str, str]:
    if wait_seconds <= 0:
        return {}
    return {"prefer": f"wait={min(wait_seconds, LONGEST_WAIT_SECONDS):.0f}"}
