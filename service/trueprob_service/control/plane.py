"""The control plane: opens the database, starts the services, and closes them in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trueprob_service.control.assembly import ControlServices, Resources, assemble
from trueprob_service.control.canary import Canary, reason
from trueprob_service.control.fitting.process import FitProcess, JobRunner
from trueprob_service.control.fitting.set_location import open_set_files
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.models.repository_watch import RepositoryWatch
from trueprob_service.control.store import open_store
from trueprob_service.control.upkeep.webhook import Webhook
from trueprob_service.errors import Unavailable
from trueprob_service.inference.deployments import Deployments
from trueprob_service.metrics.label_statistics import ControlStatistics
from trueprob_service.receipts.identified import IdentifiedQueue
from trueprob_service.receipts.receipt import Receipts
from trueprob_service.receipts.secrets import open_receipt_keys
from trueprob_service.settings import Settings
from trueprob_service.webhook_settings import read_secrets

__all__ = ["ControlPlane"]


class ControlPlane:
    """Runs the control services of one process."""

    def __init__(
        self,
        settings: Settings,
        *,
        deployments: Deployments,  # receives every pair that becomes live
        clock: Callable[[], float],  # seconds since 1970 UTC
        # Metrics of labels: model, outcome, number of labels, their lags in seconds.
        count_label: Callable[[str, str, int, Sequence[float]], None],
        # Metrics of the webhook: kind of event, outcome of an attempt.
        count_delivery: Callable[[str, str], None] | None = None,
        job_runner: Callable[[], JobRunner] = FitProcess,  # runs the fits
    ) -> None:
        self._settings = settings
        self._deployments = deployments
        self._clock = clock
        self._count_label = count_label
        self._count_delivery = count_delivery
        self._job_runner = job_runner
        self._services: ControlServices | None = None
        self._watch: RepositoryWatch | None = None
        self._webhook: Webhook | None = None
        self._canary: Canary | None = None
        # Answered rows with ids; None: nothing is remembered.
        self.identified = IdentifiedQueue() if settings.remember_ttl_seconds else None

    def start(self) -> None:
        """Open and migrate the database, load the models, resume interrupted fits.

        Raises `DatabaseUnavailable` if the database does not answer, and `InvalidSettings` if the
        file of the receipt secret or `artifact_url` cannot be used.
        """
        settings, clock = self._settings, self._clock
        receipts = Receipts(
            open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file), clock=clock
        )
        set_files = open_set_files(settings.state_dir, settings.artifact_url)
        keep_events = bool(settings.webhook_url)
        store = open_store(
            settings.resolved_database_url,
            keep_events=keep_events,
            timeout_seconds=settings.database_timeout_seconds,
        )
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
        self._services = assemble(
            settings,
            Resources(store, receipts, catalogue, set_files, self._deployments, self.identified),
            job_runner=self._job_runner(),
            clock=clock,
            count_label=self._count_label,
        )
        self._canary = Canary(store, settings.state_dir)
        self._canary.start()
        if self._services.memory is not None:
            self._services.memory.start()
        self._services.fit_runner.start()
        watch.start()
        self._services.replica_sync.start()
        self._services.retention.start()
        self._services.refit_policy.start()
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
    def services(self) -> ControlServices:
        """The services; raises `Unavailable` before `start` and after `close`."""
        if self._services is None:
            raise Unavailable("the service is starting or stopping")
        return self._services

    @property
    def receipts(self) -> Receipts:
        """The object that issues and verifies prediction ids."""
        return self.services.receipts

    def label_statistics(self, totals: bool = True) -> ControlStatistics:
        """Statistics from the database; the last known ones while it does not answer."""
        if self._services is None:
            return ControlStatistics()
        return self._services.statistics.read(totals=totals)

    def memory_figures(self) -> Mapping[str, float]:
        """Figures of the memory of predictions with ids; empty without one."""
        memory = None if self._services is None else self._services.memory
        return {} if memory is None else memory.figures()

    def sync(self) -> None:
        """Apply the changes that other processes have made in the database."""
        self.services.replica_sync.sync()

    @property
    def faults(self) -> dict[str, str]:
        """The faults of ``database`` and ``files``, as the canary has last found them."""
        return {} if self._canary is None else self._canary.faults

    @property
    def unavailable(self) -> Mapping[tuple[str, int], str]:
        """The versions that are refused here or run without their network, and why."""
        return {} if self._services is None else self._services.catalogue.unavailable

    def ready(self) -> dict[str, Any]:
        """`status`, `database` and `files` ("ok" or "degraded"), and the `reasons` if degraded.

        Also how many versions are `unavailable`. Returns at once, with what the canary found.
        """
        faults = self.faults
        document: dict[str, Any] = {
            "status": "degraded" if faults else "ok",
            **{part: "degraded" if part in faults else "ok" for part in ("database", "files")},
            "unavailable": len(self.unavailable),
        }
        if faults:
            document["reasons"] = [
                {"component": part, "fault": fault, "detail": reason(part, fault)}
                for part, fault in faults.items()
            ]
        return document

    def close(self) -> None:
        """Stop the services and close the database; all acknowledged data are stored."""
        services, self._services = self._services, None
        if services is not None:
            if self._watch is not None:
                self._watch.close()
            if self._webhook is not None:
                self._webhook.close()
            if services.memory is not None:
                services.memory.close()
            services.refit_policy.close()
            services.retention.close()
            services.replica_sync.close()
            services.fit_runner.close()
            services.statistics.close()
            if self._canary is not None:
                self._canary.close()
            services.store.close()
