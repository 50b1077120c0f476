"""Monitoring of a calibrated model, with labels and without.

| question | needs | statistic |
|---|---|---|
| Has the model been miscalibrated since the start? | labels | `Evidence` |
| Has it just become miscalibrated? | labels | `ChangeDetector` |
| How large is the error, at all times? | labels | `ErrorInterval` |
| Is a candidate calibrator better? | labels, both losses | `Comparison` |
| Is the traffic unlike the calibration split? | logits | `ReferenceBins` |
| Which accuracy and entropy does the model expect? | confidences | `UnlabelledTraffic` |

The first four bound the probability or the rate of false claims, however often you look;
`live_verdict` says in one sentence what the first three prove. Each module states its null
hypothesis, its guarantee and what breaks it. The statistics are frozen configurations; `update`
takes a state and returns the next one, which the caller stores.
"""

from trueprob.drift.alarm_statistics import ChangeDetector, Evidence
from trueprob.drift.bet_state import BetState
from trueprob.drift.calibration_bets import CalibrationBets
from trueprob.drift.comparison import Comparison, ComparisonState, top_label_brier
from trueprob.drift.counting_order import Factors
from trueprob.drift.error_interval import ErrorInterval, ErrorSums
from trueprob.drift.expected_accuracy import UnlabelledTraffic
from trueprob.drift.live_verdict import LiveVerdict, VerdictState, live_verdict
from trueprob.drift.reference_bins import ReferenceBins

__all__ = [
    "BetState",
    "CalibrationBets",
    "ChangeDetector",
    "Comparison",
    "ComparisonState",
    "ErrorInterval",
    "ErrorSums",
    "Evidence",
    "Factors",
    "LiveVerdict",
    "ReferenceBins",
    "UnlabelledTraffic",
    "VerdictState",
    "live_verdict",
    "top_label_brier",
]
