"""What a started control plane is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.control.alarms import Alarms
from service.control.artifacts import Artifacts
from service.control.calibration_sets import CalibrationSets
from service.control.declarations import Declarations
from service.control.deletion import Deletions
from service.control.description import Descriptions
from service.control.following import Following
from service.control.labels import Labels
from service.control.models import Catalogue
from service.control.promotion import Promotions
from service.control.refit import Refits
from service.control.refit_policy import RefitPolicy
from service.control.refit_window import RefitWindow
from service.control.retention import Retention
from service.control.row_labels import RowLabels
from service.control.shadows import Shadows
from service.control.statistics import Statistics
from service.control.store import Store
from service.control.stored_sets import StoredSets
from service.receipts import Receipts
from service.settings import Settings

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
