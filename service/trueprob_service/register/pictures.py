"""The input of a network that takes pictures: layout, size, colours, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trueprob.repository.manifest import InputSpec
from trueprob_service.errors import ModelUnavailable
from trueprob_service.inference.network.input import LAYOUTS, NetworkInput
from trueprob_service.register.options import Ask, Unusable, Wishes, numbers

__all__ = ["picture_spec"]

_MODES: Final = {1: "L", 3: "RGB"}


def picture_spec(
    name: str, dtype: str, shape: Sequence[Any], wishes: Wishes, ask: Ask
) -> InputSpec:
    """Describe an input of rank 4.

    Raises `Unusable`: a wish contradicts the graph, or the graph does not take pictures.
    """
    layout = _layout(name, shape, wishes, ask)
    channels, height, width = (
        (shape[1], shape[2], shape[3]) if layout == "NCHW" else (shape[3], shape[1], shape[2])
    )
    mode = _mode(name, channels, wishes, ask)
    size, shorter_side = _size(name, height, width, wishes, ask)
    preprocessing: dict[str, Any] = {"mode": mode, "resize": list(size)}
    if shorter_side is not None:
        preprocessing |= {"resize": shorter_side, "crop": list(size)}
    preprocessing["resample"] = wishes.resample
    preprocessing |= _normalisation(name, dtype, wishes, ask)
    n_channels = 1 if mode == "L" else 3
    sides = (n_channels, *size) if layout == "NCHW" else (*size, n_channels)
    spec = InputSpec(name, dtype, (shape[0], *sides), layout, preprocessing)
    try:
        NetworkInput.of(spec)
    except ModelUnavailable as error:
        raise Unusable(error.detail) from None
    return spec


def _layout(name: str, shape: Sequence[Any], wishes: Wishes, ask: Ask) -> str:
    possible = [
        layout
        for layout, side in (("NHWC", shape[3]), ("NCHW", shape[1]))
        if not isinstance(side, int) or side in _MODES
    ]
    # A side that is free is hardly the one of the colours when another is 1 or 3.
    certain = [
        layout for layout, side in (("NHWC", shape[3]), ("NCHW", shape[1])) if side in _MODES
    ]
    if not possible:
        raise Unusable(
            f"input {name!r} has shape {list(shape)}: pictures have 1 or 3 channels, in the second "
            "side or in the last"
        )
    if wishes.layout is not None:
        if wishes.layout not in possible:
            said = wishes.layout if wishes.layout in LAYOUTS else f"{wishes.layout!r}"
            raise Unusable(
                f"--layout must be {' or '.join(possible)} for shape {list(shape)}, got {said}"
            )
        return wishes.layout
    if len(certain) == 1:
        return certain[0]
    said = ask("--layout", f"input {name!r} of shape {list(shape)} may be NHWC or NCHW")
    if said not in possible:
        raise Unusable(f"--layout must be {' or '.join(possible)}, got {said!r}")
    return said


def _mode(name: str, channels: object, wishes: Wishes, ask: Ask) -> str:
    known = _MODES.get(channels) if isinstance(channels, int) else None
    said = wishes.mode
    if said is None:
        said = known or ask(
            "--mode", f"input {name!r} may take grey (L) or coloured (RGB) pictures"
        )
    if said not in _MODES.values() or (known is not None and said != known):
        raise Unusable(f"--mode must be {known or 'L or RGB'} for input {name!r}, got {said!r}")
    return said


def _size(
    name: str, height: object, width: object, wishes: Wishes, ask: Ask
) -> tuple[tuple[int, int], int | None]:
    """What the network takes, and the shorter side before the middle is cut out, if it is."""
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    flag, text, shorter_side = "--resize", wishes.resize, None
    if wishes.crop is not None or (text is not None and fixed and "," not in text):
        said = [] if text is None else numbers("--resize", text)
        if len(said) != 1 or said[0] < 1 or not said[0].is_integer():
            raise Unusable(f"--resize must be one whole number beside --crop, got {text!r}")
        flag, text, shorter_side = "--crop", wishes.crop, int(said[0])
    if text is None:
        if fixed is not None:
            return fixed, shorter_side
        text = ask("--resize", f"input {name!r} takes pictures of any size (HEIGHT,WIDTH)")
    said = numbers(flag, text)
    if len(said) != 2 or not all(side >= 1 and side.is_integer() for side in said):
        raise Unusable(f"{flag} must be HEIGHT,WIDTH, got {text!r}")
    for side, expected in zip(said, (height, width), strict=True):
        if isinstance(expected, int) and side != expected:
            raise Unusable(f"{flag} must be {height},{width} for input {name!r}, got {text}")
    return (int(said[0]), int(said[1])), shorter_side


def _normalisation(name: str, dtype: str, wishes: Wishes, ask: Ask) -> dict[str, Any]:
    """``scale``, ``mean`` and ``std``, which only a person knows."""
    said = {"scale": wishes.scale, "mean": wishes.mean, "std": wishes.std}
    given = {key: text for key, text in said.items() if text is not None}
    if dtype == "uint8":
        if given:
            raise Unusable(f"--{min(given)} is for networks of floats, input {name!r} is uint8")
        return {}
    if not given:
        unknown = (
            f"input {name!r} is {dtype}: what its network expects of (pixel / 255 - mean) / std"
        )
        given["mean"] = ask("--mean and --std (or --scale alone)", f"{unknown} is not known: mean")
        given["std"] = ask("--std", f"{unknown} is not known: std")
    defaults = {"scale": "255", "mean": "0", "std": "1"}
    parsed = {key: numbers(f"--{key}", given.get(key, defaults[key])) for key in defaults}
    return {key: values[0] if len(values) == 1 else values for key, values in parsed.items()}
