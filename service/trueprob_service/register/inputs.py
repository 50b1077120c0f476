"""Describes the inputs of a network: from the graph, and for pictures from the options.

One input of rank 4 with bytes or floats takes pictures. Any other input, and each of several, takes
rows of its tensor. Lengths that the graph leaves open may differ from batch to batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trueprob.repository.manifest import InputSpec
from trueprob_service.inference.network.session import Session
from trueprob_service.register.options import CannotRegister, Prompt, RegisterOptions
from trueprob_service.register.pictures import picture_spec

__all__ = ["input_specs"]

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
} | {
    f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
_PICTURES: Final = ("uint8", "float32", "float16", "float64")


def input_specs(session: Session, options: RegisterOptions, ask: Prompt) -> tuple[InputSpec, ...]:
    """The inputs of a network, in the order of the graph.

    Raises `CannotRegister` if one cannot be filled by rows, or an option is for pictures only.
    """
    nodes = session.get_inputs()
    if not nodes:
        raise CannotRegister("the network has no inputs, expected one that takes rows")
    if len(nodes) == 1:
        node = nodes[0]
        shape = list(node.shape)
        if len(shape) == 4 and _dtype(node) in _PICTURES:
            shape[0] = shape[0] if isinstance(shape[0], int) else "batch"
            return (picture_spec(node.name, _dtype(node), shape, options, ask),)
    picture_flags = [f"--{f}" for f in ("layout", "mode", "resize", "crop", "background",
            "scale", "mean", "std") if getattr(options, f) is not None]  # fmt: skip
    if picture_flags:
        raise CannotRegister(
            f"{picture_flags[0]} is for pictures, input {nodes[0].name!r} is {_dtype(nodes[0])} of "
            f"{list(nodes[0].shape)}"
        )
    specs = tuple(_rows(node) for node in nodes)
    fixed = {spec.shape[0] for spec in specs}
    if len(fixed) > 1:
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
        raise CannotRegister(
            f"the inputs must have the same number of rows in their first dimension, got {shapes}"
        )
    return specs


def _dtype(node: Any) -> str:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        text = ": turn text into numbers elsewhere, declare the model over HTTP and send its logits"
        raise CannotRegister(
            f"input {node.name!r} is {node.type}, expected {', '.join(_DTYPES)}"
            + (text if "string" in node.type else "")
        )
    return dtype


def _rows(node: Any) -> InputSpec:
    dtype, shape = _dtype(node), _shape(node.name, node.shape)
    return InputSpec(node.name, dtype, shape, "rows")


def _shape(name: str, given: Sequence[Any]) -> tuple[str | int, ...]:
    if not given:
        raise CannotRegister(
            f"input {name!r} has shape [], expected rows in its first dimension; an input that is "
            "not data, such as a threshold, must be a constant of the graph"
        )
    if 0 in given:
        raise CannotRegister(f"input {name!r} has shape {list(given)}, expected no empty dimension")
    first = given[0] if isinstance(given[0], int) else "batch"
    lengths = (
        side if isinstance(side, int) else (side or f"{name}_{axis}")
        for axis, side in enumerate(given[1:], 1)
    )
    return (first, *lengths)
