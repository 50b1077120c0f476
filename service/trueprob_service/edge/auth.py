"""Who may send a request: API keys with scopes, and which web pages and host names are accepted.

The key file has one JSON object a line: ``{"id": "team-a", "sha256": "<hex>", "scopes": ["predict",
"label"]}``. Only digests are stored; ``python -m trueprob_service keys`` makes a key and its line.
Clients send ``Authorization: Bearer KEY``. Reading needs any key, writing needs a scope.

A browser sends requests for any page that is open in it, also to a loopback address. So a page of
another origin may not write, by the headers ``Origin`` and ``Sec-Fetch-Site`` (Fetch Metadata, W3C)
that pages cannot set. A page can also give its own name this machine's address (DNS rebinding);
its requests then have the same origin, but their ``Host`` is that name. So a service without keys
answers only to names that it knows.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from trueprob_service.errors import (
    Forbidden,
    ForeignOrigin,
    InvalidSettings,
    Unauthenticated,
    UnknownHost,
)

__all__ = [
    "LOOPBACK_HOSTS",
    "SAFE_METHODS",
    "SCOPES",
    "ApiKey",
    "Keyring",
    "OriginPolicy",
    "new_key",
    "read_keys",
    "scope_needed",
]

SCOPES: Final = ("predict", "label", "calibrate", "admin")
# Paths that need no key unless require_key_everywhere is set: for probes, scrapers and browsers.
_OPEN: Final = re.compile(
    r"^/(metrics|docs(/.*)?|page/[a-z]+\.[a-z]+|openapi\.json|v2/health/(live|ready))?$"
)
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
# Probes and scrapers use whatever address they have; these paths take no writes and show no rows.
_ANY_HOST: Final = re.compile(r"^/(metrics|v2/health/(live|ready))$")
_SCOPE_OF: Final = (
    (re.compile(r"^/v1/models/[^/]+/probabilities$"), "predict"),
    (re.compile(r"^/v2/models/[^/]+(/versions/[^/]+)?/infer$"), "predict"),
    (re.compile(r"^/v1/models/[^/]+/labels$"), "label"),
    (re.compile(r"^/v1/models/[^/]+/(calibration-sets|fits)(/.*)?$"), "calibrate"),
    (re.compile(r"^/v1/models/[^/]+/(rollback|shadow|calibrators/[^/]+/promote)$"), "calibrate"),
    (re.compile(r"^/v1/models/[^/]+/alarms/[^/]+/acknowledge$"), "calibrate"),
)


@dataclass(frozen=True)
class ApiKey:
    """A key as the file describes it, without the key itself."""

    key_id: str
    sha256: str  # lower-case hex digest of the key
    scopes: frozenset[str]


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a key file; `InvalidSettings` names the line that cannot be used."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"api_keys_file cannot be read: {type(error).__name__}") from None
    keys = [_parse(line, i) for i, line in enumerate(lines, 1) if line.strip()]
    for name, values in (("id", [k.key_id for k in keys]), ("sha256", [k.sha256 for k in keys])):
        if len(set(values)) != len(values):
            raise InvalidSettings(f"api_keys_file: two lines have the same {name}")
    if not keys:
        raise InvalidSettings("api_keys_file has no key: no client could use the service")
    return tuple(keys)


def _parse(line: str, number: int) -> ApiKey:
    where = f"api_keys_file line {number}"
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        raise InvalidSettings(f"{where} is not JSON") from None
    if not isinstance(entry, dict) or set(entry) != {"id", "sha256", "scopes"}:
        raise InvalidSettings(f"{where} must be an object with id, sha256 and scopes")
    key_id, digest, scopes = entry["id"], entry["sha256"], entry["scopes"]
    if not isinstance(key_id, str) or not key_id:
        raise InvalidSettings(f"{where}: id must be a non-empty string")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidSettings(f"{where}: sha256 must be 64 lower-case hex digits")
    if not isinstance(scopes, list) or not set(scopes) <= set(SCOPES):
        raise InvalidSettings(f"{where}: scopes must be among {', '.join(SCOPES)}")
    return ApiKey(key_id, digest, frozenset(scopes))


def new_key(key_id: str, scopes: Iterable[str]) -> tuple[str, str]:
    """Make a random key; returns it and its line for the file, without a line break."""
    key = f"tp_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    return key, json.dumps({"id": key_id, "sha256": digest, "scopes": sorted(scopes)})


@lru_cache(maxsize=1024)  # few paths are requested, and the patterns cost 3 µs
def scope_needed(method: str, path: str) -> str | None:
    """The scope that a request needs; None if any key is enough.

    Requests that write and are not listed above need ``admin``.
    """
    if method in SAFE_METHODS:
        return None
    return next((scope for pattern, scope in _SCOPE_OF if pattern.match(path)), "admin")


class Keyring:
    """Checks the keys of requests. Without any keys, every request is allowed."""

    def __init__(self, keys: Sequence[ApiKey], *, everywhere: bool) -> None:
        self._by_digest: Mapping[str, ApiKey] = {key.sha256: key for key in keys}
        self._everywhere = everywhere

    def admit(self, method: str, path: str, authorization: str) -> str | None:
        """Check a request; returns the id of its key, None if it needs no key.

        Raises `Unauthenticated` or `Forbidden`.
        """
        if not self._by_digest or (not self._everywhere and _is_open(path)):
            return None
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if not key or (scheme != "Bearer" and scheme.lower() != "bearer"):
            raise Unauthenticated("send an API key as Authorization: Bearer KEY")
        # The timing of this look-up can only reveal bits of the digest, not of the key.
        found = self._by_digest.get(hashlib.sha256(key.encode()).hexdigest())
        if found is None:
            raise Unauthenticated("the API key is not known")
        scope = scope_needed(method, path)
        if scope is not None and scope not in found.scopes:
            raise Forbidden(f"key {found.key_id!r} lacks the scope {scope!r}")
        return found.key_id


@lru_cache(maxsize=1024)
def _is_open(path: str) -> bool:
    return _OPEN.match(path) is not None


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
