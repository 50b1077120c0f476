"""One database transaction and the nouns that can be read and written in it."""

from __future__ import annotations

from sqlalchemy import Connection

from trueprob_service.control.store.alarm_states import AlarmStates
from trueprob_service.control.store.alarms import Alarms
from trueprob_service.control.store.calibration_sets import CalibrationSets
from trueprob_service.control.store.calibrators import Calibrators
from trueprob_service.control.store.deleted_models import DeletedModels
from trueprob_service.control.store.earlier_fits import EarlierFits
from trueprob_service.control.store.events import Events
from trueprob_service.control.store.fits import Fits
from trueprob_service.control.store.group_counts import GroupCounts
from trueprob_service.control.store.label_sums import Bins
from trueprob_service.control.store.labelled_rows import LabelledRows
from trueprob_service.control.store.labels import LabelKeys
from trueprob_service.control.store.models import Models
from trueprob_service.control.store.policy_fits import PolicyFits
from trueprob_service.control.store.promotions import Promotions
from trueprob_service.control.store.shadows import Shadows
from trueprob_service.control.store.state import State
from trueprob_service.control.store.upkeep import Swept
from trueprob_service.control.store.window_blocks import WindowBlocks

__all__ = ["Transaction"]


class Transaction:
    """Ends with the block of `Store.write` or `Store.read` that gave it.

    One attribute a noun: see the module of the same name.
    """

    def __init__(self, connection: Connection, *, keep_events: bool = False) -> None:
        self.models = Models(connection)
        self.deleted_models = DeletedModels(connection)
        self.calibrators = Calibrators(connection)
        self.promotions = Promotions(connection)
        self.calibration_sets = CalibrationSets(connection)
        self.fits = Fits(connection)
        self.earlier_fits = EarlierFits(connection)
        self.policy_fits = PolicyFits(connection)
        self.label_keys = LabelKeys(connection)
        self.labelled_rows = LabelledRows(connection)
        self.state = State(connection)
        self.swept = Swept(connection)
        self.alarm_states = AlarmStates(connection)
        self.group_counts = GroupCounts(connection)
        self.alarms = Alarms(connection)
        self.bins = Bins(connection)
        self.window_blocks = WindowBlocks(connection)
        self.shadows = Shadows(connection)
        self.events = Events(connection, kept=keep_events)
