"""The control plane put together: what it is made of, how it starts and how it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter

from service.control.alarms import AlarmRules, Alarms
from service.control.artifacts import Artifacts
from service.control.calibration_sets import CalibrationSets
from service.control.declarations import Declarations
from service.control.description import Descriptions
from service.control.fit_process import FitProcess, FitRunner
from service.control.fit_queue import FitQueue
from service.control.following import Following
from service.control.keys import open_receipts
from service.control.labels import CLOCK_TOLERANCE_SECONDS, Labels
from service.control.models import Catalogue
from service.control.promotion import Promotions
from service.control.refit import Refits
from service.control.repository_watch import RepositoryWatch
from service.control.retention import Retention
from service.control.statistics import Statistics
from service.control.store import Store, open_store
from service.control.stored_sets import StoredSets
from service.errors import Unavailable
from service.inference.deployment import Deployments
from service.receipts import Receipts
from service.settings import Settings
from service.statistics import ControlStatistics

__all__ = ["ControlPlane", "Parts"]

_LOG: Final = logging.getLogger(__name__)
_CHECK_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Parts:
    """What a started control plane is made of; routes use these and nothing else."""

    settings: Settings
    clock: Callable[[], float]
    store: Store
    receipts: Receipts
    catalogue: Catalogue
    descriptions: Descriptions
    declarations: Declarations
    following: Following
    promotions: Promotions
    refits: Refits
    artifacts: Artifacts
    stored_sets: StoredSets
    calibration_sets: CalibrationSets
    labels: Labels
    alarms: Alarms
    retention: Retention
    statistics: Statistics


class ControlPlane:
    """Learns, decides and remembers.

    Parameters
    ----------
    settings : Settings
    deployments : Deployments
        Told of every pair that is to answer.
    clock : callable
        Seconds since 1970 UTC.
    count_label : callable
        ``(model, outcome, n, lag_seconds)``: counts labels for the metrics.
    fit_runner : callable, optional
        Makes what runs the fits; default: a process of its own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        deployments: Deployments,
        clock: Callable[[], float],
        count_label: Callable[[str, str, int, Sequence[float]], None],
        fit_runner: Callable[[], FitRunner] = FitProcess,
    ) -> None:
        self._settings = settings
        self._deployments = deployments
        self._clock = clock
        self._count_label = count_label
        self._fit_runner = fit_runner
        self._parts: Parts | None = None
        self._watch: RepositoryWatch | None = None
        self._checking = threading.Lock()
        self._answers = True
        self._checked_at = 0.0

    def start(self) -> None:
        """Open and migrate the database, load the models, take up interrupted fits.

        Raises
        ------
        DatabaseUnavailable
            The database cannot be reached.
        InvalidSettings
            ``receipt_secret`` is not what the stored keys are wrapped by.
        """
        settings, clock = self._settings, self._clock
        artifacts = Artifacts(settings.state_dir)
        artifacts.start()
        store = open_store(settings.resolved_database_url)
        try:
            receipts = open_receipts(store, secret=settings.receipt_secret, clock=clock)
            catalogue = Catalogue(self._deployments, clock=clock)
            catalogue.start(store, settings.model_repository)
        except BaseException:
            store.close()
            raise
        refits = Refits(
            FitQueue(store, catalogue, artifacts, clock=clock),
            self._fit_runner(),
            seconds=settings.poll_seconds,
            deadline_seconds=settings.fit_deadline_seconds,
        )
        following = Following(
            store,
            catalogue,
            self._deployments,
            seconds=settings.poll_seconds,
            patience_seconds=3 * settings.repository_poll_seconds,
        )
        rules = AlarmRules.of(
            tolerance=settings.alarm_tolerance,
            alpha=settings.alarm_alpha,
            run_length=settings.alarm_run_length_labels,
        )
        alarms = Alarms(store, rules, clock=clock)
        stored_sets = StoredSets(store, artifacts, refits, settings=settings, clock=clock)
        self._parts = Parts(
            settings=settings,
            clock=clock,
            store=store,
            receipts=receipts,
            catalogue=catalogue,
            descriptions=Descriptions(store, catalogue),
            declarations=Declarations(store, catalogue, clock=clock),
            following=following,
            promotions=Promotions(store, catalogue, clock=clock),
            refits=refits,
            artifacts=artifacts,
            stored_sets=stored_sets,
            calibration_sets=CalibrationSets(
                stored_sets,
                artifacts.uploads,
                deployments=self._deployments,
                following=following,
                settings=settings,
            ),
            labels=Labels(
                store,
                receipts,
                alarms,
                ttl_seconds=settings.receipt_ttl_seconds,
                window_labels=settings.window_labels,
                clock=clock,
                count_label=self._count_label,
            ),
            alarms=alarms,
            retention=Retention(
                store,
                artifacts,
                keep_seconds=settings.receipt_ttl_seconds + CLOCK_TOLERANCE_SECONDS,
                seconds=settings.sweep_seconds,
                clock=clock,
            ),
            statistics=Statistics(
                store,
                catalogue,
                ttl_seconds=settings.receipt_ttl_seconds,
                rules=rules,
                clock=clock,
            ),
        )
        refits.start()
        self._watch = RepositoryWatch(
            settings.model_repository,
            catalogue,
            store,
            interval_seconds=settings.repository_poll_seconds,
        )
        self._watch.start()
        self._parts.following.start()
        self._parts.retention.start()

    @property
    def parts(self) -> Parts:
        """What the plane is made of.

        Raises
        ------
        Unavailable
            It has not started, or has ended.
        """
        if self._parts is None:
            raise Unavailable("the service is starting or ending")
        return self._parts

    @property
    def receipts(self) -> Receipts:
        """Issues and verifies prediction ids with the shared keys."""
        return self.parts.receipts

    def label_statistics(self) -> ControlStatistics:
        """What the database says for the metrics; the last known while it is away."""
        return ControlStatistics() if self._parts is None else self._parts.statistics.read()

    def look(self) -> None:
        """Take over now what other processes have changed.

        Raises
        ------
        Unavailable
        """
        self.parts.following.look()

    def router(self) -> APIRouter:
        """The control routes; they answer once the plane has started."""
        from service.control.routes import create_router  # routes know the plane's type

        return create_router(self)

    def ready(self) -> dict[str, Any]:
        """What readiness says. Returns at once: the database is asked by a thread.

        Returns
        -------
        dict
            ``status`` and ``database``, ``ok`` or ``degraded``, and ``unavailable``: how many
            versions are refused.
        """
        now = time.monotonic()
        if now - self._checked_at > _CHECK_SECONDS and not self._checking.locked():
            self._checked_at = now
            threading.Thread(target=self._check, name="trueprob-readiness", daemon=True).start()
        state = "ok" if self._answers else "degraded"
        refused = 0 if self._parts is None else len(self._parts.catalogue.unavailable)
        return {"status": state, "database": state, "unavailable": refused}

    def close(self) -> None:
        """Stop fitting and close the database; what was acknowledged is stored already."""
        parts, self._parts = self._parts, None
        if parts is not None:
            if self._watch is not None:
                self._watch.close()
            parts.retention.close()
            parts.following.close()
            parts.refits.close()
            with self._checking:  # a connection in use would outlive the pool
                parts.store.close()

    def _check(self) -> None:
        with self._checking:
            parts = self._parts
            if parts is not None:
                self._answers = parts.store.answers()
