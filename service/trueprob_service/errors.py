"""What can go wrong in the service, as one tree. HTTP is not known here.

::

    ServiceError
    ├── BadRequest                the bytes cannot be parsed
    ├── InvalidRequest            parsed, but a field has a value that cannot be used
    ├── Unauthenticated           no key, or one that is not known
    ├── Forbidden                 a known key without the scope
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
    │   └── UnsupportedEncoding   a Content-Encoding that is not inflated here
    ├── PreconditionRequired      If-Match is missing
    ├── Overloaded                a bounded queue is full: try again later
    ├── Unavailable               a part that this request needs is away
    │   ├── DatabaseUnavailable
    │   └── ModelUnavailable      the network of a version cannot be run
    │       └── ProviderUnavailable   it would run elsewhere than was asked for
    └── InferenceFailed           the network itself raised; the detail goes to the log only

``trueprob_service.edge.problems`` maps each class to a status; a test holds that none is left out.
`InvalidSettings` is raised at the start only and is not in the tree.
Input errors of the core (`trueprob.InvalidInput`) are mapped there as they are.
"""

from __future__ import annotations

__all__ = [
    "AlarmNotFound",
    "BadRequest",
    "BodyTooLarge",
    "CalibrationSetNotFound",
    "CalibratorNotFound",
    "Conflict",
    "DatabaseUnavailable",
    "FitNotFound",
    "Forbidden",
    "InferenceFailed",
    "InvalidRequest",
    "InvalidSettings",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelUnavailable",
    "NotAcceptable",
    "NotFound",
    "Overloaded",
    "PreconditionRequired",
    "PromotionNotFound",
    "ProviderUnavailable",
    "ServiceError",
    "ShadowNotFound",
    "StaleRevision",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedEncoding",
    "UnsupportedMediaType",
    "VersionNotFound",
]


class ServiceError(Exception):
    """Root of everything that the service answers with a problem document."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(ServiceError):
    """The bytes cannot be parsed as what they claim to be."""


class InvalidRequest(ServiceError):
    """The request was parsed, but a field has a value that cannot be used."""


class Unauthenticated(ServiceError):
    """The request carries no API key, or one that is not known."""


class Forbidden(ServiceError):
    """The key is known but lacks the scope that the route needs."""


class NotFound(ServiceError):
    """Nothing has the address that was asked for."""


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
    """The model's history has no such revision to go back to."""


class ShadowNotFound(NotFound):
    """No candidate shadows the model, or none ever did."""


class AlarmNotFound(NotFound):
    """The model's history has no alarm with this id."""


class MethodNotAllowed(ServiceError):
    """The route exists, but not for this HTTP method."""


class NotAcceptable(ServiceError):
    """The client accepts none of the representations that the route has."""


class Conflict(ServiceError):
    """The request contradicts the present state."""


class StaleRevision(ServiceError):
    """If-Match names a revision that is no longer the live one."""


class BodyTooLarge(ServiceError):
    """The body, or what it inflates to, is over its limit."""


class UnsupportedMediaType(ServiceError):
    """The route does not read this Content-Type or Content-Encoding."""


class UnsupportedEncoding(UnsupportedMediaType):
    """The body has a Content-Encoding that is not inflated here."""

    def __init__(self, detail: str, *, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.accepted = accepted


class PreconditionRequired(ServiceError):
    """The request changes what is live and must name the revision that it saw."""


class Overloaded(ServiceError):
    """A bounded queue is full; the client should come back later."""

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(ServiceError):
    """A part that this request needs is away; others may go on."""


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""


class ModelUnavailable(Unavailable):
    """The network of this version cannot be run here."""


class ProviderUnavailable(ModelUnavailable):
    """Networks would run on another execution provider than the setting asks for."""


class InferenceFailed(ServiceError):
    """The network raised while it ran this request's rows."""


class InvalidSettings(ValueError):
    """A setting has a value that cannot be used; the message is one line for the terminal."""
