"""Who may send a request: API keys and tokens, and which web pages and host names are accepted.

Clients send ``Authorization: Bearer KEY``. `trueprob_service.edge.access` says what each route
needs, `trueprob_service.edge.keys` what a key allows.

A browser sends requests for any page that is open in it, also to a loopback address. So a page of
another origin may not write, by the headers ``Origin`` and ``Sec-Fetch-Site`` (Fetch Metadata, W3C)
that pages cannot set. A page can also give its own name this machine's address (DNS rebinding);
its requests then have the same origin, but their ``Host`` is that name. So a service without keys
answers only to names that it knows.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import urlsplit

from trueprob_service.edge.access import ROWS_MEDIA_TYPE, SAFE_METHODS, access_to
from trueprob_service.edge.keys import ApiKey, Principal
from trueprob_service.edge.throttle import RateLimiter, WrongKeys
from trueprob_service.errors import (
    Forbidden,
    ForeignOrigin,
    Unauthenticated,
    UnknownHost,
)

__all__ = [
    "ACTOR",
    "ANONYMOUS",
    "LOOPBACK_HOSTS",
    "SERVICE",
    "Keyring",
    "OriginPolicy",
    "Tokens",
]

LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
# Probes and scrapers use whatever address they have; these paths take no writes and show no rows.
_ANY_HOST: Final = re.compile(r"^/(metrics|v2/health/(live|ready))$")

SERVICE: Final = "service"  # acts by itself: fits, labels that decide, found versions
ANONYMOUS: Final = "anonymous"  # whoever reaches a service without keys
# Who acts in this thread or task, and with which request, for the audit trail.
ACTOR: Final[contextvars.ContextVar[tuple[str, str]]] = contextvars.ContextVar(
    "trueprob_actor", default=(SERVICE, "")
)

Headers = Iterable[tuple[bytes, bytes]]


class Tokens(Protocol):
    """Verifies bearer tokens that are no API keys."""

    def remembered(self, token: str) -> Principal | None:
        """Who sends a token that was verified lately."""

    def verify(self, token: str) -> Principal:
        """Who sends a token; raises `Unauthenticated` or `Unavailable`. May wait for a network."""


class Keyring:
    """Checks the keys and tokens of requests. Without either, every request is allowed."""

    def __init__(
        self,
        keys: Sequence[ApiKey] | None,  # None or empty: without keys
        *,
        everywhere: bool,  # a key is needed for health, metrics and documentation too
        tokens: Tokens | None = None,
        clock: Callable[[], float] = time.time,  # seconds since 1970 UTC
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._everywhere = everywhere
        self._tokens = tokens
        self._clock = clock
        self._sleep = sleep
        self._rates = RateLimiter(monotonic)
        self._wrong_keys = WrongKeys(monotonic)
        self._by_digest: Mapping[str, ApiKey] = {}
        self._closed = tokens is not None
        self.last_used: dict[str, float] = {}  # id of a key → seconds since 1970 UTC
        if keys:
            self.replace(keys)

    def replace(self, keys: Sequence[ApiKey]) -> None:
        """Use other keys from now on. A service that had keys never becomes one without."""
        self._closed = True
        self._by_digest = {key.sha256: key for key in keys}

    def admit(self, method: str, path: str, headers: Headers) -> Principal | None:
        """Check a request; returns who sends it, None if it needs no key.

        Raises `Unauthenticated`, `Forbidden` or `TooManyRequests`. After `Unauthenticated`,
        `admit_token` may know more.
        """
        if not self._closed:
            return None
        access = access_to(method, path)
        if access.is_open and not self._everywhere:
            return None
        credential = _bearer(headers)
        # The timing of this look-up can only reveal bits of the digest, not of the key.
        found = self._by_digest.get(hashlib.sha256(credential.encode()).hexdigest())
        if found is not None:
            now = self._clock()
            if found.revoked_at is not None:
                raise Unauthenticated(f"key {found.key_id!r} was revoked", reason="revoked_key")
            if found.expires_at is not None and now >= found.expires_at:
                raise Unauthenticated(f"key {found.key_id!r} has expired", reason="expired_key")
            self._authorise(found, method, path, headers)
            self.last_used[found.key_id] = now
            return found
        known = None if self._tokens is None else self._tokens.remembered(credential)
        if known is None:
            raise Unauthenticated("the API key is not known")
        self._authorise(known, method, path, headers)
        return known

    async def admit_slowly(
        self, error: Unauthenticated, method: str, path: str, headers: Headers, address: str
    ) -> Principal:
        """Check a request that `admit` refused: it may have a token, else its answer may wait.

        Raises what is to be answered.
        """
        if error.reason == "no_key":
            raise error
        if self._tokens is not None and error.reason == "unknown_key":
            token = _bearer(headers)
            if token.count(".") == 2:  # the compact form of a JWT
                try:
                    found = await asyncio.to_thread(self._tokens.verify, token)
                except Unauthenticated as refused:
                    error = refused
                else:
                    self._authorise(found, method, path, headers)
                    return found
        delay = self._wrong_keys.delay(address, error.detail)
        if delay > 0:
            self._wrong_keys.waiting += 1
            try:
                await self._sleep(delay)
            finally:
                self._wrong_keys.waiting -= 1
        raise error

    def _authorise(self, found: Principal, method: str, path: str, headers: Headers) -> None:
        if found.rate is not None:
            self._rates.take(found.key_id, found.rate)
        access = access_to(method, path)
        needed = access.scope
        if access.rows_scope is not None and _asks_for_rows(headers):
            needed = access.rows_scope
        if needed is not None and needed not in found.scopes:
            raise Forbidden(f"key {found.key_id!r} lacks the scope {needed!r}", actor=found.actor)
        pattern = found.models_pattern
        if pattern is None:
            return
        if access.model is not None and pattern.fullmatch(access.model) is None:
            raise Forbidden(
                f"key {found.key_id!r} may not use the model {access.model[:100]!r}",
                reason="model",
                actor=found.actor,
            )
        if access.all_models:
            raise Forbidden(
                f"key {found.key_id!r} may use some models only, {path} shows all",
                reason="model",
                actor=found.actor,
            )


def _bearer(headers: Headers) -> str:
    """The credential of the header Authorization; raises `Unauthenticated` without one."""
    authorization = dict(headers).get(b"authorization", b"").decode("latin-1")
    scheme, _, key = authorization.partition(" ")
    key = key.strip()
    if not key or (scheme != "Bearer" and scheme.lower() != "bearer"):
        raise Unauthenticated("send an API key as Authorization: Bearer KEY", reason="no_key")
    return key


def _asks_for_rows(headers: Headers) -> bool:
    """Whether any Accept header names the format of raw rows."""
    kind = ROWS_MEDIA_TYPE.encode()
    return any(name == b"accept" and kind in value for name, value in headers)


class OriginPolicy:
    """Refuses writes of foreign web pages, and host names that nobody has declared."""

    def __init__(
        self,
        *,
        hosts: Collection[str] | None,  # names that are answered to; None: any
        trusted_origins: Collection[str],  # pages that may write, as scheme://host[:port]
    ) -> None:
        self._any_host = hosts is None or "*" in hosts
        names = [] if hosts is None else [name.lower() for name in hosts]
        self._hosts = frozenset(name for name in names if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._trusted = frozenset(origin.lower() for origin in trusted_origins)

    def admit(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Check a request; raises `UnknownHost` or `ForeignOrigin`."""
        host = headers.get(b"host", b"")
        if not self._any_host:
            name = _host_name(host)
            known = name in self._hosts or name.endswith(self._suffixes)
            if not known and not _ANY_HOST.match(path):
                raise UnknownHost(
                    f"this service has no keys and does not answer to the host {name[:100]!r}: "
                    "add it to TRUEPROB_ALLOWED_HOSTS, or set TRUEPROB_API_KEYS_FILE"
                )
        if method in SAFE_METHODS:
            return
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin is None and site is None:
            return  # no browser
        if origin is not None and origin.decode("latin-1").lower() in self._trusted:
            return
        if site is not None:
            # The browser compares the origins itself, and also knows them behind a proxy.
            own = site in (b"same-origin", b"none")
        else:
            own = _same_host(origin or b"", host)
        if not own:
            page = (origin or b"of another site").decode("latin-1")
            raise ForeignOrigin(
                f"the page {page[:100]} may not write here: requests from pages of other origins "
                "are refused unless TRUEPROB_CORS_ORIGINS lists the origin"
            )


@lru_cache(maxsize=256)
def _host_name(host: bytes) -> str:
    """The name in a Host header: lower case, without port, brackets and final dot."""
    try:
        return (urlsplit(f"//{host.decode('latin-1')}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _same_host(origin: bytes, host: bytes) -> bool:
    """Whether an origin has the host and port of a Host header; ``null`` never has."""
    try:
        page = urlsplit(origin.decode("latin-1"))
        here = urlsplit(f"//{host.decode('latin-1')}")
        default = {"http": 80, "https": 443}.get(page.scheme)
        return (
            default is not None
            and page.hostname is not None
            and page.hostname == here.hostname
            and (page.port or default) == (here.port or default)
        )
    except ValueError:
        return False
