"""One calibrator a file; a calibrator is a frozen value, see `base`."""

from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.document import (
    KINDS,
    FittedOn,
    dumps_calibrator,
    from_dict,
    loads_calibrator,
    read_fitted_on,
    to_dict,
)
from trueprob.calibrators.identity import IdentityCalibrator, fit_identity
from trueprob.calibrators.smart import SmartCalibrator, fit_smart
from trueprob.calibrators.smart_mlp import SmartMlpCalibrator, fit_smart_mlp
from trueprob.calibrators.temperature import TemperatureCalibrator, fit_temperature

__all__ = [
    "KINDS",
    "Calibrator",
    "FitOutcome",
    "FittedCalibrator",
    "FittedOn",
    "IdentityCalibrator",
    "SmartCalibrator",
    "SmartMlpCalibrator",
    "TemperatureCalibrator",
    "dumps_calibrator",
    "fit_identity",
    "fit_smart",
    "fit_smart_mlp",
    "fit_temperature",
    "from_dict",
    "loads_calibrator",
    "read_fitted_on",
    "to_dict",
]
