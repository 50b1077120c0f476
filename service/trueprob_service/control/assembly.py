"""Builds the services of the control plane and connects them; starts none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trueprob_service.control.audit.trail import AuditTrail
from trueprob_service.control.fitting.outcome import CandidateOutcomes
from trueprob_service.control.fitting.policy import RefitPolicy
from trueprob_service.control.fitting.process import JobRunner
from trueprob_service.control.fitting.queue import FitQueue
from trueprob_service.control.fitting.records import FitRecords
from trueprob_service.control.fitting.runner import FitRunner
from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.fitting.stored_sets import StoredSets
from trueprob_service.control.fitting.uploads import CalibrationSetUploads
from trueprob_service.control.labels.alarms import AlarmRules, Alarms
from trueprob_service.control.labels.by_id import IdLabels
from trueprob_service.control.labels.by_receipt import CLOCK_TOLERANCE_SECONDS, ReceiptLabels
from trueprob_service.control.labels.by_row import RowLabels
from trueprob_service.control.labels.refit_window import RefitWindow
from trueprob_service.control.labels.statistics import LabelStatistics
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.models.declaration import Declarations, Deletions
from trueprob_service.control.models.description import Descriptions
from trueprob_service.control.models.promotion import Promotions
from trueprob_service.control.models.replica_sync import ReplicaSync
from trueprob_service.control.models.shadows import Shadows
from trueprob_service.control.remembered.memory import Memory
from trueprob_service.control.store import Store
from trueprob_service.control.upkeep.retention import Retention
from trueprob_service.inference.deployments import Deployments
from trueprob_service.receipts.identified import IdentifiedQueue
from trueprob_service.receipts.receipt import Receipts
from trueprob_service.settings import Settings

__all__ = ["ControlServices", "Resources", "assemble"]


@dataclass(frozen=True)
class ControlServices:
    """The services of a control plane. Routes use all of them but `store`."""

    settings: Settings
    store: Store
    receipts: Receipts
    catalogue: Catalogue
    descriptions: Descriptions
    declarations: Declarations
    deletions: Deletions
    replica_sync: ReplicaSync
    promotions: Promotions
    shadows: Shadows
    fit_runner: FitRunner
    fit_records: FitRecords
    refit_window: RefitWindow
    refit_policy: RefitPolicy
    set_files: SetFiles
    stored_sets: StoredSets
    set_uploads: CalibrationSetUploads
    receipt_labels: ReceiptLabels
    id_labels: IdLabels
    memory: Memory | None  # of predictions with ids; None: nothing is remembered
    alarms: Alarms
    row_labels: RowLabels
    retention: Retention
    statistics: LabelStatistics
    audit: AuditTrail


@dataclass(frozen=True)
class Resources:
    """What the services use; opened before them and closed after them."""

    store: Store
    receipts: Receipts
    catalogue: Catalogue  # started
    set_files: SetFiles
    deployments: Deployments
    identified: IdentifiedQueue | None  # answered rows with ids; None: nothing is remembered


def assemble(
    settings: Settings,
    resources: Resources,
    *,
    job_runner: JobRunner,
    clock: Callable[[], float],  # seconds since 1970 UTC
    # Called with the model, an outcome, the number of labels with it, and their lags in seconds.
    count_label: Callable[[str, str, int, Sequence[float]], None],
) -> ControlServices:
    """Build every service."""
    store, receipts = resources.store, resources.receipts
    catalogue, set_files = resources.catalogue, resources.set_files
    runner = FitRunner(
        FitQueue(
            store,
            catalogue,
            set_files,
            outcomes=CandidateOutcomes(catalogue, settings),
            clock=clock,
        ),
        job_runner,
        seconds=settings.poll_seconds,
        deadline_seconds=settings.fit_deadline_seconds,
    )
    replica_sync = ReplicaSync(
        store,
        catalogue,
        resources.deployments,
        seconds=settings.poll_seconds,
        patience_seconds=3 * settings.repository_poll_seconds,
    )
    refit_window = RefitWindow(store, settings=settings)
    rules = AlarmRules.from_options(
        tolerance=settings.alarm_tolerance,
        class_tolerance=settings.alarm_class_tolerance,
        alpha=settings.alarm_alpha,
        run_length=settings.alarm_run_length_labels,
    )
    alarms = Alarms(store, rules, clock=clock)
    statistics = LabelStatistics(
        store,
        catalogue,
        ttl_seconds=settings.receipt_ttl_seconds,
        rules=rules,
        clock=clock,
    )
    receipt_labels = ReceiptLabels(
        store,
        catalogue,
        receipts,
        alarms,
        settings=settings,
        clock=clock,
        count_label=count_label,
    )
    identified = resources.identified
    memory = (
        None
        if identified is None
        else Memory(store, identified, receipts, settings=settings, clock=clock)
    )
    audit = AuditTrail(store, keep_days=settings.audit_keep_days, clock=clock)
    stored_sets = StoredSets(store, set_files, runner, settings=settings, clock=clock)
    return ControlServices(
        settings=settings,
        store=store,
        receipts=receipts,
        catalogue=catalogue,
        descriptions=Descriptions(store, catalogue, statistics.verdicts),
        declarations=Declarations(store, catalogue, clock=clock),
        deletions=Deletions(
            store,
            replica_sync,
            on_fits_ended=runner.check_cancelled,
            root=settings.model_repository,
            clock=clock,
        ),
        replica_sync=replica_sync,
        promotions=Promotions(store, catalogue, settings=settings, clock=clock),
        shadows=Shadows(store, catalogue, settings=settings, clock=clock),
        fit_runner=runner,
        fit_records=FitRecords(store, runner, clock=clock),
        refit_window=refit_window,
        refit_policy=RefitPolicy(
            store,
            refit_window,
            stored_sets,
            resources.deployments,
            settings=settings,
            clock=clock,
        ),
        set_files=set_files,
        stored_sets=stored_sets,
        set_uploads=CalibrationSetUploads(
            stored_sets,
            refit_window,
            set_files.uploads,
            deployments=resources.deployments,
            replica_sync=replica_sync,
            settings=settings,
        ),
        receipt_labels=receipt_labels,
        id_labels=IdLabels(memory, receipt_labels),
        memory=memory,
        row_labels=RowLabels(
            store,
            refit_window,
            masks=resources.deployments.masks,
            labels_per_input=settings.labels_per_input,
            ttl_seconds=settings.receipt_ttl_seconds,
            clock=clock,
        ),
        alarms=alarms,
        retention=Retention(
            store,
            set_files,
            audit,
            memory,
            keep_seconds=settings.receipt_ttl_seconds + CLOCK_TOLERANCE_SECONDS,
            seconds=settings.sweep_seconds,
            clock=clock,
        ),
        statistics=statistics,
        audit=audit,
    )
