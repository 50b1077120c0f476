"""Starts a network from weights that were trained on something else.

Names must be those of the same network. A tensor of another shape (the last layer, for another
number of classes) stays as it was initialised. The preprocessing is not taken over: mean and
deviation are those of the new data.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.errors import BadInput

PREFIX = "network."  # of a network behind its preprocessing, as run folders store it


def start_from(network: nn.Module, path: Path) -> tuple[str, ...]:
    """Copy the weights of a checkpoint into a network of the same kind.

    Returns: tensors that were left as they are, for their shape is another. Raises `BadInput`: no
    readable checkpoint, another network, or nothing that fits.
    """
    weights = _weights(path / "checkpoint.pt" if path.is_dir() else path)
    own = network.state_dict()
    if set(weights) != set(own):
        strays = sorted(set(weights) ^ set(own))
        raise BadInput(
            f"start_from {path} is of another network: {len(strays)} names differ, {strays[0]} "
            "for one"
        )
    left = tuple(name for name, value in own.items() if weights[name].shape != value.shape)
    if len(left) == len(own):
        raise BadInput(f"start_from {path} has no tensor of this network's shapes")
    network.load_state_dict({name: own[name] if name in left else weights[name] for name in own})
    return left


def _weights(file: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(file):  # what torch.save writes; anything else fails in odd ways
        raise BadInput(f"start_from {file} cannot be read as a checkpoint")
    try:
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as problem:
        raise BadInput(f"start_from {file} cannot be read as a checkpoint") from problem
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded.get("average") or loaded["model"]  # of a run: what it was scored with
    if not (isinstance(loaded, dict) and all(isinstance(v, Tensor) for v in loaded.values())):
        raise BadInput(f"start_from {file} must hold named tensors")
    if any(name.startswith(PREFIX) for name in loaded):
        loaded = {k.removeprefix(PREFIX): v for k, v in loaded.items() if k.startswith(PREFIX)}
    weights: dict[str, Tensor] = loaded
    return weights
