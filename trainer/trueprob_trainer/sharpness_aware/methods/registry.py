"""The optimisers by name, with their hyperparameters: for command lines and configs."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trueprob_trainer.importing import imported
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
from trueprob_trainer.sharpness_aware.two_passes import TwoPassOptimizer
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
"""Optimisers by the names that ``--optimiser`` takes, beside ``package.module:Class``."""

# An entry of a numpydoc section: "name : type", and indented lines.
_ENTRY = r"^{} : \w+\n((?: {{4}}.+\n?)+)"


def optimiser_class(name: str) -> type[WrappedOptimizer]:
    """The class of an optimiser.

    Parameters
    ----------
    name : str
        A key of :data:`OPTIMISERS`, or ``package.module:Class`` for a class of your own, which is
        also found in the current folder.

    Returns
    -------
    type

    Raises
    ------
    ValueError
        There is no such optimiser, or the class is not of this family.
    """
    if name in OPTIMISERS:
        return OPTIMISERS[name]
    if ":" not in name:
        names = ", ".join(OPTIMISERS)
        raise ValueError(f"optimiser must be one of {names} or package.module:Class, got {name}")
    try:
        found = imported(name)
    except ValueError as problem:
        raise ValueError(f"optimiser {problem}") from problem
    if not (isinstance(found, type) and issubclass(found, WrappedOptimizer)):
        raise ValueError(f"optimiser {name} must be a class of WrappedOptimizer's family")
    return found


def default_rho(name: str) -> float:
    """The radius that an optimiser takes if none is given.

    Parameters
    ----------
    name : str
        See :func:`optimiser_class`.

    Returns
    -------
    float
        From the constructor of the class, or of the nearest of its bases that names it.
    """
    for kind in optimiser_class(name).__mro__:
        parameters = inspect.signature(vars(kind).get("__init__", lambda: None)).parameters
        if "rho" in parameters and parameters["rho"].default is not inspect.Parameter.empty:
            return float(parameters["rho"].default)
    raise ValueError(f"optimiser {name} has no rho in its constructor")


def options_of(name: str) -> dict[str, Any]:
    """Hyperparameters of an optimiser except ``rho``, and their defaults.

    Parameters
    ----------
    name : str
        See :func:`optimiser_class`.

    Returns
    -------
    dict of str to int, float or str
    """
    return {
        parameter.name: parameter.default
        for kind in _constructors(name)
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and type(parameter.default) in (int, float, str)
    }


def meanings_of(name: str) -> dict[str, str]:
    """What each hyperparameter of an optimiser means, from the docstring of its class.

    Parameters
    ----------
    name : str
        See :func:`optimiser_class`.

    Returns
    -------
    dict of str to str
        A sentence for each key of :func:`options_of`; empty if Python runs without docstrings.
    """
    kinds = reversed(list(_constructors(name)))  # a class's own docstring before those of its bases
    text = "\n".join(inspect.cleandoc(kind.__doc__ or "") for kind in kinds)
    entries = {option: _ENTRY.format(option) for option in options_of(name)}
    found = {option: re.search(entry, text, re.MULTILINE) for option, entry in entries.items()}
    return {
        option: " ".join(match[1].split()).replace("``", "").rstrip(".") if match else ""
        for option, match in found.items()
    }


def _constructors(name: str) -> Iterator[type]:
    """The classes of this family that add parameters to the constructor, bases first."""
    for kind in reversed(optimiser_class(name).__mro__):
        if "__init__" in vars(kind) and kind not in TwoPassOptimizer.__mro__:
            yield kind


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Refuse hyperparameters that an optimiser does not take.

    Parameters
    ----------
    name : str
        See :func:`optimiser_class`.
    options : mapping of str to int, float or str
        Values by name. The optimiser itself checks their ranges.

    Raises
    ------
    ValueError
        The optimiser has no such hyperparameter, or the value has another type.
    """
    defaults = options_of(name)
    for key, value in options.items():
        if key not in defaults:
            names = ", ".join(defaults) or "no options"
            raise ValueError(f"optimiser {name} takes {names}, got {key}")
        kind = type(defaults[key])
        allowed = (int, float) if kind is float else (kind,)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise ValueError(f"{key} must be of type {kind.__name__}, got {type(value).__name__}")
