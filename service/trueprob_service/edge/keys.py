"""API keys: what one allows, the file that lists them, and reading it again while it changes.

The file has one JSON object a line::

    {"id": "team-a", "sha256": "<hex>", "scopes": ["predict", "label"],
     "models": ["digits-*"], "expires": "2027-06-30T00:00:00Z", "rate": "100/second"}

``id``, ``sha256`` and ``scopes`` are needed. Only digests are stored. A revoked key keeps its line,
with the time in ``revoked``, so that its id stays known.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from trueprob_service.edge.access import SCOPES, model_pattern, valid_model_glob
from trueprob_service.edge.throttle import Rate
from trueprob_service.errors import InvalidSettings

__all__ = [
    "TOKEN_PREFIX",
    "ApiKey",
    "KeyFile",
    "Principal",
    "append_key",
    "hangup_calls",
    "new_key",
    "parse_keys",
    "parse_time",
    "read_keys",
    "revoke_key",
]

_LOG: Final = logging.getLogger(__name__)
_NEEDED: Final = {"id", "sha256", "scopes"}
_OPTIONAL: Final = {"models", "expires", "rate", "revoked"}
TOKEN_PREFIX: Final = "oidc:"  # noqa: S105 - of the ids of those who come with a token


@dataclass(frozen=True)
class Principal:
    """Who sends a request, and what that one may do."""

    key_id: str
    scopes: frozenset[str]
    models: tuple[str, ...] | None = None  # globs; None for every model
    expires_at: float | None = None  # seconds since 1970 UTC
    rate: Rate | None = None

    @functools.cached_property
    def actor(self) -> str:
        """Its name in the audit trail, which tells keys from tokens and from the service itself."""
        return self.key_id if self.key_id.startswith(TOKEN_PREFIX) else f"key:{self.key_id}"

    @functools.cached_property
    def models_pattern(self) -> re.Pattern[str] | None:
        """Matches the names of the models that it may use; None if it may use all."""
        return None if self.models is None else re.compile(model_pattern(self.models))


@dataclass(frozen=True)
class ApiKey(Principal):
    """A key as the file describes it, without the key itself."""

    sha256: str = ""  # lower-case hex digest of the key
    revoked_at: float | None = None


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a key file; `InvalidSettings` names the line that cannot be used."""
    return parse_keys(_read(path))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"api_keys_file cannot be read: {type(error).__name__}") from None


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys in the text of a key file; `InvalidSettings` names the line that is wrong."""
    keys = [_parse(line, i) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
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
    except (json.JSONDecodeError, RecursionError):
        raise InvalidSettings(f"{where} is not JSON") from None
    if not isinstance(entry, dict) or not set(entry) >= _NEEDED:
        raise InvalidSettings(f"{where} must be an object with id, sha256 and scopes")
    unknown = sorted(set(entry) - _NEEDED - _OPTIONAL)
    if unknown:
        raise InvalidSettings(
            f"{where}: {unknown[0][:40]!r} is not a field of a key; beside id, sha256 and scopes "
            f"there are {', '.join(sorted(_OPTIONAL))}"
        )
    try:
        return _checked(entry)
    except ValueError as error:
        raise InvalidSettings(f"{where}: {error}") from None


def _checked(entry: dict[str, Any]) -> ApiKey:
    key_id, digest, rate = entry["id"], entry["sha256"], entry.get("rate")
    if not isinstance(key_id, str) or not key_id or not key_id.isprintable():
        raise ValueError("id must be a non-empty string of printable characters")
    if key_id.startswith(TOKEN_PREFIX):
        raise ValueError(f"id must not start with {TOKEN_PREFIX}, as the ids of tokens do")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("sha256 must be 64 lower-case hex digits")
    if rate is not None and not isinstance(rate, str):
        raise ValueError("rate must be a string such as 100/second")
    return ApiKey(
        key_id=key_id,
        sha256=digest,
        scopes=frozenset(_scopes(entry["scopes"])),
        models=_models(entry.get("models")),
        expires_at=_time(entry, "expires"),
        rate=None if rate is None else Rate.parse(rate),
        revoked_at=_time(entry, "revoked"),
    )


def _scopes(value: object) -> list[str]:
    if not isinstance(value, list) or not all(scope in SCOPES for scope in value):
        raise ValueError(f"scopes must be among {', '.join(SCOPES)}")
    return value


def _models(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise ValueError("models must be a list of names or globs; leave it out for all models")
    for glob in value:
        if not isinstance(glob, str) or not valid_model_glob(glob):
            raise ValueError(
                "models must have names of models, perhaps with * (any characters) and ? (one), "
                f"got {str(glob)[:40]!r}"
            )
    return tuple(value)


def _time(entry: dict[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a time such as 2027-06-30T12:00:00Z")
    try:
        return parse_time(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def parse_time(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time with its zone; a date alone is 00:00 UTC of that day.

    Raises `ValueError`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"must be a time such as 2027-06-30T12:00:00Z, got {text[:40]!r}"
        ) from None
    if moment.tzinfo is None:
        if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text) is None:
            raise ValueError(f"must have a time zone, as in 2027-06-30T12:00:00Z, got {text!r}")
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def new_key(
    key_id: str,
    scopes: Iterable[str],
    *,
    models: Sequence[str] = (),  # globs; none for all models
    expires: str | None = None,  # as `parse_time` reads it
    rate: str | None = None,  # as `Rate.parse` reads it
) -> tuple[str, str]:
    """Make a random key; returns it and its line for the file, without a line break.

    Raises `ValueError` for a field that cannot be used.
    """
    key = f"tp_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    optional = {"models": list(models) or None, "expires": expires, "rate": rate}
    entry = {"id": key_id, "sha256": digest, "scopes": sorted(scopes)}
    entry |= {name: value for name, value in optional.items() if value is not None}
    _checked(entry)
    return key, json.dumps(entry)


def append_key(path: Path, line: str) -> None:
    """Add a line to a key file, which is made if need be; readers see the old file or the new one.

    Raises `InvalidSettings` if the file cannot be read, or has a key of this id.
    """
    text = _read(path) if path.exists() else ""
    if text and not text.endswith("\n"):
        text += "\n"
    new = f"{text}{line}\n"
    parse_keys(new)
    _replace(path, new)


def revoke_key(path: Path, key_id: str, *, now: float) -> bool:
    """Mark a key as revoked; False if it was before. `InvalidSettings` if there is none."""
    lines = _read(path).splitlines()
    for index, line in enumerate(lines):
        entry = json.loads(line) if line.strip() else {}
        if entry.get("id") != key_id:
            continue
        if entry.get("revoked") is not None:
            return False
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        lines[index] = json.dumps({**entry, "revoked": moment.replace("+00:00", "Z")})
        _replace(path, "\n".join(lines) + "\n")
        return True
    raise InvalidSettings(f"{path} has no key with the id {key_id!r}; `keys list` shows them")


def _replace(path: Path, text: str) -> None:
    """Write a file that its owner alone may read; a file that exists keeps its mode and owner."""
    target = path.resolve()
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".keys-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                before = target.stat()
                os.chmod(name, before.st_mode & 0o777)  # noqa: PTH101
                with contextlib.suppress(PermissionError):
                    os.chown(name, before.st_uid, before.st_gid)
            os.replace(name, target)  # noqa: PTH105
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be written: {error.strerror}") from None


class KeyFile:
    """The key file of a running service: read again when it changes, kept when it is damaged."""

    def __init__(
        self,
        path: Path,
        *,
        use: Callable[[tuple[ApiKey, ...]], None],  # receives the keys
        damaged: Callable[[bool], None],  # told whether the file can be used now
        changed: Callable[[dict[str, list[str]]], None],
    ) -> None:
        self._path = path
        self._use = use
        self._damaged = damaged
        self._changed = changed  # receives the ids that were added, changed, revoked and removed
        self._reading = threading.Lock()
        text = _read(path)
        self._seen = text
        self._keys = parse_keys(text)
        self.problem: str | None = None  # why the file cannot be used now; the old keys are valid
        use(self._keys)

    @property
    def digest(self) -> str:
        """SHA-256 of the text whose keys are in use, in hex."""
        return hashlib.sha256(self._seen.encode()).hexdigest()

    def refresh(self) -> None:
        """Read the file, and use its keys if it has changed; a damaged file changes nothing."""
        with self._reading:
            try:
                text = _read(self._path)
                if text == self._seen and self.problem is None:
                    return
                keys = parse_keys(text)
            except InvalidSettings as error:
                if self.problem != str(error):
                    _LOG.error("%s; the keys from before stay valid until it is repaired", error)
                self.problem = str(error)
                self._damaged(True)
                return
            changes = _changes(self._keys, keys)
            self._keys, self._seen, self.problem = keys, text, None
            self._use(keys)
            self._damaged(False)
        if changes:
            told = "; ".join(f"{how} {', '.join(ids)}" for how, ids in changes.items())
            _LOG.info("api_keys_file was read again: %s", told)
            self._changed(changes)


def _changes(before: Sequence[ApiKey], after: Sequence[ApiKey]) -> dict[str, list[str]]:
    old, new = ({key.key_id: key for key in keys} for keys in (before, after))
    both = sorted(old.keys() & new.keys())
    revoked = [i for i in both if old[i].revoked_at is None and new[i].revoked_at is not None]
    found = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "revoked": revoked,
        "changed": [i for i in both if old[i] != new[i] and i not in revoked],
    }
    return {how: ids for how, ids in found.items() if ids}


@contextlib.contextmanager
def hangup_calls(function: Callable[[], None]) -> Iterator[None]:
    """Context in which SIGHUP calls a function in a thread; needs the main thread's event loop.

    Elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, function))
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
