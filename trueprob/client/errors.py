"""Errors that the clients raise, besides `InvalidInput` for an argument that cannot be sent.

TrueprobError
├── ServiceProblem      the service refused the request
├── ServiceUnreachable  no answer came
└── FitStillRunning     `wait_for_fit` reached its deadline
"""

from __future__ import annotations

from trueprob.errors import TrueprobError

__all__ = ["FitStillRunning", "ServiceProblem", "ServiceUnreachable"]


class ServiceProblem(TrueprobError):
    """The service refused a request (RFC 9457).

    Attributes
    ----------
    status : int
        The HTTP status.
    code : str
        For programs: ``stale_revision``, ``invalid_request``, …
    detail : str
        For people: one sentence.
    retry_after_seconds : float or None
        How long the service asks you to wait before the next attempt.
    """

    def __init__(
        self, status: int, code: str, detail: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class ServiceUnreachable(TrueprobError):
    """No answer came: nothing listens, the connection broke, or it took too long.

    The service may or may not have acted on the request.
    """


class FitStillRunning(TrueprobError):
    """A fit was still queued or running when the time given to `wait_for_fit` was over.

    The fit goes on. Call `wait_for_fit` again, read it with `Client.fit`, or stop it with
    `Client.cancel_fit`.

    Attributes
    ----------
    fit : str
        The id of the fit.
    state : str
        ``queued`` or ``running``.
    url : str
        The address of the fit at the service.
    seconds : float
        How long `wait_for_fit` waited.
    """

    def __init__(self, fit: str, state: str, url: str, seconds: float) -> None:
        super().__init__(
            f"fit {fit} is still {state} after {seconds:g} s and goes on: wait for it again, "
            f"cancel it, or read {url}"
        )
        self.fit = fit
        self.state = state
        self.url = url
        self.seconds = seconds
