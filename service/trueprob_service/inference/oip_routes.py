"""The addresses of the Open Inference Protocol: route, model and version of a path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from trueprob_service.errors import VersionNotFound

__all__ = ["ROUTES", "Call"]

_MODEL: Final = "/v2/models/{model}"
_VERSION: Final = "/v2/models/{model}/versions/{version}"
ROUTES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"/v2": ("GET", "HEAD")}
    | {base + end: ("GET", "HEAD") for base in (_MODEL, _VERSION) for end in ("", "/ready")}
    | {f"{base}/infer": ("POST",) for base in (_MODEL, _VERSION)}
)
_PATH: Final = re.compile(r"/v2(?:/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?)?")


@dataclass(frozen=True)
class Call:
    """Which of the protocol's routes a path is."""

    route: str  # one of `ROUTES`
    model: str | None = None  # None: the server itself
    version_text: str | None = None  # None: the live one

    @classmethod
    def from_path(cls, path: str) -> Call | None:
        """Read a path; None when it is none of the protocol's."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        model, version, end = match.groups()
        if model is None:
            return cls("/v2")
        return cls((_MODEL if version is None else _VERSION) + (end or ""), model, version)

    @property
    def version(self) -> int | None:
        """The version as a number.

        Raises `VersionNotFound`: not a positive integer: no version has that name.
        """
        text = self.version_text
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 9 or text.startswith("0"):
            raise VersionNotFound(f"version must be a positive integer, got {text[:20]!r}")
        return int(text)
