"""Options of a fit request, validated before the body is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from trueprob.errors import InvalidInput
from trueprob.fitting.methods import METHODS, method_for_classes, needs_permission
from trueprob_service.errors import InvalidRequest
from trueprob_service.settings import Settings

__all__ = ["PROMOTE", "SET_NAME", "FitRequest", "check_set_name"]

PROMOTE: Final = ("auto", "never", "always", "shadow")
SET_NAME: Final = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"


@dataclass(frozen=True)
class FitRequest:
    """Options of a fit; the rows come separately."""

    version: int | None = None  # None: the live version
    method: str | None = None  # None: as in the settings
    promote: str = "auto"  # one of `PROMOTE`
    name: str | None = None  # name to give to the calibration set
    keep_prediction: bool | None = None  # None: as in the settings, here and below
    allow_prediction_change: bool | None = None
    force: bool = False  # fit even a set with too few rows
    by: str | None = None  # id of the API key
    trigger: str | None = None  # set by the refit policy; there is one fit for each trigger

    def check(self, settings: Settings, *, n_classes: int) -> None:
        """Raise `InvalidRequest` for options that are unknown or cannot be combined."""
        if self.method is not None and self.method not in METHODS:
            raise InvalidRequest(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.promote not in PROMOTE:
            raise InvalidRequest(
                f"promote must be one of {', '.join(PROMOTE)}, got {self.promote!r}"
            )
        if self.keep_prediction and self.allow_prediction_change:
            raise InvalidRequest(
                "keep_prediction and allow_prediction_change contradict each other: leave one out"
            )
        method = self.chosen_method(settings)
        if not self.change_allowed(settings) and needs_permission(method):
            raise InvalidRequest(
                f"method {method!r} may change predictions: add allow_prediction_change=true "
                "to allow that"
            )
        try:
            method_for_classes(method, n_classes, keep_prediction=self.must_keep(settings))
        except InvalidInput as error:
            raise InvalidRequest(error.message) from None
        check_set_name(self.name)

    def chosen_method(self, settings: Settings) -> str:
        """The requested method, or that of the settings."""
        return self.method or settings.fit_method

    def change_allowed(self, settings: Settings) -> bool:
        """Whether the calibrator may change predictions and the order of rows."""
        if self.allow_prediction_change is None:
            return settings.allow_prediction_change and not self.keep_prediction
        return self.allow_prediction_change

    def must_keep(self, settings: Settings) -> bool:
        """Whether the calibrator must keep every prediction."""
        if self.keep_prediction is None:
            return settings.keep_prediction and not self.allow_prediction_change
        return self.keep_prediction


def check_set_name(name: str | None) -> None:
    """Raise `InvalidRequest` unless this can be the name of a calibration set."""
    if name is not None and not re.fullmatch(SET_NAME, name):
        raise InvalidRequest(
            "name must be 1 to 100 letters, digits, '_', '.' or '-', "
            "and begin with a letter or a digit"
        )
