"""Options of the command ``register``, and the prompt for those that are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CannotRegister",
    "Prompt",
    "RegisterOptions",
    "class_names",
    "numbers",
    "refuse_to_guess",
]

Prompt = Callable[[str, str], str]
"""Function that asks the user: ``(flag, what is unknown) -> value of the flag``."""


class CannotRegister(Exception):
    """The network or an option cannot be used. The message is one line with the remedy."""


@dataclass(frozen=True)
class RegisterOptions:
    """Options that the user gave for a network; None for an option not given."""

    output: str | None = None
    output_kind: str | None = None  # `logits` or `probabilities`
    layout: str | None = None  # `NHWC` or `NCHW`
    mode: str | None = None  # `L` or `RGB`
    resize: str | None = None  # `HEIGHT,WIDTH`; or one number, the shorter side before the crop
    crop: str | None = None  # `HEIGHT,WIDTH`; or one number for both
    resample: str = "bilinear"
    background: str | None = None  # behind transparent pixels, 0 to 255: one, or one per channel
    # Numbers, comma separated: one, or one for each channel.
    scale: str | None = None
    mean: str | None = None
    std: str | None = None
    n_classes: int | None = None  # number of class names


def refuse_to_guess(flag: str, unknown: str) -> str:
    """The `Prompt` for use without a terminal: raises `CannotRegister`."""
    raise CannotRegister(f"{unknown}; set it with {flag}")


def numbers(flag: str, text: str) -> list[float]:
    """Parse comma-separated numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise CannotRegister(f"{flag} must be numbers, comma separated, got {text!r}") from None


def class_names(text: str) -> tuple[str, ...]:
    """Read names from a file (a JSON list, or one per line) or a comma-separated list."""
    path = Path(text)
    if "," in text and not path.is_file():
        return tuple(part.strip() for part in text.split(","))
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise CannotRegister(
            f"--class-names must be a text file or a comma-separated list, got {text!r}"
        ) from None
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in content.splitlines() if line.strip())
    try:
        names = json.loads(content)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CannotRegister(f"{text} must hold a JSON list of texts")
    return tuple(names)
