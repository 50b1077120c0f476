"""Monitoring of a calibrated model, with labels and without.

| question | needs | statistic |
|---|---|---|
| Has the model been miscalibrated since the start? | labels | `Evidence` |
| Has it just become miscalibrated? | labels | `ChangeDetector` |
| Is a candidate calibrator better? | labels, both losses | `Comparison` |
| Is the traffic unlike the calibration split? | logits | `ReferenceBins` |
| Which accuracy and entropy does the model expect? | confidences | `UnlabelledTraffic` |

The first three bound the probability or the rate of false alarms, however often you look. Each
module states its null hypothesis, its guarantee and what breaks it. The statistics are frozen
configurations; `update` takes a state and returns the next one, which the caller stores.
"""

from trueprob.drift.bet_state import BetState
from trueprob.drift.calibration_bets import CalibrationBets
from trueprob.drift.change_detector import ChangeDetector
from trueprob.drift.comparison import Comparison, ComparisonState, top_label_brier
from trueprob.drift.counting_order import Factors
from trueprob.drift.evidence import Evidence
from trueprob.drift.expected_accuracy import UnlabelledTraffic
from trueprob.drift.reference_bins import ReferenceBins

__all__ = [
    "BetState",
    "CalibrationBets",
    "ChangeDetector",
    "Comparison",
    "ComparisonState",
    "Evidence",
    "Factors",
    "ReferenceBins",
    "UnlabelledTraffic",
    "top_label_brier",
]
