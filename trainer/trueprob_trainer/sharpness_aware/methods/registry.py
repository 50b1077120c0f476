"""The optimisers by name, and their own hyperparameters: for command lines and configs."""

import inspect
from collections.abc import Mapping
from typing import Any

from trueprob_trainer.sharpness_aware.methods.asam import ASAM
from trueprob_trainer.sharpness_aware.methods.csam import CSAM
from trueprob_trainer.sharpness_aware.methods.esam import ESAM
from trueprob_trainer.sharpness_aware.methods.fisher_sam import FisherSAM
from trueprob_trainer.sharpness_aware.methods.functional_sam import FunctionalSAM
from trueprob_trainer.sharpness_aware.methods.look_sam import LookSAM
from trueprob_trainer.sharpness_aware.methods.momentum_sam import MomentumSAM
from trueprob_trainer.sharpness_aware.methods.periodic import PeriodicSAM
from trueprob_trainer.sharpness_aware.methods.plain import Plain
from trueprob_trainer.sharpness_aware.methods.preconditioned_functional_sam import (
    PreconditionedFunctionalSAM,
)
from trueprob_trainer.sharpness_aware.methods.preconditioned_sam import PreconditionedSAM
from trueprob_trainer.sharpness_aware.methods.sam import SAM
from trueprob_trainer.sharpness_aware.wrapper import WrappedOptimizer

OPTIMISERS: dict[str, type[WrappedOptimizer]] = {
    "sgd": Plain,
    "sam": SAM,
    "periodic-sam": PeriodicSAM,
    "asam": ASAM,
    "fisher-sam": FisherSAM,
    "esam": ESAM,
    "looksam": LookSAM,
    "momentum-sam": MomentumSAM,
    "csam": CSAM,
    "functional-sam": FunctionalSAM,
    "preconditioned-sam": PreconditionedSAM,
    "preconditioned-functional-sam": PreconditionedFunctionalSAM,
}
"""Names that ``--optimiser`` takes; each wraps ``torch.optim.SGD`` in the training loop."""


def options_of(name: str) -> dict[str, Any]:
    """Hyperparameters of an optimiser beside ``rho``, and their defaults.

    Parameters
    ----------
    name : str
        A key of :data:`OPTIMISERS`.

    Returns
    -------
    dict
    """
    return {
        parameter.name: parameter.default
        for kind in reversed(OPTIMISERS[name].__mro__)
        if "__init__" in vars(kind) and kind.__module__.startswith(__package__ or "")
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and type(parameter.default) in (int, float, str)
    }


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Refuse hyperparameters that an optimiser does not take.

    Parameters
    ----------
    name : str
        A key of :data:`OPTIMISERS`.
    options : mapping of str to int, float or str
        Their ranges are the optimiser's own business.

    Raises
    ------
    ValueError
        No such hyperparameter, or not a value of its type.
    """
    defaults = options_of(name)
    for key, value in options.items():
        if key not in defaults:
            known = ", ".join(defaults) or "no options"
            raise ValueError(f"optimiser {name} takes {known}, got {key}")
        kind = type(defaults[key])
        allowed = (int, float) if kind is float else (kind,)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise ValueError(f"{key} must be of type {kind.__name__}, got {type(value).__name__}")
