"""What a started control plane is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trueprob_service.control.fitting.policy import RefitPolicy
from trueprob_service.control.fitting.runner import Refits
from trueprob_service.control.fitting.set_files import Artifacts
from trueprob_service.control.fitting.stored_sets import StoredSets
from trueprob_service.control.fitting.uploads import CalibrationSets
from trueprob_service.control.labels.alarms import Alarms
from trueprob_service.control.labels.by_receipt import Labels
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
from trueprob_service.receipts.receipt import Receipts
from trueprob_service.settings import Settings

__all__ = ["Parts"]


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
    deletions: Deletions
    following: Following
    promotions: Promotions
    shadows: Shadows
    refits: Refits
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
