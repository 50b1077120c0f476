"""The HTTP status of each error, and the problem document that answers it (RFC 9457).

The body is ``application/problem+json`` with the standard members ``type``, ``title``,
``status`` and ``detail``, an extension member ``code`` (stable, for programs) and ``error``
(the detail again: Open Inference Protocol clients read that key).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import orjson

from trueprob.errors import DigestMismatch, InvalidDocument, InvalidInput, TrueprobError
from trueprob_service import errors

__all__ = ["STATUS", "Problem", "problem_for"]

MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[Exception], int]] = MappingProxyType(
    {
        errors.ServiceError: 500,
        errors.BadRequest: 400,
        errors.InvalidRequest: 422,
        errors.Unauthenticated: 401,
        errors.Forbidden: 403,
        errors.ForeignOrigin: 403,
        errors.UnknownHost: 421,
        errors.NotFound: 404,
        errors.ModelNotFound: 404,
        errors.VersionNotFound: 404,
        errors.CalibratorNotFound: 404,
        errors.CalibrationSetNotFound: 404,
        errors.FitNotFound: 404,
        errors.PromotionNotFound: 404,
        errors.ShadowNotFound: 404,
        errors.AlarmNotFound: 404,
        errors.MethodNotAllowed: 405,
        errors.NotAcceptable: 406,
        errors.Conflict: 409,
        errors.StaleRevision: 412,
        errors.BodyTooLarge: 413,
        errors.UnsupportedMediaType: 415,
        errors.UnsupportedEncoding: 415,
        errors.PreconditionRequired: 428,
        errors.TooManyRequests: 429,
        errors.Overloaded: 503,
        errors.Unavailable: 503,
        errors.DatabaseUnavailable: 503,
        errors.StorageUnavailable: 503,
        errors.ModelUnavailable: 503,
        errors.NetworkRefused: 503,
        errors.ProviderUnavailable: 503,
        errors.InferenceFailed: 500,
        InvalidInput: 422,
        InvalidDocument: 422,
        # Only the operator can repair a version whose files do not match their digests.
        DigestMismatch: 503,
        TrueprobError: 500,
    }
)
# Errors of a disk, wherever they come from. Whoever sends the request can only send it again.
_DISK: Final[Mapping[int | None, str]] = MappingProxyType(
    {
        errno.ENOSPC: "its disk is full; try again later",
        errno.EDQUOT: "its quota of the disk is used up; try again later",
        errno.EFBIG: "its limit of a file is reached; send less, or try again later",
        errno.EROFS: "its disk is read-only; try again later",
        errno.EACCES: "its folder may not be written; try again later",
        errno.EPERM: "its folder may not be written; try again later",
        errno.EIO: "its disk gives errors; try again later",
    }
)
TITLES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "The request cannot be parsed",
        401: "An API key is needed",
        403: "Not allowed",
        404: "Not found",
        405: "Method not allowed",
        406: "No acceptable representation",
        408: "The request came too slowly",
        409: "Conflict with the present state",
        412: "The revision is stale",
        413: "The request is too large",
        415: "Unsupported media type",
        421: "The host is not known here",
        422: "The request is not valid",
        428: "If-Match is required",
        429: "Too many requests or connections",
        431: "The headers are too large",
        500: "Internal error",
        503: "Not available right now",
    }
)


class Problem:
    """An answer to an error: its status, headers and problem document."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.headers = {"content-type": MEDIA_TYPE, **(headers or {})}
        self.body = orjson.dumps(
            {
                "type": "about:blank" if code == "internal_error" else f"urn:trueprob:{code}",
                "title": TITLES.get(status, "Error"),
                "status": status,
                "detail": detail,
                "code": code,
                "error": detail,
            }
        )


def problem_for(error: Exception) -> Problem:
    """The answer to an error, by the nearest base class that `STATUS` has.

    A status of 500 and an error without such a class are answered without the detail.
    """
    if isinstance(error, OSError) and error.errno in _DISK:
        error = errors.StorageUnavailable(f"the service cannot store this: {_DISK[error.errno]}")
    kind = next((base for base in type(error).__mro__ if base in STATUS), None)
    status = STATUS[kind] if kind is not None else 500
    if kind is None or status == 500:
        return Problem(500, "internal_error", "The service failed; see its log.")
    headers: dict[str, str] = {}
    if isinstance(error, errors.Overloaded | errors.TooManyRequests):
        headers["retry-after"] = str(error.retry_after_seconds)
    elif status == 503:
        headers["retry-after"] = "5"
    if isinstance(error, errors.UnsupportedEncoding) and error.accepted:
        headers["accept-encoding"] = ", ".join(error.accepted)
    if isinstance(error, errors.MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    detail = error.detail if isinstance(error, errors.ServiceError) else str(error)
    return Problem(status, _code(kind), detail, headers)


def _code(kind: type[Exception]) -> str:
    """``StaleRevision`` → ``stale_revision``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
