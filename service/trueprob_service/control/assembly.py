"""Builds the services of the control plane and connects them; starts none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trueprob_service.control.fitting.outcome import FitEnding
from trueprob_service.control.fitting.policy import RefitPolicy
from trueprob_service.control.fitting.process import FitRunner
from trueprob_service.control.fitting.queue import FitQueue
from trueprob_service.control.fitting.records import FitRecords
from trueprob_service.control.fitting.runner import Refits
from trueprob_service.control.fitting.set_files import Artifacts
from trueprob_service.control.fitting.stored_sets import StoredSets
from trueprob_service.control.fitting.uploads import CalibrationSets
from trueprob_service.control.labels.alarms import AlarmRules, Alarms
from trueprob_service.control.labels.by_receipt import CLOCK_TOLERANCE_SECONDS, Labels
from trueprob_service.control.labels.by_row import RowLabels
from trueprob_service.control.labels.refit_window import RefitWindow
from trueprob_service.control.labels.statistics import Statistics
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.models.declaration import Declarations
from trueprob_service.control.models.deletion import Deletions
from trueprob_service.control.models.description import Descriptions
from trueprob_service.control.models.other_replicas import Following
from trueprob_service.control.models.promotion import Promotions
from trueprob_service.control.models.shadows import Shadows
from trueprob_service.control.store import Store
from trueprob_service.control.upkeep.retention import Retention
from trueprob_service.inference.deployments import Deployments
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
    following: Following
    promotions: Promotions
    shadows: Shadows
    refits: Refits
    fit_records: FitRecords
    refit_window: RefitWindow
    refit_policy: RefitPolicy
    artifacts: Artifacts
    stored_sets: StoredSets
    calibration_sets: CalibrationSets
    labels: Labels
    alarms: Alarms
    row_labels: RowLabels
    retention: Retention
    statistics: Statistics


@dataclass(frozen=True)
class Resources:
    """What the services work on: opened before them, closed after them."""

    store: Store
    receipts: Receipts
    catalogue: Catalogue  # started
    artifacts: Artifacts
    deployments: Deployments


def assemble(
    settings: Settings,
    resources: Resources,
    *,
    fit_runner: FitRunner,
    clock: Callable[[], float],  # seconds since 1970 UTC
    # Called with the model, an outcome, how many labels had it, and their lags in seconds.
    count_label: Callable[[str, str, int, Sequence[float]], None],
) -> ControlServices:
    """Build every service."""
    store, receipts = resources.store, resources.receipts
    catalogue, artifacts = resources.catalogue, resources.artifacts
    refits = Refits(
        FitQueue(
            store,
            catalogue,
            artifacts,
            ending=FitEnding(catalogue, settings),
            clock=clock,
        ),
        fit_runner,
        seconds=settings.poll_seconds,
        deadline_seconds=settings.fit_deadline_seconds,
    )
    following = Following(
        store,
        catalogue,
        resources.deployments,
        seconds=settings.poll_seconds,
        patience_seconds=3 * settings.repository_poll_seconds,
    )
    refit_window = RefitWindow(store, settings=settings)
    rules = AlarmRules.of(
        tolerance=settings.alarm_tolerance,
        alpha=settings.alarm_alpha,
        run_length=settings.alarm_run_length_labels,
    )
    alarms = Alarms(store, rules, clock=clock)
    stored_sets = StoredSets(store, artifacts, refits, settings=settings, clock=clock)
    return ControlServices(
        settings=settings,
        store=store,
        receipts=receipts,
        catalogue=catalogue,
        descriptions=Descriptions(store, catalogue),
        declarations=Declarations(store, catalogue, clock=clock),
        deletions=Deletions(store, following, refits, root=settings.model_repository, clock=clock),
        following=following,
        promotions=Promotions(store, catalogue, clock=clock),
        shadows=Shadows(store, catalogue, settings=settings, clock=clock),
        refits=refits,
        fit_records=FitRecords(store, refits, clock=clock),
        refit_window=refit_window,
        refit_policy=RefitPolicy(
            store,
            refit_window,
            stored_sets,
            resources.deployments,
            settings=settings,
            clock=clock,
        ),
        artifacts=artifacts,
        stored_sets=stored_sets,
        calibration_sets=CalibrationSets(
            stored_sets,
            refit_window,
            artifacts.uploads,
            deployments=resources.deployments,
            following=following,
            settings=settings,
        ),
        labels=Labels(
            store,
            catalogue,
            receipts,
            alarms,
            labels_per_input=settings.labels_per_input,
            ttl_seconds=settings.receipt_ttl_seconds,
            window_labels=settings.window_labels,
            clock=clock,
            count_label=count_label,
        ),
        row_labels=RowLabels(
            store,
            refit_window,
            labels_per_input=settings.labels_per_input,
            ttl_seconds=settings.receipt_ttl_seconds,
            clock=clock,
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
