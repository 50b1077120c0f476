"""What a started control plane is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trueprob_service.control.alarms import Alarms
from trueprob_service.control.artifacts import Artifacts
from trueprob_service.control.calibration_sets import CalibrationSets
from trueprob_service.control.declarations import Declarations
from trueprob_service.control.deletion import Deletions
from trueprob_service.control.description import Descriptions
from trueprob_service.control.following import Following
from trueprob_service.control.labels import Labels
from trueprob_service.control.models import Catalogue
from trueprob_service.control.promotion import Promotions
from trueprob_service.control.refit import Refits
from trueprob_service.control.refit_policy import RefitPolicy
from trueprob_service.control.refit_window import RefitWindow
from trueprob_service.control.retention import Retention
from trueprob_service.control.row_labels import RowLabels
from trueprob_service.control.shadows import Shadows
from trueprob_service.control.statistics import Statistics
from trueprob_service.control.store import Store
from trueprob_service.control.stored_sets import StoredSets
from trueprob_service.receipts import Receipts
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
