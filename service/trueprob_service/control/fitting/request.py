"""What a fit is asked for with, besides the rows: checked before anything is received."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from trueprob.fitting.fit import METHODS, keeps_prediction
from trueprob_service.errors import InvalidRequest
from trueprob_service.settings import Settings

__all__ = ["PROMOTE", "FitRequest", "check_name"]

PROMOTE: Final = ("auto", "never", "always", "shadow")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class FitRequest:
    """A fit, as it is asked for."""

    version: int | None = None  # none for the live one
    method: str | None = None  # none for the setting's
    promote: str = "auto"  # `auto`, `never`, `always` or `shadow`
    name: str | None = None  # a name that means this set from now on
    allow_prediction_change: bool | None = None  # none for the setting
    force: bool = False  # fit even a set that is too small
    by: str | None = None  # id of the API key
    trigger: str | None = None  # of the refit policy: a fit that bears it already is the outcome

    def check(self, settings: Settings) -> None:
        """Refuse what cannot be done."""
        if self.method is not None and self.method not in METHODS:
            raise InvalidRequest(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.promote not in PROMOTE:
            raise InvalidRequest(
                f"promote must be one of {', '.join(PROMOTE)}, got {self.promote!r}"
            )
        change = self.change_allowed(settings)
        if not change and not keeps_prediction(self.chosen_method(settings)):
            raise InvalidRequest(
                f"method {self.chosen_method(settings)!r} may change predictions, which "
                "allow_prediction_change=true allows"
            )
        check_name(self.name)

    def chosen_method(self, settings: Settings) -> str:
        """The method, or the setting's."""
        return self.method or settings.fit_method

    def change_allowed(self, settings: Settings) -> bool:
        """Whether the calibrator may change predictions."""
        if self.allow_prediction_change is None:
            return settings.allow_prediction_change
        return self.allow_prediction_change


def check_name(name: str | None) -> None:
    """Refuse what cannot name a set."""
    if name is not None and not _NAME.fullmatch(name):
        raise InvalidRequest(
            "name must be 1 to 100 letters, digits, '_', '.' or '-', "
            "and begin with a letter or a digit"
        )
