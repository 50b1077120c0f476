"""API keys and their scopes.

The key file has one JSON object a line: ``{"id": "team-a", "sha256": "<hex>", "scopes": ["predict",
"label"]}``. Only digests are stored; ``python -m trueprob_service keys`` makes a key and its line.
Clients send ``Authorization: Bearer KEY``. Reading needs any key, writing needs a scope.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from trueprob_service.errors import Forbidden, InvalidSettings, Unauthenticated

__all__ = ["SCOPES", "ApiKey", "Keyring", "new_key", "read_keys", "scope_needed"]

SCOPES: Final = ("predict", "label", "calibrate", "admin")
# Paths that need no key unless require_key_everywhere is set: for probes, scrapers and browsers.
_OPEN: Final = re.compile(
    r"^/(metrics|docs(/.*)?|page/[a-z]+\.[a-z]+|openapi\.json|v2/health/(live|ready))?$"
)
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
    if method in ("GET", "HEAD", "OPTIONS"):
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
