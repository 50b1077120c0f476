"""What both clients can do.

A descriptor makes a method of each flow: what returns T in the blocking client returns an awaitable
of T in the other, and a type checker knows both.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from trueprob.client import alarms as alarms_  # the class below has methods of these names
from trueprob.client import labelled_rows, predictions, shadows, uploads, versions
from trueprob.client import models as models_
from trueprob.client.flow import Flow

if TYPE_CHECKING:
    from trueprob.client.carriers import AsyncClient, Client

__all__ = ["Method", "Methods"]

P = ParamSpec("P")
T = TypeVar("T")


class Method(Generic[P, T]):
    """A flow as a method of both clients."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: Client, owner: type[Any]) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type[Any]) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, client: None, owner: type[Any]) -> Method[P, T]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: type[Any]) -> Any:
        if client is None:
            return self

        @functools.wraps(self._flow)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client.carry(self._flow(*args, **kwargs))

        return bound


class Methods:
    """Everything that can be asked of the service: see `predictions`, `models`, `uploads`."""

    predict = Method(predictions.predict)
    predict_fields = Method(predictions.predict_fields)
    label = Method(predictions.label)
    label_rows = Method(labelled_rows.label_rows)
    calibration = Method(predictions.calibration)
    alarms = Method(alarms_.alarms)
    acknowledge = Method(alarms_.acknowledge)
    models = Method(models_.models)
    model = Method(models_.model)
    declare = Method(models_.declare)
    delete_model = Method(models_.delete_model)
    add_version = Method(versions.add_version)
    promote_version = Method(models_.promote_version)
    shadow = Method(shadows.shadow)
    start_shadow = Method(shadows.start_shadow)
    end_shadow = Method(shadows.end_shadow)
    upload = Method(uploads.upload)
    append = Method(uploads.append)
    calibration_sets = Method(uploads.calibration_sets)
    calibration_set = Method(uploads.calibration_set)
    download = Method(uploads.download)
    delete_calibration_set = Method(uploads.delete_calibration_set)
    start_fit = Method(uploads.start_fit)
    fits = Method(uploads.fits)
    fit = Method(uploads.fit)
    wait_for_fit = Method(uploads.wait_for_fit)
    cancel_fit = Method(uploads.cancel_fit)
    calibrators = Method(models_.calibrators)
    calibrator = Method(models_.calibrator)
    promote = Method(models_.promote)
    rollback = Method(models_.rollback)
    promotions = Method(models_.promotions)
    readiness = Method(predictions.readiness)
    metrics = Method(predictions.metrics)
