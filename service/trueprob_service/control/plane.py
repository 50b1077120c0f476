"""The control plane put together: what it is made of, how it starts and how it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter

from trueprob_service.control.assembly import Opened, Parts, assemble
from trueprob_service.control.fitting.process import FitProcess, JobRunner
from trueprob_service.control.fitting.set_location import open_set_files
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.models.repository_watch import RepositoryWatch
from trueprob_service.control.store import open_store
from trueprob_service.control.upkeep.webhook import Webhook
from trueprob_service.errors import Unavailable
from trueprob_service.inference.deployments import Deployments
from trueprob_service.metrics.label_statistics import ControlStatistics
from trueprob_service.receipts.receipt import Receipts
from trueprob_service.receipts.secrets import open_receipt_keys
from trueprob_service.settings import Settings
from trueprob_service.webhook_settings import read_secrets

__all__ = ["ControlPlane", "Parts"]

_LOG: Final = logging.getLogger(__name__)
_CHECK_SECONDS: Final = 2.0


class ControlPlane:
    """Learns, decides and remembers."""

    def __init__(
        self,
        settings: Settings,
        *,
        deployments: Deployments,  # told of every pair that is to answer
        clock: Callable[[], float],  # seconds since 1970 UTC
        count_label: Callable[[str, str, int, Sequence[float]], None],
        count_delivery: Callable[[str, str], None] | None = None,
        job_runner: Callable[[], JobRunner] = FitProcess,
    ) -> None:
        self._settings = settings
        self._deployments = deployments
        self._clock = clock
        self._count_label = count_label
        self._count_delivery = count_delivery
        self._job_runner = job_runner
        self._parts: Parts | None = None
        self._watch: RepositoryWatch | None = None
        self._webhook: Webhook | None = None
        self._checking = threading.Lock()
        self._answers = True
        self._checked_at = 0.0

    def start(self) -> None:
        """Open and migrate the database, load the models, take up interrupted fits.

        Raises `DatabaseUnavailable`: the database cannot be reached. Raises `InvalidSettings`: the
        file of the receipt secret or ``artifact_url`` cannot be used.
        """
        settings, clock = self._settings, self._clock
        receipts = Receipts(
            open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file), clock=clock
        )
        set_files = open_set_files(settings.state_dir, settings.artifact_url)
        keep_events = bool(settings.webhook_url)
        store = open_store(settings.resolved_database_url, keep_events=keep_events)
        try:
            catalogue = Catalogue(self._deployments, clock=clock)
            catalogue.start(store, settings.model_repository)
        except BaseException:
            store.close()
            raise
        watch = self._watch = RepositoryWatch(
            settings.model_repository,
            catalogue,
            store,
            interval_seconds=settings.repository_poll_seconds,
        )
        self._parts = assemble(
            settings,
            Opened(store, receipts, catalogue, set_files, self._deployments),
            job_runner=self._job_runner(),
            clock=clock,
            count_label=self._count_label,
        )
        self._parts.fit_runner.start()
        watch.start()
        self._parts.replica_sync.start()
        self._parts.retention.start()
        self._parts.refit_policy.start()
        if settings.webhook_url:
            self._webhook = Webhook(
                store,
                settings.webhook_url,
                read_secrets(settings.webhook_secret),
                seconds=settings.poll_seconds,
                clock=clock,
                count=self._count_delivery,
            )
            self._webhook.start()

    @property
    def parts(self) -> Parts:
        """What the plane is made of.

        Raises `Unavailable`: it has not started, or has ended.
        """
        if self._parts is None:
            raise Unavailable("the service is starting or ending")
        return self._parts

    @property
    def receipts(self) -> Receipts:
        """Issues and verifies prediction ids."""
        return self.parts.receipts

    def label_statistics(self) -> ControlStatistics:
        """What the database says for the metrics; the last known while it is away."""
        return ControlStatistics() if self._parts is None else self._parts.statistics.read()

    def look(self) -> None:
        """Take over now what other processes have changed."""
        self.parts.replica_sync.sync()

    def router(self) -> APIRouter:
        """The control routes; they answer once the plane has started."""
        from trueprob_service.control.api.router import (
            create_router,  # routes know the plane's type
        )

        return create_router(self)

    def ready(self) -> dict[str, Any]:
        """What readiness says. Returns at once: the database is asked by a thread.

        Returns: ``status`` and ``database``, ``ok`` or ``degraded``, and ``unavailable``: how many
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
            if self._webhook is not None:
                self._webhook.close()
            parts.refit_policy.close()
            parts.retention.close()
            parts.replica_sync.close()
            parts.fit_runner.close()
            with self._checking:  # a connection in use would outlive the pool
                parts.store.close()

    def _check(self) -> None:
        with self._checking:
            parts = self._parts
            if parts is not None:
                self._answers = parts.store.answers()
