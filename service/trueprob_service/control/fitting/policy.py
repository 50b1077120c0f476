"""The refit policy: requests a fit after an alarm, or after every N labelled rows with logits.

Every replica polls for triggers. A trigger is named after the alarm's id, or after the version and
its number of rows. The fit's row stores that name under a unique index, so a second replica or a
restart after a crash finds the fit and does nothing. A trigger waits while the refit window has too
few rows, and leads to one fit, whatever its result.

A method that keeps predictions has one map for all classes. If an alarm names a class, the fit is
therefore by a class-wise method, where the settings allow predictions to change. With two classes
`smart` maps each class anyway, unless the settings keep predictions.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from trueprob.fitting.methods import keeps_prediction
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.fitting.stored_sets import StoredSets
from trueprob_service.control.labels.refit_window import RefitWindow
from trueprob_service.control.poll import Poll
from trueprob_service.control.store import Store
from trueprob_service.control.store.alarms import AlarmRow
from trueprob_service.errors import DatabaseUnavailable, ServiceError
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.inference.deployments import Deployments
from trueprob_service.settings import Settings

__all__ = ["RefitPolicy", "Trigger", "rows_between"]

_LOG: Final = logging.getLogger(__name__)
_PROMOTE: Final = {"promote": "auto", "shadow": "shadow", "tell": "never"}
# Up to so many classes `auto` chooses; above, it would take an hour for a full window.
_AUTO_CLASSES: Final = 100


@dataclass(frozen=True)
class Trigger:
    """Why a version is to be refitted."""

    name: str  # unique per model
    served: ServedVersion
    alarms: tuple[int, ...] = ()  # the fit answers all of them
    of_class: bool = False  # whether one of them names a class


def rows_between(policy: str) -> int | None:
    """N of the policy ``every=N``; None for the other policies."""
    match = re.fullmatch(r"every=(\d+)", policy)
    return None if match is None else int(match[1])


class RefitPolicy:
    """Polls for triggers in this process, and queues their fits."""

    def __init__(
        self,
        store: Store,
        window: RefitWindow,
        sets: StoredSets,  # stores the rows of the window and queues the fit
        deployments: Deployments,  # of this process
        *,
        settings: Settings,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._window = window
        self._sets = sets
        self._deployments = deployments
        self._settings = settings
        self._clock = clock
        self._rows = rows_between(settings.refit_policy)
        self._poll = Poll(
            self.queue_due_fits,
            what="the refit policy",
            seconds=settings.poll_seconds,
            name="trueprob-policy",
        )

    def start(self) -> None:
        """Start polling, unless the policy is off."""
        if self._settings.refit_policy != "off":
            self._poll.start()

    def close(self) -> None:
        """Stop after the poll that is running."""
        self._poll.close()

    def queue_due_fits(self) -> list[int]:
        """Poll once: queue the fits that are due, and return their ids."""
        if self._settings.refit_policy == "off":
            return []
        due = self._alarms() if self._rows is None else self._counts(self._rows)
        fits = []
        for trigger in due:
            fit = self._refit(trigger)
            if fit is not None:
                fits.append(fit)
        return fits

    def _alarms(self) -> list[Trigger]:
        """Triggers from alarms of live revisions; alarms of earlier ones are marked as answered."""
        live = {d.served.model: d for d in self._deployments.live()}
        with self._store.read() as transaction:
            alarms = transaction.alarms.unanswered()
            revisions = transaction.promotions.revisions()
            waiting = transaction.policy_fits.waiting()
        stale = [alarm.id for alarm in alarms if revisions[alarm.model][1] != alarm.revision]
        self._answer(stale)
        # Evidence and change often raise their alarms together; one fit answers both.
        by_model: dict[str, list[AlarmRow]] = {}
        for alarm in alarms:
            deployment = live.get(alarm.model)
            if deployment is not None and deployment.revision == alarm.revision:
                by_model.setdefault(alarm.model, []).append(alarm)
        return [
            Trigger(
                f"alarm:{found[0].id}",
                live[model].served,
                tuple(alarm.id for alarm in found),
                of_class=any(alarm.worst_class for alarm in found),
            )
            for model, found in by_model.items()
            if model not in waiting  # the result of that fit may replace the revision
        ]

    def _answer(self, alarms: Sequence[int]) -> None:
        if alarms:
            with self._store.write() as transaction:
                for alarm in alarms:
                    transaction.alarms.answer(alarm, now=self._clock())

    def _counts(self, every: int) -> list[Trigger]:
        """Triggers from versions whose number of rows has passed another multiple of N."""
        triggers = []
        with self._store.read() as transaction:
            for deployment in self._deployments.live():
                served = deployment.served
                total = transaction.labelled_rows.n_received(served.model, served.version)
                name = f"rows:{served.version}:{total // every * every}"
                if total >= every and not transaction.policy_fits.triggered(served.model, name):
                    triggers.append(Trigger(name, served))
        return triggers

    def _refit(self, trigger: Trigger) -> int | None:
        model, version = trigger.served.model, trigger.served.version
        if self._window.size(model, version)[0] < self._settings.min_calibration_rows:
            return None  # more rows may come
        rows = self._window.read(model, version)
        if rows is None:
            return None
        request = FitRequest(
            version=version,
            method=self._class_wise_method(trigger),
            promote=_PROMOTE[self._settings.refit_action],
            trigger=trigger.name,
        )
        try:
            fit, _ = self._sets.accept(trigger.served, rows, request)
        except DatabaseUnavailable:
            raise
        except ServiceError as error:  # for example, the model was deleted meanwhile
            _LOG.warning("refit of model %s for %s: %s", model, trigger.name, error.detail)
            return None
        self._answer(trigger.alarms)
        _LOG.info("fit %d refits model %s for %s", fit, model, trigger.name)
        return fit

    def _class_wise_method(self, trigger: Trigger) -> str | None:
        """The method of a fit for the fault of a class; None: that of the settings."""
        settings = self._settings
        if not (trigger.of_class and settings.allow_prediction_change):
            return None
        k = trigger.served.n_classes
        if not keeps_prediction(settings.fit_method, k, allow_prediction_change=True):
            return None
        return "auto" if k <= _AUTO_CLASSES else "smart-vector"
