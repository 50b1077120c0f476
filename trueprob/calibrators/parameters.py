"""Checks of the parameters in a calibrator document; every error names the key."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from trueprob.errors import InvalidDocument

__all__ = ["number", "numbers", "require_keys"]


def require_keys(document: Mapping[str, Any], keys: Iterable[str], *, where: str) -> None:
    """Refuse a mapping whose keys are not exactly these."""
    expected = set(keys)
    missing = sorted(expected - set(document))
    if missing:
        raise InvalidDocument(f"{where} must have the key {missing[0]!r}")
    unknown = sorted(str(key) for key in set(document) - expected)
    if unknown:
        raise InvalidDocument(f"{where} has the unknown key {unknown[0]!r}")


def number(
    document: Mapping[str, Any],
    key: str,
    *,
    where: str,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """The finite number at `key`, strictly between two bounds."""
    return _number(document[key], f"{where}.{key}", above, below)


def numbers(document: Mapping[str, Any], key: str, *, where: str) -> tuple[float, ...]:
    """The list of finite numbers at `key`."""
    values = document[key]
    if not isinstance(values, list | tuple):
        raise InvalidDocument(f"{where}.{key} must be a list, got {type(values).__name__}")
    return tuple(_number(value, f"{where}.{key}", -math.inf, math.inf) for value in values)


def _number(value: object, name: str, above: float, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidDocument(f"{name} must be a number, got {type(value).__name__}")
    try:
        result = float(value)
    except OverflowError:
        raise InvalidDocument(f"{name} must be finite") from None
    if not math.isfinite(result):
        raise InvalidDocument(f"{name} must be finite")
    if not above < result < below:
        raise InvalidDocument(f"{name} must lie between {above:g} and {below:g}, both excluded")
    return result
