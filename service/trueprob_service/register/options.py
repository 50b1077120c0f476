"""What a person says about a network, and how the rest is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ask", "Unusable", "Wishes", "class_names", "numbers", "refuse_to_guess"]

Ask = Callable[[str, str], str]
"""``(flag, what is not known) -> what the flag would have said``."""


class Unusable(Exception):
    """A network or a flag that cannot be used; one line that says what to do."""


@dataclass(frozen=True)
class Wishes:
    """Flags of the command; None is what was not said."""

    output: str | None = None
    output_kind: str | None = None  # `logits` or `probabilities`
    layout: str | None = None  # `NHWC` or `NCHW`
    mode: str | None = None  # `L` or `RGB`
    # `HEIGHT,WIDTH`, or one number: of the shorter side before the middle is cut out
    resize: str | None = None
    crop: str | None = None  # `HEIGHT,WIDTH` of that
    resample: str = "bilinear"
    scale: str | None = None  # numbers, comma separated
    mean: str | None = None  # numbers, comma separated
    std: str | None = None  # numbers, comma separated
    n_classes: int | None = None  # as many as there are class names


def refuse_to_guess(flag: str, unknown: str) -> str:
    """The `Ask` where nobody is there to answer."""
    raise Unusable(f"{unknown}; say it with {flag}")


def numbers(flag: str, text: str) -> list[float]:
    """Comma-separated numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise Unusable(f"{flag} must be numbers, comma separated, got {text!r}") from None


def class_names(text: str) -> tuple[str, ...]:
    """Names from a file (a JSON list, or one a line) or a comma-separated list."""
    path = Path(text)
    if "," in text and not path.is_file():
        return tuple(part.strip() for part in text.split(","))
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Unusable(
            f"--class-names must be a text file or a comma-separated list, got {text!r}"
        ) from None
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in content.splitlines() if line.strip())
    try:
        names = json.loads(content)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unusable(f"{text} must hold a JSON list of texts")
    return tuple(names)
