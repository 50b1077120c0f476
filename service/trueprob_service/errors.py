"""The errors of the service, as one tree. They know nothing of HTTP.

::

    ServiceError
    ├── BadRequest                the bytes cannot be parsed
    ├── InvalidRequest            parsed, but a field has a value that cannot be used
    ├── Unauthenticated           no key, or one that is unknown, expired or revoked
    ├── Forbidden                 a known key that lacks the scope, or may not use the model
    │   └── ForeignOrigin         a web page of another origin tries to write
    ├── UnknownHost               the Host header names no host of this service
    ├── NotFound
    │   ├── ModelNotFound
    │   ├── VersionNotFound
    │   ├── CalibratorNotFound
    │   ├── CalibrationSetNotFound
    │   ├── FitNotFound
    │   ├── PromotionNotFound
    │   ├── ShadowNotFound
    │   └── AlarmNotFound
    ├── MethodNotAllowed          the route exists, the verb does not
    ├── NotAcceptable             no representation that the client accepts
    ├── Conflict                  the request contradicts the present state
    ├── StaleRevision             If-Match names a revision that is no longer live
    ├── BodyTooLarge              the body, or what it inflates to, is over its limit
    ├── UnsupportedMediaType
    │   └── UnsupportedEncoding   a Content-Encoding that is not supported
    ├── PreconditionRequired      If-Match is missing
    ├── TooManyRequests           a key is over its rate, or an address sends wrong keys
    ├── Overloaded                a bounded queue is full: try again later
    ├── Unavailable               a component that the request needs does not work
    │   ├── DatabaseUnavailable
    │   ├── StorageUnavailable    a file cannot be written: the disk is full or read-only
    │   └── ModelUnavailable      the network of a version cannot be run
    │       ├── NetworkRefused        it would take too much memory or time, or other files
    │       └── ProviderUnavailable   it would run on another execution provider
    └── InferenceFailed           the network itself raised; the detail goes to the log only

``trueprob_service.edge.problems`` maps each class to an HTTP status, and input errors of the core
(`trueprob.InvalidInput`) too. `InvalidSettings` is raised only at the start and is not in the tree.
"""

from __future__ import annotations

__all__ = [
    "STOPPING",
    "AlarmNotFound",
    "BadRequest",
    "BodyTooLarge",
    "CalibrationSetNotFound",
    "CalibratorNotFound",
    "Conflict",
    "DatabaseUnavailable",
    "FitNotFound",
    "Forbidden",
    "ForeignOrigin",
    "InferenceFailed",
    "InvalidRequest",
    "InvalidSettings",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelUnavailable",
    "NetworkRefused",
    "NotAcceptable",
    "NotFound",
    "Overloaded",
    "PreconditionRequired",
    "PromotionNotFound",
    "ProviderUnavailable",
    "ServiceError",
    "ShadowNotFound",
    "StaleRevision",
    "StorageUnavailable",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "UnknownHost",
    "UnsupportedEncoding",
    "UnsupportedMediaType",
    "VersionNotFound",
]


class ServiceError(Exception):
    """Root of all errors that the service answers with a problem document.

    ``detail`` is one sentence for the client: what was wrong, what was expected and what was
    received. It uses the client's names for fields and never repeats array contents or secrets.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError):
    """The bytes cannot be parsed as what they claim to be."""


class InvalidRequest(ServiceError):
    """The request was parsed, but a field has a value that cannot be used."""


class Unauthenticated(ServiceError):
    """The request has no API key, or one that is unknown, expired or revoked."""

    def __init__(self, detail: str, *, reason: str = "unknown_key") -> None:
        super().__init__(detail)
        self.reason = reason  # for metrics


class Forbidden(ServiceError):
    """The key is known but lacks the scope that the route needs, or may not use the model."""

    def __init__(self, detail: str, *, reason: str = "scope", actor: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason  # for metrics
        self.actor = actor  # who was refused, for the audit trail


class ForeignOrigin(Forbidden):
    """A web page of another origin tries to write."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, reason="origin")


class UnknownHost(ServiceError):
    """The Host header has a name that this service does not answer to."""


class NotFound(ServiceError):
    """The requested address does not exist."""


class ModelNotFound(NotFound):
    """No model has this name."""


class VersionNotFound(NotFound):
    """The model has no such version."""


class CalibratorNotFound(NotFound):
    """The model's version has no calibrator with this id."""


class CalibrationSetNotFound(NotFound):
    """The model has no calibration set with this digest or name."""


class FitNotFound(NotFound):
    """The model has no fit with this id."""


class PromotionNotFound(NotFound):
    """The model's history has no such revision."""


class ShadowNotFound(NotFound):
    """The model has no calibrator of that role in shadow, or never had one."""


class AlarmNotFound(NotFound):
    """The model has no alarm with this id."""


class MethodNotAllowed(ServiceError):
    """The route exists, but not for this HTTP method."""

    def __init__(self, detail: str, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.allowed = allowed  # for the header Allow


class NotAcceptable(ServiceError):
    """The route has no representation that the client accepts."""


class Conflict(ServiceError):
    """The request contradicts the present state."""


class StaleRevision(ServiceError):
    """If-Match names a revision that is no longer the live one."""


class BodyTooLarge(ServiceError):
    """The body, or what it inflates to, is over its limit."""


class UnsupportedMediaType(ServiceError):
    """The route does not read this Content-Type or Content-Encoding."""


class UnsupportedEncoding(UnsupportedMediaType):
    """The body has a Content-Encoding that is not supported."""

    def __init__(self, detail: str, *, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.accepted = accepted  # for the header Accept-Encoding


class PreconditionRequired(ServiceError):
    """The request changes the live pair, so it must name the revision that the client saw."""


class TooManyRequests(ServiceError):
    """A key is over its rate, or an address sends too many wrong keys."""

    def __init__(
        self, detail: str, *, retry_after_seconds: int = 1, reason: str = "wrong_keys"
    ) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds  # for the header Retry-After
        self.reason = reason  # for metrics


class Overloaded(ServiceError):
    """A bounded queue is full; the client should retry later."""

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds  # for the header Retry-After


class Unavailable(ServiceError):
    """A component that the request needs does not work; other requests may succeed."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""


class StorageUnavailable(Unavailable):
    """A file cannot be written, or read, because of its disk."""


class ModelUnavailable(Unavailable):
    """The network of this version cannot run here."""


STOPPING = "stopping"  # the reason of a network that is not looked at any more


class NetworkRefused(ModelUnavailable):
    """The inspection of a network found that loading or running it could harm the service."""

    def __init__(self, detail: str, *, reason: str = "failed", lasting: bool = True) -> None:
        super().__init__(detail)
        self.reason = reason  # for metrics
        self.lasting = lasting  # False: this machine could not say, so ask again later


class ProviderUnavailable(ModelUnavailable):
    """Networks would run on another execution provider than the setting asks for."""


class InferenceFailed(ServiceError):
    """The network failed on the rows of this request."""


class InvalidSettings(ValueError):
    """A setting has a value that cannot be used. The message is one line for the terminal."""
