"""The errors of trueprob, one tree.

    TrueprobError
    ├── InvalidInput         (also a ValueError)  an argument or an uploaded array
    ├── InvalidDocument      (also a ValueError)  calibrator.json, manifest.json, baseline.npz
    ├── ModelVersionNotFound                      no such model or version on disk
    ├── VersionExists                             a version never changes: use the next number
    └── DigestMismatch                            a file does not match its manifest

A message names the field as the caller knows it, and says what was expected and what was given. It
never repeats the contents of an array.
"""

from __future__ import annotations

__all__ = [
    "DigestMismatch",
    "InvalidDocument",
    "InvalidInput",
    "ModelVersionNotFound",
    "TrueprobError",
    "VersionExists",
]


class TrueprobError(Exception):
    """Base class of all errors that this library raises."""


class InvalidInput(TrueprobError, ValueError):
    """An argument or an array that cannot be used.

    Parameters
    ----------
    message : str
        One sentence that starts with the field's name.
    field : str
        Name of the argument or array, as the caller knows it.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidDocument(TrueprobError, ValueError):
    """A stored document (calibrator, manifest, baseline) that does not follow its format."""


class ModelVersionNotFound(TrueprobError):
    """The repository has no such model or version."""


class VersionExists(TrueprobError):
    """The repository already has this version, and versions never change."""


class DigestMismatch(TrueprobError):
    """A file of a model version is missing or differs from the digest in its manifest."""
