"""The blocking client; ``async_client.py`` is generated from this file.

After a change run ``python -m tests.trueprob.client.generate``. The file is longer than 500 lines
because every route of the service is a method of one class, with its parameters described where
`help` shows them.
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
from trueprob.client.errors import FitStillRunning
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
from trueprob.client.transport import HttpRequest, ServiceConnection

__all__ = ["Client"]

T = TypeVar("T")
FIRST_POLL_SECONDS = 0.2
LONGEST_POLL_SECONDS = 2.0


class Client:
    """A client of a running service; use it in a ``with`` block, or close it.

    Parameters
    ----------
    url : str
        Address of the service: ``http://127.0.0.1:8000``.
    key : str, optional
        An API key.
    timeout_seconds : float
        Time limit for connecting, and for each wait for data.
    verify : bool or ssl.SSLContext
        Which certificates are trusted, for https.
    transport : httpx.BaseTransport, optional
        Replaces the network, for tests.

    Raises
    ------
    InvalidInput
        From any method: an argument cannot be sent.
    ServiceProblem
        From any method: the service refused the request.
    ServiceUnreachable
        From any method: no answer came.

    Notes
    -----
    Requests that may safely be sent twice are tried up to four times while the service does not
    answer or answers 503. Promotions, rollbacks and deletions are sent once; `cancel_fit` is
    tried again.

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
        rows: ArrayLike | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
        ids: Sequence[str | int] | None = None,
        version: int | None = None,
        receipts: bool = True,
        binary: bool = False,
    ) -> Prediction:
        """Predict calibrated probabilities of n rows.

        Give exactly one of `logits`, `probabilities`, `log_probabilities`, `images`, `rows` and
        `inputs`.

        Parameters
        ----------
        model : str
        logits, probabilities, log_probabilities : array_like of shape (n, k), optional
            Output of the classifier. With two classes also (n,) or (n, 1), a score of class 1:
            `probabilities` of the answer is then P(class 1) in that shape.
        images : sequence of bytes, optional
            PNG, JPEG or WebP files, for a model whose network the service runs.
        rows : array_like of shape (n, ...), optional
            Rows of numbers for the only input of such a network.
        inputs : mapping of str to array_like of shape (n, ...), optional
            Arrays by the names of the inputs of such a network, such as ``input_ids``.
        ids : sequence of n str or int, optional
            Your own ids of the rows, of 1 to 128 characters, for `label_by_id`. The service
            remembers them for a while, as keyed hashes.
        version : int, optional
            Version of the model; default: the live one.
        receipts : bool
            Whether to return prediction ids, which `label` needs.
        binary : bool
            Whether the answer is sent as an ``.npz``: the same numbers, faster for many rows.

        Returns
        -------
        Prediction
        """
        given = {
            "logits": logits,
            "probabilities": probabilities,
            "log_probabilities": log_probabilities,
            "images": images,
            "rows": rows,
            "inputs": inputs,
        }
        params = {"version": version, "receipts": receipts}
        request = prediction_request(model, given, params, binary=binary, ids=ids)
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
        rows: ArrayLike | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
        ids: Sequence[str | int] | None = None,
        version: int | None = None,
        binary: bool = False,
    ) -> PartialPrediction:
        """Predict and return only the named fields.

        Parameters
        ----------
        model : str
        fields : sequence of str, optional
            Names among ``probabilities``, ``prediction``, ``class``, ``confidence``,
            ``temperature``, ``log_odds``, ``prediction_ids`` (these need receipts),
            ``p1``, ``logit_gap``, ``logits`` and, if `top` is given, ``top_indices``,
            ``top_classes``, ``top_probabilities``.
            Default: the fields of `predict` without receipts; if `top` is given, the top classes
            replace the probabilities.
        top : int, optional
            Number of the most likely classes to return.
        logits, probabilities, log_probabilities, images, rows, inputs, ids, version, binary
            As for `predict`.

        Returns
        -------
        PartialPrediction
        """
        given = {
            "logits": logits,
            "probabilities": probabilities,
            "log_probabilities": log_probabilities,
            "images": images,
            "rows": rows,
            "inputs": inputs,
        }
        params: dict[str, Any] = {"version": version, "top": top}
        if fields is None:
            params["receipts"] = False
        else:
            params["return"] = ",".join(fields)
        request = prediction_request(model, given, params, binary=binary, ids=ids)
        return partial_prediction_from(self._connection.send(request))

    def label(
        self, model: str, prediction_ids: Sequence[str], labels: ClassLabels
    ) -> LabelOutcomes:
        """Send labels of earlier predictions. A label counts once, however often it is sent.

        Parameters
        ----------
        model : str
        prediction_ids : sequence of n str
            From `Prediction.prediction_ids`.
        labels : sequence of n int or str
            Class indices or class names.

        Returns
        -------
        LabelOutcomes

        Raises
        ------
        ServiceProblem, ServiceUnreachable
            More than 100 000 labels are sent in several requests, and earlier ones may have been
            counted. It is safe to send all labels again.
        """
        total = LabelOutcomes(0, 0, 0, ())
        for start, request in label_requests(model, prediction_ids, labels):
            added = read(LabelOutcomes, self._connection.send(request))
            total = combined(total, added, start)
        return total

    def label_by_id(
        self,
        model: str,
        ids: Sequence[str | int],
        labels: ClassLabels,
        *,
        wait_seconds: float | None = None,
    ) -> LabelOutcomes:
        """Send labels of earlier predictions by your own ids; they count as those of `label` do.

        Parameters
        ----------
        model : str
        ids : sequence of n str or int
            As they were given to `predict`.
        labels : sequence of n int or str
            Class indices or class names.
        wait_seconds : float, optional
            How long the service looks for ids that are not there yet, 0 to 5; default: 5.

        Returns
        -------
        LabelOutcomes
            With the outcome ``unknown_id`` for ids that the service does not remember,
            ``conflict`` if another label has counted for an id, and ``replaced``, which counts,
            if the latest of several predictions with the id got the label.

        Raises
        ------
        ServiceProblem, ServiceUnreachable
            As for `label`. It is safe to send all labels again.
        """
        total = LabelOutcomes(0, 0, 0, ())
        for start, request in label_requests(
            model, ids, labels, name="ids", wait_seconds=wait_seconds
        ):
            added = read(LabelOutcomes, self._connection.send(request))
            total = combined(total, added, start)
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
        """Send labels with their logits, so that the service can fit on them. An id counts once.

        Parameters
        ----------
        model : str
        ids : sequence of n str
            Your ids of the rows.
        logits : array_like of shape (n, k)
            Output of the classifier.
        labels : sequence of n int or str
            Class indices or class names.
        groups : sequence of n int or str, optional
            Rows that depend on one another share a group. Default: all rows are independent.
        version : int, optional
            Version that computed the logits; default: the live one at each request.

        Returns
        -------
        LabelOutcomes

        Raises
        ------
        ServiceProblem, ServiceUnreachable
            Many rows are sent in several requests, and earlier ones may have been counted. It is
            safe to send all rows again.
        """
        total = LabelOutcomes(0, 0, 0, ())
        for start, request in row_label_requests(model, ids, logits, labels, groups, version):
            added = read(LabelOutcomes, self._connection.send(request))
            total = combined(total, added, start)
        return total

    # Calibration over time

    def calibration(self, model: str, window: str = "24h") -> Calibration:
        """Read the calibration of the live pair, from the labels of a window.

        Parameters
        ----------
        model : str
        window : str
            Number of hours or days: ``24h``, ``7d``.

        Returns
        -------
        Calibration
        """
        request = get(model_path(model, "calibration"), {"window": window})
        return read(Calibration, self._connection.send(request))

    def alarms(self, model: str) -> tuple[AlarmSummary, ...]:
        """List the alarms of a model, newest first.

        Parameters
        ----------
        model : str

        Returns
        -------
        tuple of AlarmSummary
        """
        return self._list(AlarmSummary, model_path(model, "alarms"))

    def acknowledge(self, model: str, alarm: str) -> AlarmSummary:
        """Acknowledge an alarm; a second call changes nothing.

        After an alarm of the statistic `change`, that statistic starts again at 0.

        Parameters
        ----------
        model : str
        alarm : str
            The `AlarmSummary.id` of the alarm.

        Returns
        -------
        AlarmSummary
        """
        path = model_path(model, "alarms", alarm, "acknowledge")
        request = HttpRequest("POST", path, retry=True)
        return read(AlarmSummary, self._connection.send(request))

    # Models and versions

    def models(self) -> tuple[ModelDescription, ...]:
        """List the models.

        Returns
        -------
        tuple of ModelDescription
        """
        return self._list(ModelDescription, "/v1/models")

    def model(self, name: str) -> ModelDescription:
        """Read a model, with its live pair and its versions.

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
        mask_below: float | None = None,
        zeros: str | None = None,
    ) -> ModelDescription:
        """Declare a model whose network you run yourself. The same call again changes nothing.

        Parameters
        ----------
        name : str
        n_classes : int, optional
            Number of classes; required without `class_names`.
        class_names : sequence of str, optional
            Class names, in the order of the columns of the logits.
        mask_below, zeros
            As for `trueprob.fit`; the calibrators of the model keep them.

        Returns
        -------
        ModelDescription
        """
        names = None if class_names is None else list(class_names)
        document = {
            "n_classes": n_classes,
            "class_names": names,
            "mask_below": mask_below,
            "zeros": zeros,
        }
        request = json_request("PUT", model_path(name), document, retry=True)
        return read(ModelDescription, self._connection.send(request))

    def promote_version(self, name: str, version: int, *, revision: int) -> ModelDescription:
        """Make a version live.

        Parameters
        ----------
        name : str
        version : int
            The version to make live.
        revision : int
            The live revision that you expect. The service refuses if another one is live.

        Returns
        -------
        ModelDescription
        """
        document = {"live_version": version}
        request = json_request("PUT", model_path(name), document, headers=if_match(revision))
        return read(ModelDescription, self._connection.send(request))

    def delete_model(self, name: str, *, revision: int) -> None:
        """Delete a model with all its data, if it is declared or its folder is gone.

        Parameters
        ----------
        name : str
        revision : int
            The live revision that you expect. The service refuses if another one is live.
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
        keep_prediction: bool | None = None,
        allow_prediction_change: bool | None = None,
        force: bool = False,
        wait_seconds: float = 0.0,
    ) -> FitSummary:
        """Store held-out rows as a calibration set and fit a calibrator on it.

        The same rows again are the same set.

        Parameters
        ----------
        model : str
        rows : CalibrationSet, mapping, Path or bytes
            Arrays by name: ``labels`` (indices or class names) and one of ``logits``,
            ``probabilities``, ``log_probabilities``, ``images`` (decoded as an array, or a
            sequence of encoded files as bytes); or an ``.npz`` or ``.csv`` file, or the bytes of
            an ``.npz``. Columns that have names (an array ``class_names``, or a header) are matched
            by name with the classes of the version.
        method : str, optional
            Calibration method; default: the service's setting.
        promote : {"auto", "never", "always", "shadow"}
            When to promote the candidate: if it is admitted, never, in any case, or if it proves
            better in the shadow of the live pair.
        version : int, optional
            Version that the rows belong to; default: the live one.
        name : str, optional
            Name to give to the set.
        keep_prediction : bool, optional
            Whether every prediction must stay the argmax of the logits; default: the service's
            setting. If not, with two classes `smart` may move the threshold, and never the order
            of rows.
        allow_prediction_change : bool, optional
            Whether the calibrator may change predictions; default: the service's setting.
        force : bool
            Whether to fit a set that has fewer rows than the service requires.
        wait_seconds : float
            How long the service waits for the fit to end, at most 60; for longer use
            `wait_for_fit`.

        Returns
        -------
        FitSummary
        """
        params = {
            "method": method,
            "promote": promote,
            "version": version,
            "name": name,
            "keep_prediction": keep_prediction,
            "allow_prediction_change": allow_prediction_change,
            "force": force,
        }
        path = model_path(model, "calibration-sets")
        request = rows_request(path, rows, params, wait_seconds=wait_seconds)
        return read(FitSummary, self._connection.send(request))

    def append(
        self, model: str, name: str, rows: CalibrationRows, *, version: int | None = None
    ) -> CalibrationSetSummary:
        """Append rows to a named calibration set, without a fit; the first rows create the set.

        If the set already contains all these rows, one after another in this order, nothing is
        added. So a call may be repeated.

        Parameters
        ----------
        model, name : str
            Name of the model, and name of the set.
        rows : CalibrationSet, mapping, Path or bytes
            As for `upload`.
        version : int, optional
            Version that the rows belong to; default: the live one.

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
        """List the calibration sets of a model, or only the one with this name.

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
        """Read the summary of a calibration set.

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
        """Download the rows of a calibration set.

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
        """Delete a calibration set; the service refuses while something uses it.

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
        keep_prediction: bool | None = None,
        allow_prediction_change: bool | None = None,
        force: bool = False,
        wait_seconds: float = 0.0,
    ) -> FitSummary:
        """Fit a calibrator on a stored calibration set, or on the refit window.

        Parameters
        ----------
        model : str
        calibration_set : str, optional
            Digest or name of the set; give exactly one of this and `source`.
        source : {"refit-window"}, optional
            Fit on the newest rows that were labelled with their logits.
        method, promote, version, keep_prediction, allow_prediction_change, force, wait_seconds
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
            "keep_prediction": keep_prediction,
            "allow_prediction_change": allow_prediction_change,
            "force": force,
        }
        path = model_path(model, "fits")
        request = json_request("POST", path, document, retry=True, wait_seconds=wait_seconds)
        return read(FitSummary, self._connection.send(request))

    def fits(self, model: str) -> tuple[FitSummary, ...]:
        """List the fits of a model, newest first.

        Parameters
        ----------
        model : str

        Returns
        -------
        tuple of FitSummary
        """
        return self._list(FitSummary, model_path(model, "fits"))

    def fit(self, model: str, fit: str) -> FitSummary:
        """Read the state of a fit, and its result if it has ended.

        Parameters
        ----------
        model : str
        fit : str
            The `FitSummary.fit` of the fit.

        Returns
        -------
        FitSummary
        """
        return read(FitSummary, self._connection.send(get(model_path(model, "fits", fit))))

    def wait_for_fit(self, model: str, fit: str, *, seconds: float) -> FitSummary:
        """Wait until a fit has ended, in any way; asks the service every 0.2 to 2 seconds.

        Parameters
        ----------
        model : str
        fit : str
            The `FitSummary.fit` of the fit.
        seconds : float
            How long to wait.

        Returns
        -------
        FitSummary

        Raises
        ------
        FitStillRunning
            The fit had not ended after this time. It goes on.
        """
        waited, pause = 0.0, FIRST_POLL_SECONDS
        while True:
            summary = self.fit(model, fit)
            if summary.ended:
                return summary
            if waited >= seconds:
                url = self._connection.url + model_path(model, "fits", fit)
                raise FitStillRunning(fit, summary.state, url, seconds)
            self._connection.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_POLL_SECONDS)

    def cancel_fit(self, model: str, fit: str) -> FitSummary:
        """Cancel a fit that is queued or running.

        Parameters
        ----------
        model : str
        fit : str
            The `FitSummary.fit` of the fit.

        Returns
        -------
        FitSummary
        """
        request = HttpRequest("DELETE", model_path(model, "fits", fit), retry=True)
        return read(FitSummary, self._connection.send(request))

    # Calibrators and what is live

    def calibrators(self, model: str) -> tuple[CalibratorSummary, ...]:
        """List the calibrators of a model.

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
        """Download a calibrator, to use it without the service.

        Parameters
        ----------
        model : str
        calibrator : str
            The `CalibratorSummary.calibrator` of the calibrator.
        version : int, optional
            Version that it belongs to; default: the live one.

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
            The `CalibratorSummary.calibrator` of the calibrator.
        revision : int
            The live revision that you expect. The service refuses if another one is live.
        version : int, optional
            Version that it belongs to; default: the live one.
        force : bool
            Whether to promote a calibrator that was not admitted or was reverted; the history
            says so.

        Returns
        -------
        LivePair
        """
        path = model_path(model, "calibrators", calibrator, "promote")
        params = {"version": version, "force": force}
        request = HttpRequest("POST", path, params, if_match(revision))
        return read(LivePair, self._connection.send(request))

    def rollback(self, model: str, *, revision: int, to: int | None = None) -> LivePair:
        """Make the pair of an earlier revision live again.

        Parameters
        ----------
        model : str
        revision : int
            The live revision that you expect. The service refuses if another one is live.
        to : int, optional
            The earlier revision; default: undo the last promotion that was not yet undone.

        Returns
        -------
        LivePair
        """
        path = model_path(model, "rollback")
        request = json_request("POST", path, {"revision": to}, headers=if_match(revision))
        return read(LivePair, self._connection.send(request))

    def promotions(self, model: str) -> tuple[PromotionSummary, ...]:
        """List the promotions of a model, newest first.

        Parameters
        ----------
        model : str

        Returns
        -------
        tuple of PromotionSummary
        """
        return self._list(PromotionSummary, model_path(model, "promotions"))

    # Shadows

    def shadow(self, model: str, *, role: str = "candidate") -> ShadowSummary:
        """Read the calibrator in the shadow of the live pair, or the last one, with its evidence.

        Parameters
        ----------
        model : str
        role : {"candidate", "predecessor"}
            The one that `start_shadow` started, or the one that was live before a promotion.

        Returns
        -------
        ShadowSummary
        """
        request = get(model_path(model, "shadow"), {"role": role})
        return read(ShadowSummary, self._connection.send(request))

    def start_shadow(
        self, model: str, calibrator: str, *, policy: str | None = None
    ) -> ShadowSummary:
        """Start to compare a calibrator of the live version with the live pair, on new labels.

        Parameters
        ----------
        model : str
        calibrator : str
            The `CalibratorSummary.calibrator` of the calibrator.
        policy : {"act", "tell"}, optional
            What follows from the evidence: `act` promotes or drops the candidate, `tell` only
            reports. Default: the service's setting.

        Returns
        -------
        ShadowSummary
        """
        document = {"calibrator": calibrator, "policy": policy}
        request = json_request("PUT", model_path(model, "shadow"), document, retry=True)
        return read(ShadowSummary, self._connection.send(request))

    def end_shadow(self, model: str, *, role: str = "candidate") -> None:
        """Stop the comparison; its evidence can still be read with `shadow`.

        Parameters
        ----------
        model : str
        role : {"candidate", "predecessor"}
            As in `shadow`. Without its predecessor, a promotion is not reverted by labels.
        """
        path = model_path(model, "shadow")
        self._connection.send(HttpRequest("DELETE", path, {"role": role}))

    # The service itself

    def audit(
        self,
        *,
        model: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        outcome: str | None = None,
        since: str | None = None,
        until: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> tuple[dict[str, Any], ...]:
        """Read rows of the audit trail, newest first; needs a key with the scope `admin`.

        Parameters
        ----------
        model : str, optional
            Only rows of this model.
        actor : str, optional
            Only rows of this actor: ``key:ID``, ``oidc:SUBJECT``, ``anonymous`` or ``service``.
        action : str, optional
            Only rows of this action: ``pair.promote``, ``model.delete``, …
        outcome : {"done", "refused"}, optional
        since : str, optional
            Not before this time: ISO 8601 with its zone. A date alone is 00:00 UTC.
        until : str, optional
            Before this time.
        before : int, optional
            Only rows before the one with this ``id``: the last one of the call before.
        limit : int
            Number of rows, at most 500.

        Returns
        -------
        tuple of dict
            The JSON documents of the route.
        """
        given = {"model": model, "actor": actor, "action": action, "outcome": outcome}
        given |= {"since": since, "until": until}
        query = {name: value for name, value in given.items() if value is not None}
        cursor = None if before is None else str(before)
        response = self._connection.send(
            get("/v1/audit", {**query, "cursor": cursor, "limit": limit})
        )
        return tuple(response.json()["items"])

    def readiness(self) -> dict[str, Any]:
        """Read ``/v2/health/ready``, without a retry.

        Returns
        -------
        dict
            The JSON document of the route.
        """
        response = self._connection.send(HttpRequest("GET", "/v2/health/ready"))
        document: dict[str, Any] = response.json()
        return document

    def metrics(self) -> str:
        """Read the metrics of the service.

        Returns
        -------
        str
            In the text format of Prometheus.
        """
        response = self._connection.send(get("/metrics"))
        return response.content.decode()

    def _list(
        self, kind: type[T], path: str, params: Mapping[str, Any] | None = None
    ) -> tuple[T, ...]:
        """Read all pages of a list."""
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
