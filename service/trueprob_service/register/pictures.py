"""Describes the input of a network that takes pictures: layout, size, colours, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trueprob.repository.manifest import InputSpec
from trueprob_service.errors import ModelUnavailable
from trueprob_service.inference.network.input import LAYOUTS, NetworkInput
from trueprob_service.register.options import CannotRegister, Prompt, RegisterOptions, numbers

__all__ = ["picture_spec"]

_MODES: Final = {1: "L", 3: "RGB"}


def picture_spec(
    name: str, dtype: str, shape: Sequence[Any], options: RegisterOptions, ask: Prompt
) -> InputSpec:
    """Describe an input of rank 4; dimensions that are not integers are free.

    Raises `CannotRegister` if an option contradicts the graph, or the graph takes no pictures.
    """
    layout = _layout(name, shape, options, ask)
    channels, height, width = (
        (shape[1], shape[2], shape[3]) if layout == "NCHW" else (shape[3], shape[1], shape[2])
    )
    mode = _mode(name, channels, options, ask)
    size, shorter_side = _size(name, height, width, options, ask)
    preprocessing: dict[str, Any] = {"mode": mode, "resize": list(size)}
    if shorter_side is not None:
        preprocessing |= {"resize": shorter_side, "crop": list(size)}
    preprocessing["resample"] = options.resample
    if options.background is not None:
        preprocessing["background"] = _background(options.background)
    preprocessing |= _normalisation(name, dtype, options, ask)
    n_channels = 1 if mode == "L" else 3
    sides = (n_channels, *size) if layout == "NCHW" else (*size, n_channels)
    spec = InputSpec(name, dtype, (shape[0], *sides), layout, preprocessing)
    try:
        NetworkInput.from_manifest(spec)
    except ModelUnavailable as error:
        raise CannotRegister(error.detail) from None
    return spec


def _layout(name: str, shape: Sequence[Any], options: RegisterOptions, ask: Prompt) -> str:
    possible = [
        layout
        for layout, side in (("NHWC", shape[3]), ("NCHW", shape[1]))
        if not isinstance(side, int) or side in _MODES
    ]
    # If one dimension is 1 or 3 and the other is free, the free one is unlikely to be the channels.
    definite = [
        layout for layout, side in (("NHWC", shape[3]), ("NCHW", shape[1])) if side in _MODES
    ]
    if not possible:
        raise CannotRegister(
            f"input {name!r} has shape {list(shape)}: pictures have 1 or 3 channels, in the second "
            "dimension or in the last"
        )
    if options.layout is not None:
        if options.layout not in possible:
            value = options.layout if options.layout in LAYOUTS else f"{options.layout!r}"
            raise CannotRegister(
                f"--layout must be {' or '.join(possible)} for shape {list(shape)}, got {value}"
            )
        return options.layout
    if len(definite) == 1:
        return definite[0]
    value = ask("--layout", f"input {name!r} of shape {list(shape)} may be NHWC or NCHW")
    if value not in possible:
        raise CannotRegister(f"--layout must be {' or '.join(possible)}, got {value!r}")
    return value


def _mode(name: str, channels: object, options: RegisterOptions, ask: Prompt) -> str:
    known = _MODES.get(channels) if isinstance(channels, int) else None
    value = options.mode
    if value is None:
        value = known or ask(
            "--mode", f"input {name!r} may take grey (L) or coloured (RGB) pictures"
        )
    if value not in _MODES.values() or (known is not None and value != known):
        raise CannotRegister(
            f"--mode must be {known or 'L or RGB'} for input {name!r}, got {value!r}"
        )
    return value


def _size(
    name: str, height: object, width: object, options: RegisterOptions, ask: Prompt
) -> tuple[tuple[int, int], int | None]:
    """Height and width of the input, and the shorter side before a crop (None: no crop)."""
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    flag, text, shorter_side = "--resize", options.resize, None
    if options.crop is not None or (text is not None and fixed and "," not in text):
        value = [] if text is None else numbers("--resize", text)
        if len(value) != 1 or value[0] < 1 or not value[0].is_integer():
            raise CannotRegister(
                "--resize must be one whole number with --crop, the length of the shorter side "
                f"before the middle is cut out, got {text or 'none'}"
            )
        flag, text, shorter_side = "--crop", options.crop, int(value[0])
    if text is None:
        if fixed is not None:
            return fixed, shorter_side
        text = ask("--resize", f"input {name!r} takes pictures of any size (HEIGHT,WIDTH)")
    value = numbers(flag, text)
    if flag == "--crop" and len(value) == 1:
        value *= 2
    if len(value) != 2 or not all(side >= 1 and side.is_integer() for side in value):
        raise CannotRegister(f"{flag} must be HEIGHT,WIDTH, got {text!r}")
    for side, expected in zip(value, (height, width), strict=True):
        if isinstance(expected, int) and side != expected:
            raise CannotRegister(f"{flag} must be {height},{width} for input {name!r}, got {text}")
    return (int(value[0]), int(value[1])), shorter_side


def _background(text: str) -> int | list[int]:
    """One level, or one for each channel; `NetworkInput.from_manifest` checks their number."""
    levels = numbers("--background", text)
    if not all(level.is_integer() and 0 <= level <= 255 for level in levels):
        raise CannotRegister(f"--background must be whole numbers from 0 to 255, got {text!r}")
    whole = [int(level) for level in levels]
    return whole[0] if len(whole) == 1 else whole


def _normalisation(name: str, dtype: str, options: RegisterOptions, ask: Prompt) -> dict[str, Any]:
    """``scale``, ``mean`` and ``std``, which only the user knows."""
    value = {"scale": options.scale, "mean": options.mean, "std": options.std}
    given = {key: text for key, text in value.items() if text is not None}
    if dtype == "uint8":
        if given:
            raise CannotRegister(
                f"--{min(given)} is for networks of floats, input {name!r} is uint8"
            )
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
