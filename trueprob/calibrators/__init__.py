"""Calibrators: frozen values that turn logits into probabilities, and the functions that fit them.

`base` defines what all share, `document` reads and writes `calibrator.json`. `temperature` (with
`identity`), `isotonic` and `stack` hold calibrators; `smart`, `linear` and `published_smart` are
packages. `input_stage` is about zeros and wild scales, `uncertainty` about intervals; `parameters`,
`confidence` and `soft_ece` are used by several.
"""

from trueprob.calibrators.base import Calibrated, Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.document import (
    KINDS,
    FittedOn,
    dumps_calibrator,
    from_dict,
    loads_calibrator,
    read_fitted_on,
    to_dict,
)
from trueprob.calibrators.isotonic import IsotonicCalibrator, fit_isotonic
from trueprob.calibrators.linear.smart_vector_matrix import (
    SmartMatrixCalibrator,
    SmartVectorCalibrator,
    fit_smart_matrix,
    fit_smart_vector,
)
from trueprob.calibrators.linear.vector import VectorCalibrator, fit_vector
from trueprob.calibrators.published_smart.smart_mlp import SmartMlpCalibrator, fit_smart_mlp
from trueprob.calibrators.smart.binary import SmartBinaryCalibrator
from trueprob.calibrators.smart.binary_fit import fit_smart_binary
from trueprob.calibrators.smart.calibrator import SmartCalibrator, fit_smart
from trueprob.calibrators.stack import StackCalibrator
from trueprob.calibrators.temperature import (
    IdentityCalibrator,
    TemperatureCalibrator,
    fit_identity,
    fit_temperature,
)

__all__ = [
    "KINDS",
    "Calibrated",
    "Calibrator",
    "FitOutcome",
    "FittedCalibrator",
    "FittedOn",
    "IdentityCalibrator",
    "IsotonicCalibrator",
    "SmartBinaryCalibrator",
    "SmartCalibrator",
    "SmartMatrixCalibrator",
    "SmartMlpCalibrator",
    "SmartVectorCalibrator",
    "StackCalibrator",
    "TemperatureCalibrator",
    "VectorCalibrator",
    "dumps_calibrator",
    "fit_identity",
    "fit_isotonic",
    "fit_smart",
    "fit_smart_binary",
    "fit_smart_matrix",
    "fit_smart_mlp",
    "fit_smart_vector",
    "fit_temperature",
    "fit_vector",
    "from_dict",
    "loads_calibrator",
    "read_fitted_on",
    "to_dict",
]
