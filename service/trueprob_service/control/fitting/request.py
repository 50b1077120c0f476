"""Options of a fit request, validated before the body is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from trueprob.fitting.methods import METHODS, keeps_prediction
from trueprob_service.errors import InvalidRequest
from trueprob_service.settings import Settings

__all__ = ["PROMOTE", "FitRequest", "check_set_name"]

PROMOTE: Final = ("auto", "never", "always", "shadow")
_SET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class FitRequest:
    """Options of a fit; the rows come separately."""

    version: int | None = None  # None: the live version
    method: str | None = None  # None: as in the settings
    promote: str = "auto"  # one of `PROMOTE`
    name: str | None = None  # name to give to the calibration set
    allow_prediction_change: bool | None = None  # None: as in the settings
    force: bool = False  # fit even a set with too few rows
    by: str | None = None  # id of the API key
    trigger: str | None = None  # set by the refit policy; there is one fit for each trigger

    def check(self, settings: Settings) -> None:
        """Raise `InvalidRequest` for options that are unknown or cannot be combined."""
        if self.method is not None and self.method not in METHODS:
            raise InvalidRequest(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.promote not in PROMOTE:
            raise InvalidRequest(
                f"promote must be one of {', '.join(PROMOTE)}, got {self.promote!r}"
            )
        method = self.chosen_method(settings)
        if not self.change_allowed(settings) and not keeps_prediction(method):
            raise InvalidRequest(
                f"method {method!r} may change predictions: add allow_prediction_change=true "
                "to allow that"
            )
        check_set_name(self.name)

    def chosen_method(self, settings: Settings) -> str:
        """The requested method, or that of the settings."""
        return self.method or settings.fit_method

    def change_allowed(self, settings: Settings) -> bool:
        """Whether the calibrator may change predictions."""
        if self.allow_prediction_change is None:
            return settings.allow_prediction_change
        return self.allow_prediction_change


def check_set_name(name: str | None) -> None:
    """Raise `InvalidRequest` unless this can be the name of a calibration set."""
    if name is not None and not _SET_NAME.fullmatch(name):
        raise InvalidRequest(
            "name must be 1 to 100 letters, digits, '_', '.' or '-', "
            "and begin with a letter or a digit"
        )
