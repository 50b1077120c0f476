"""The client that blocks; ``async_client.py`` is generated from this file.

After a change run ``python -m tests.trueprob.client.generate``. The file is long because every
route of the service is a method whose parameters are described where `help` shows them.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from numpy.typing import ArrayLike

from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set
from trueprob.calibrators import Calibrator, loads_calibrator
from trueprob.client.answers import (
    AlarmSummary,
    Calibration,
    CalibrationSetSummary,
    CalibratorSummary,
    FitSummary,
    LabelOutcomes,
    LivePair,
    ModelDescription,
    PartialPrediction,
    Prediction,
    PromotionSummary,
    ShadowSummary,
    combined,
    partial_prediction_from,
    prediction_from,
    read,
    value_of,
)
from trueprob.client.requests import (
    NPZ,
    CalibrationRows,
    ClassLabels,
    get,
    if_match,
    json_request,
    label_requests,
    model_path,
    prediction_request,
    row_label_requests,
    rows_request,
)
from trueprob.client.transport import HttpRequest, ServiceConnection, ServiceUnreachable

__all__ = ["Client"]

T = TypeVar("T")
FIRST_POLL_SECONDS = 0.2
LONGEST_POLL_SECONDS = 2.0


class Client:
    """A client of a running service, to be used in a ``with`` block or closed.

    Parameters
    ----------
    url : str
        Where the service listens: ``http://127.0.0.1:8000``.
    key : str, optional
        An API key.
    timeout_seconds : float
        For connecting, and between two pieces of an answer.
    verify : bool or ssl.SSLContext
        Whose certificates are trusted, for https.
    transport : httpx.BaseTransport, optional
        What carries requests, in place of the network.

    Raises
    ------
    InvalidInput
        From any method: an argument cannot be sent.
    ServiceProblem
        From any method: the service refused the request.
    ServiceUnreachable
        From any method: there was no answer.

    Notes
    -----
    A request that does no harm when it is sent twice is tried four times while the service does
    not answer or answers 503. Promotions, rollbacks and deletions are sent once.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8000") as client:
    ...     answer = client.predict("digits", logits=logits)
    ...     client.label("digits", answer.prediction_ids, labels)
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float = 60.0,
        verify: bool | ssl.SSLContext = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = ServiceConnection(
            url, key=key, timeout_seconds=timeout_seconds, verify=verify, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Predictions and labels

    def predict(
        self,
        model: str,
        *,
        logits: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        log_probabilities: ArrayLike | None = None,
        images: Sequence[bytes] | None = None,
        version: int | None = None,
        receipts: bool = True,
        binary: bool = False,
    ) -> Prediction:
        """Calibrated probabilities of logits, probabilities, their logarithms, or images.

        Parameters
        ----------
        model : str
        logits, probabilities, log_probabilities : array_like of shape (n, k), optional
            What the classifier computed; exactly one of these or `images`.
        images : sequence of bytes, optional
            PNG, JPEG or WebP files, for a model whose network the service runs.
        version : int, optional
            Default: the live one.
        receipts : bool
            Whether the answer carries prediction ids, which `label` needs.
        binary : bool
            Ask for the answer as an ``.npz``: the same numbers, quicker for many rows.

        Returns
        -------
        Prediction
        """
        inputs = {
            "logits": logits,
            "probabilities": probabilities,
            "log_probabilities": log_probabilities,
        }
        params = {"version": version, "receipts": receipts}
        request = prediction_request(model, inputs, images, params, binary=binary)
        return prediction_from(self._connection.send(request))

    def predict_fields(
        self,
        model: str,
        fields: Sequence[str] | None = None,
        *,
        top: int | None = None,
        logits: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        log_probabilities: ArrayLike | None = None,
        images: Sequence[bytes] | None = None,
        version: int | None = None,
        binary: bool = False,
    ) -> PartialPrediction:
        """Chosen fields of a prediction: a part of what `predict` gives, or more than that.

        Parameters
        ----------
        model : str
        fields : sequence of str, optional
            Of ``probabilities``, ``prediction``, ``class``, ``confidence``, ``temperature``,
            ``prediction_ids`` (asks for receipts), ``logit_gap``, ``logits`` and, beside `top`,
            ``top_indices``, ``top_classes``, ``top_probabilities``. Default: what `predict` has
            without receipts, `top` in place of the probabilities.
        top : int, optional
            How many of the likeliest classes.
        logits, probabilities, log_probabilities, images, version, binary
            As for `predict`.

        Returns
        -------
        PartialPrediction
        """
        inputs = {
            "logits": logits,
            "probabilities": probabilities,
            "log_probabilities": log_probabilities,
        }
        params: dict[str, Any] = {"version": version, "top": top}
        if fields is None:
            params["receipts"] = False
        else:
            params["return"] = ",".join(fields)
        request = prediction_request(model, inputs, images, params, binary=binary)
        return partial_prediction_from(self._connection.send(request))

    def label(
        self, model: str, prediction_ids: Sequence[str], labels: ClassLabels
    ) -> LabelOutcomes:
        """Send labels of earlier predictions; each counts once, however often it is sent.

        Parameters
        ----------
        model : str
        prediction_ids : sequence of str
            From `Prediction.prediction_ids`.
        labels : sequence of int or str
            As many; class indices or class names.

        Returns
        -------
        LabelOutcomes

        Raises
        ------
        ServiceProblem, ServiceUnreachable
            Of more than 100 000 labels, earlier requests may have been counted. All may be sent
            again.
        """
        total = LabelOutcomes(0, 0, 0, ())
        for start, request in label_requests(model, prediction_ids, labels):
            part = read(LabelOutcomes, self._connection.send(request))
            total = combined(total, part, start)
        return total

    def label_rows(
        self,
        model: str,
        ids: Sequence[str],
        logits: ArrayLike,
        labels: ClassLabels,
        *,
        groups: ClassLabels | None = None,
        version: int | None = None,
    ) -> LabelOutcomes:
        """Send labels with their logits, to be fitted on; each id counts once.

        Parameters
        ----------
        model : str
        ids : sequence of str
            Your names for the rows.
        logits : array_like of shape (n, k)
            What the classifier computed.
        labels : sequence of int or str
            Class indices or class names.
        groups : sequence of int or str, optional
            Shared by rows that are not independent.
        version : int, optional
            Whose logits they are; default: the live one at each request.

        Returns
        -------
        LabelOutcomes

        Raises
        ------
        ServiceProblem, ServiceUnreachable
            Of many rows, earlier requests may have been taken. All may be sent again.
        """
        total = LabelOutcomes(0, 0, 0, ())
        for start, request in row_label_requests(model, ids, logits, labels, groups, version):
            part = read(LabelOutcomes, self._connection.send(request))
            total = combined(total, part, start)
        return total

    # Calibration over time

    def calibration(self, model: str, window: str = "24h") -> Calibration:
        """What the labels of a window say about the live pair.

        Parameters
        ----------
        model : str
        window : str
            Hours or days: ``24h``, ``7d``.

        Returns
        -------
        Calibration
        """
        request = get(model_path(model, "calibration"), {"window": window})
        return read(Calibration, self._connection.send(request))

    def alarms(self, model: str) -> tuple[AlarmSummary, ...]:
        """Every alarm that was raised, newest first.

        Parameters
        ----------
        model : str

        Returns
        -------
        tuple of AlarmSummary
        """
        return self._list(AlarmSummary, model_path(model, "alarms"))

    def acknowledge(self, model: str, alarm: str) -> AlarmSummary:
        """Say that an alarm is known: change starts again at 0. A second time changes nothing.

        Parameters
        ----------
        model : str
        alarm : str
            Its `AlarmSummary.id`.

        Returns
        -------
        AlarmSummary
        """
        path = model_path(model, "alarms", alarm, "acknowledge")
        request = HttpRequest("POST", path, retry=True)
        return read(AlarmSummary, self._connection.send(request))

    # Models and versions

    def models(self) -> tuple[ModelDescription, ...]:
        """Every model.

        Returns
        -------
        tuple of ModelDescription
        """
        return self._list(ModelDescription, "/v1/models")

    def model(self, name: str) -> ModelDescription:
        """One model with its live pair and its versions.

        Parameters
        ----------
        name : str

        Returns
        -------
        ModelDescription
        """
        return read(ModelDescription, self._connection.send(get(model_path(name))))

    def declare(
        self,
        name: str,
        *,
        n_classes: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> ModelDescription:
        """Declare a model whose network runs elsewhere; the same a second time changes nothing.

        Parameters
        ----------
        name : str
        n_classes : int, optional
            Needed without `class_names`.
        class_names : sequence of str, optional
            In the order of the columns of its logits.

        Returns
        -------
        ModelDescription
        """
        names = None if class_names is None else list(class_names)
        document = {"n_classes": n_classes, "class_names": names}
        request = json_request("PUT", model_path(name), document, retry=True)
        return read(ModelDescription, self._connection.send(request))

    def promote_version(self, name: str, version: int, *, revision: int) -> ModelDescription:
        """Make a version live.

        Parameters
        ----------
        name : str
        version : int
            What becomes live.
        revision : int
            The live one that the decision is based on: refused when another came first.

        Returns
        -------
        ModelDescription
        """
        document = {"live_version": version}
        request = json_request("PUT", model_path(name), document, headers=if_match(revision))
        return read(ModelDescription, self._connection.send(request))

    def delete_model(self, name: str, *, revision: int) -> None:
        """Delete a declared model, or one whose folder is gone, with all that belongs to it.

        Parameters
        ----------
        name : str
        revision : int
            The live one that the decision is based on: refused when another came first.
        """
        request = HttpRequest("DELETE", model_path(name), headers=if_match(revision))
        self._connection.send(request)

    # Calibration sets

    def upload(
        self,
        model: str,
        rows: CalibrationRows,
        *,
        method: str | None = None,
        promote: str = "auto",
        version: int | None = None,
        name: str | None = None,
        allow_prediction_change: bool | None = None,
        force: bool = False,
        wait_seconds: float = 0.0,
    ) -> FitSummary:
        """Store held-out rows and fit a calibrator on them; the same rows again are the same set.

        Parameters
        ----------
        model : str
        rows : CalibrationSet, mapping, Path or bytes
            Arrays by name: ``labels`` (indices or class names) and one of ``logits``,
            ``probabilities``, ``log_probabilities``, ``images`` (decoded, or encoded ones as
            bytes); or an ``.npz`` or ``.csv`` file, or the bytes of an ``.npz``.
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

        Returns
        -------
        FitSummary
        """
        params = {
            "method": method,
            "promote": promote,
            "version": version,
            "name": name,
            "allow_prediction_change": allow_prediction_change,
            "force": force,
        }
        path = model_path(model, "calibration-sets")
        request = rows_request(path, rows, params, wait_seconds=wait_seconds)
        return read(FitSummary, self._connection.send(request))

    def append(
        self, model: str, name: str, rows: CalibrationRows, *, version: int | None = None
    ) -> CalibrationSetSummary:
        """Add rows to the set of this name, which the first rows make; nothing is fitted.

        Rows that it holds already, all of them in a run and in their order, are not added again.

        Parameters
        ----------
        model, name : str
            Of the model, of the set.
        rows : CalibrationSet, mapping, Path or bytes
            As for `upload`.
        version : int, optional
            Whose rows they are; default: the live one.

        Returns
        -------
        CalibrationSetSummary
        """
        path = model_path(model, "calibration-sets", name, "rows")
        request = rows_request(path, rows, {"version": version})
        return read(CalibrationSetSummary, self._connection.send(request))

    def calibration_sets(
        self, model: str, *, name: str | None = None
    ) -> tuple[CalibrationSetSummary, ...]:
        """Every stored set of a model, or the one that a name means.

        Parameters
        ----------
        model : str
        name : str, optional
            Name of the set.

        Returns
        -------
        tuple of CalibrationSetSummary
        """
        path = model_path(model, "calibration-sets")
        return self._list(CalibrationSetSummary, path, {"name": name})

    def calibration_set(self, model: str, digest: str) -> CalibrationSetSummary:
        """One set.

        Parameters
        ----------
        model : str
        digest : str
            Digest or name of the set.

        Returns
        -------
        CalibrationSetSummary
        """
        request = get(model_path(model, "calibration-sets", digest))
        return read(CalibrationSetSummary, self._connection.send(request))

    def download(self, model: str, digest: str) -> CalibrationSet:
        """The rows of a set.

        Parameters
        ----------
        model : str
        digest : str
            Digest or name of the set.

        Returns
        -------
        CalibrationSet
        """
        request = get(model_path(model, "calibration-sets", digest), accept=NPZ)
        response = self._connection.send(request)
        return load_calibration_set(response.content)

    def delete_calibration_set(self, model: str, digest: str) -> None:
        """Delete a set that nothing uses.

        Parameters
        ----------
        model : str
        digest : str
            Digest or name of the set.
        """
        path = model_path(model, "calibration-sets", digest)
        self._connection.send(HttpRequest("DELETE", path))

    # Fits

    def start_fit(
        self,
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
    ) -> FitSummary:
        """Fit a calibrator on a stored set, or on the rows that came with labels.

        Parameters
        ----------
        model : str
        calibration_set : str, optional
            Digest or name of the set; exactly one of this and `source`.
        source : {"refit-window"}, optional
            The rows that came with labels.
        method, promote, version, allow_prediction_change, force, wait_seconds
            As for `upload`.

        Returns
        -------
        FitSummary
        """
        document = {
            "calibration_set": calibration_set,
            "source": source,
            "method": method,
            "promote": promote,
            "version": version,
            "allow_prediction_change": allow_prediction_change,
            "force": force,
        }
        path = model_path(model, "fits")
        request = json_request("POST", path, document, retry=True, wait_seconds=wait_seconds)
        return read(FitSummary, self._connection.send(request))

    def fits(self, model: str) -> tuple[FitSummary, ...]:
        """Every fit of a model, newest first.

        Parameters
        ----------
        model : str

        Returns
        -------
        tuple of FitSummary
        """
        return self._list(FitSummary, model_path(model, "fits"))

    def fit(self, model: str, fit: str) -> FitSummary:
        """Where a fit stands and what came of it.

        Parameters
        ----------
        model : str
        fit : str
            Its `FitSummary.fit`.

        Returns
        -------
        FitSummary
        """
        return read(FitSummary, self._connection.send(get(model_path(model, "fits", fit))))

    def wait_for_fit(self, model: str, fit: str, *, seconds: float) -> FitSummary:
        """Ask for a fit until it has ended.

        Parameters
        ----------
        model : str
        fit : str
            Its `FitSummary.fit`.
        seconds : float
            How long to wait.

        Returns
        -------
        FitSummary

        Raises
        ------
        ServiceUnreachable
            It had not ended after this time.
        """
        waited, pause = 0.0, FIRST_POLL_SECONDS
        while True:
            found = self.fit(model, fit)
            if found.ended:
                return found
            if waited >= seconds:
                still = f"fit {fit} is still {found.state} after {seconds:g} s"
                raise ServiceUnreachable(still)
            self._connection.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_POLL_SECONDS)

    def cancel_fit(self, model: str, fit: str) -> FitSummary:
        """Give up a fit that waits or runs.

        Parameters
        ----------
        model : str
        fit : str
            Its `FitSummary.fit`.

        Returns
        -------
        FitSummary
        """
        request = HttpRequest("DELETE", model_path(model, "fits", fit), retry=True)
        return read(FitSummary, self._connection.send(request))

    # Calibrators and what is live

    def calibrators(self, model: str) -> tuple[CalibratorSummary, ...]:
        """Every calibrator of a model.

        Parameters
        ----------
        model : str

        Returns
        -------
        tuple of CalibratorSummary
        """
        return self._list(CalibratorSummary, model_path(model, "calibrators"))

    def calibrator(
        self,
        model: str,
        calibrator: str,
        *,
        version: int | None = None,
    ) -> Calibrator:
        """A calibrator itself, as ``calibrator.json`` has it, for use without the service.

        Parameters
        ----------
        model : str
        calibrator : str
            Its `CalibratorSummary.calibrator`.
        version : int, optional
            Of the model; default: the live one.

        Returns
        -------
        Calibrator
        """
        path = model_path(model, "calibrators", calibrator)
        response = self._connection.send(get(path, {"version": version}))
        return loads_calibrator(response.content)

    def promote(
        self,
        model: str,
        calibrator: str,
        *,
        revision: int,
        version: int | None = None,
        force: bool = False,
    ) -> LivePair:
        """Make a calibrator live.

        Parameters
        ----------
        model : str
        calibrator : str
            Its `CalibratorSummary.calibrator`.
        revision : int
            The live one that the decision is based on: refused when another came first.
        version : int, optional
            The calibrator's; default: the live one.
        force : bool
            Promote one that was not admitted; the history says so.

        Returns
        -------
        LivePair
        """
        path = model_path(model, "calibrators", calibrator, "promote")
        params = {"version": version, "force": force}
        request = HttpRequest("POST", path, params, if_match(revision))
        return read(LivePair, self._connection.send(request))

    def rollback(self, model: str, *, revision: int, to: int | None = None) -> LivePair:
        """Go back to the pair of an earlier revision.

        Parameters
        ----------
        model : str
        revision : int
            The live one that the decision is based on: refused when another came first.
        to : int, optional
            The earlier revision; default: what was live before the last promotion.

        Returns
        -------
        LivePair
        """
        path = model_path(model, "rollback")
        request = json_request("POST", path, {"revision": to}, headers=if_match(revision))
        return read(LivePair, self._connection.send(request))

    def promotions(self, model: str) -> tuple[PromotionSummary, ...]:
        """The history of what was live, newest first.

        Parameters
        ----------
        model : str

        Returns
        -------
        tuple of PromotionSummary
        """
        return self._list(PromotionSummary, model_path(model, "promotions"))

    # Shadows

    def shadow(self, model: str) -> ShadowSummary:
        """Evidence both ways of what shadows the model, or did last.

        Parameters
        ----------
        model : str

        Returns
        -------
        ShadowSummary
        """
        return read(ShadowSummary, self._connection.send(get(model_path(model, "shadow"))))

    def start_shadow(
        self, model: str, calibrator: str, *, policy: str | None = None
    ) -> ShadowSummary:
        """Compare a calibrator of the live version with what is live, on the labels to come.

        Parameters
        ----------
        model : str
        calibrator : str
            Its `CalibratorSummary.calibrator`.
        policy : {"act", "tell"}, optional
            Promote or drop it by the evidence, or only say so; default: the service's.

        Returns
        -------
        ShadowSummary
        """
        document = {"calibrator": calibrator, "policy": policy}
        request = json_request("PUT", model_path(model, "shadow"), document, retry=True)
        return read(ShadowSummary, self._connection.send(request))

    def end_shadow(self, model: str) -> None:
        """Stop comparing; what was found until then can still be read.

        Parameters
        ----------
        model : str
        """
        self._connection.send(HttpRequest("DELETE", model_path(model, "shadow")))

    # The service itself

    def readiness(self) -> dict[str, Any]:
        """What ``/v2/health/ready`` says; asked once, without a retry.

        Returns
        -------
        dict
            Its JSON document.
        """
        response = self._connection.send(HttpRequest("GET", "/v2/health/ready"))
        document: dict[str, Any] = response.json()
        return document

    def metrics(self) -> str:
        """The text that Prometheus reads.

        Returns
        -------
        str
        """
        response = self._connection.send(get("/metrics"))
        return response.content.decode()

    def _list(
        self, kind: type[T], path: str, params: Mapping[str, Any] | None = None
    ) -> tuple[T, ...]:
        """Every item of a list, page by page."""
        found: list[T] = []
        cursor: str | None = None
        while True:
            query = {**(params or {}), "cursor": cursor, "limit": 500}
            response = self._connection.send(get(path, query))
            page = response.json()
            found += [value_of(kind, item) for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                return tuple(found)
