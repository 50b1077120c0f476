"""The commands ``trueprob-service keys`` and ``trueprob-service audit``.

``keys add`` prints a new key once. With a key file (``--file``, else TRUEPROB_API_KEYS_FILE) it
adds the key's line there and prints the key to standard output; without one it prints the line to
standard output and the key to standard error, so that ``>>`` appends only the line.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from trueprob_service.edge.access import SCOPES
from trueprob_service.edge.keys import ApiKey, append_key, new_key, read_keys, revoke_key
from trueprob_service.errors import DatabaseUnavailable, InvalidSettings
from trueprob_service.settings import Settings, load_settings

__all__ = ["audit_command", "keys_command"]

_PROG: Final = "trueprob-service"
_SQLITE: Final = re.compile(r"sqlite(?:\+\w+)?:///([^?]*)")
_VERBS: Final = ("add", "list", "revoke")


def keys_command(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``keys add``, ``keys list`` or ``keys revoke``; returns the exit code."""
    given = list(arguments)
    if given and given[0] not in _VERBS and not given[0].startswith("-"):
        return _add(given, environ, file_of_setting=False)  # `keys ID` of before
    parser = _keys_parser()
    options, rest = parser.parse_known_args(given)
    if options.verb == "add":
        return _add(given[1:], environ, file_of_setting=True)
    try:
        settings, _ = load_settings(rest, environ)
        path = options.file or settings.api_keys_file
        if path is None:
            raise InvalidSettings("name the key file: --file, or TRUEPROB_API_KEYS_FILE")
        if options.verb == "list":
            _print_keys(read_keys(path), _last_uses(settings))
            return 0
        is_new = revoke_key(path, options.key_id, now=time.time())
    except InvalidSettings as error:
        return _failed(error)
    print(f"{options.key_id} is revoked" if is_new else f"{options.key_id} was revoked before")
    return 0


def _keys_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_PROG} keys",
        description="Add, list and revoke API keys. A running service notices within seconds.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{add,list,revoke}")
    _fill_add(verbs.add_parser("add", help="make a key and add it to the key file"))
    shown = verbs.add_parser(
        "list", help="show the keys, never the keys themselves, and when each was last used"
    )
    revoked = verbs.add_parser("revoke", help="refuse a key from now on")
    revoked.add_argument("key_id", metavar="ID", help="id of the key")
    for verb in (shown, revoked):
        _add_file(verb)
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--file", metavar="FILE", type=Path, help="the key file; default: TRUEPROB_API_KEYS_FILE"
    )


def _fill_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key_id", metavar="ID", help="name of the client that will use the key")
    parser.add_argument(
        "--scopes", default="predict,label", help=f"comma separated, from {', '.join(SCOPES)}"
    )
    parser.add_argument(
        "--models", default="", help="models that it may use, comma separated, with * and ?"
    )
    parser.add_argument(
        "--expires", help="a time such as 2027-06-30T12:00:00Z; a date alone is 00:00 UTC"
    )
    parser.add_argument("--rate", help="its requests per second, minute or hour: 100/second")
    _add_file(parser)


def _add(arguments: Sequence[str], environ: Mapping[str, str], *, file_of_setting: bool) -> int:
    parser = argparse.ArgumentParser(prog=f"{_PROG} keys add", description="Make an API key.")
    _fill_add(parser)
    options = parser.parse_args(arguments)
    scopes, models = _words(options.scopes), _words(options.models)
    unknown = sorted(set(scopes) - set(SCOPES))
    try:
        if unknown:
            raise InvalidSettings(f"scopes must be among {', '.join(SCOPES)}, got {unknown[0]}")
        key, line = new_key(
            options.key_id, scopes, models=models, expires=options.expires, rate=options.rate
        )
        path = options.file
        if path is None and file_of_setting:
            path = load_settings([], environ)[0].api_keys_file
        if path is not None:
            append_key(path, line)
    except ValueError as error:
        return _failed(error)
    if path is None:
        print(f"key: {key}", file=sys.stderr)
        print(line)
    else:
        print(f"added to {path}; the key is shown only now:", file=sys.stderr)
        print(key)
    return 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _last_uses(settings: Settings) -> Mapping[str, float]:
    """The last use of each key; a database that does not answer is told on standard error."""
    from trueprob_service.control.store import open_store

    if _has_no_database(settings):
        return {}  # the service never ran here
    try:
        store = open_store(settings.resolved_database_url)
    except (DatabaseUnavailable, ValueError) as error:
        print(f"{_PROG}: when keys were last used is not known: {error}", file=sys.stderr)
        return {}
    try:
        with store.read() as transaction:
            return transaction.key_uses.all()
    finally:
        store.close()


def _has_no_database(settings: Settings) -> bool:
    """Whether the SQLite file is missing, which would be made by opening it."""
    file = _SQLITE.match(settings.resolved_database_url)
    return file is not None and not Path(file[1]).is_file()


def _print_keys(keys: Sequence[ApiKey], last_uses: Mapping[str, float]) -> None:
    now = time.time()
    table = [("ID", "STATE", "SCOPES", "MODELS", "RATE", "EXPIRES", "LAST USED")]
    for key in keys:
        expired = key.expires_at is not None and now >= key.expires_at
        table.append(
            (
                key.key_id,
                "revoked" if key.revoked_at is not None else "expired" if expired else "valid",
                ",".join(sorted(key.scopes)) or "-",
                "*" if key.models is None else ",".join(key.models),
                "-" if key.rate is None else f"{key.rate.requests}/{key.rate.seconds:g}s",
                _day(key.expires_at),
                _day(last_uses.get(key.key_id[:100])),
            )
        )
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


def _day(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def audit_command(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``audit verify``; returns 0 for a whole chain, 1 for a changed one, 2 for bad input."""
    parser = argparse.ArgumentParser(prog=f"{_PROG} audit")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{verify}")
    checked = verbs.add_parser(
        "verify",
        usage=f"{_PROG} audit verify [--head ID:HASH] [settings of serve]",
        help="check that no row of the audit trail was changed, deleted, inserted or moved",
    )
    checked.add_argument(
        "--head",
        metavar="ID:HASH",
        help="a head that an earlier run printed, kept elsewhere: that row must still be there",
    )
    options, rest = parser.parse_known_args(arguments)
    from trueprob_service.control.audit.trail import verify
    from trueprob_service.control.store import open_store

    try:
        noted = None if options.head is None else _noted(options.head)
        settings, _ = load_settings(rest, environ)
        if _has_no_database(settings):
            raise InvalidSettings(f"there is no database at {settings.resolved_database_url}")
        store = open_store(settings.resolved_database_url)
        try:
            head, faults = verify(store, noted=noted)
        finally:
            store.close()
    except (DatabaseUnavailable, ValueError) as error:
        return _failed(error)
    for fault in faults:
        print(f"{_PROG}: {fault}", file=sys.stderr)
    print(f"head {head}" if not faults else f"the audit trail was changed: {len(faults)} faults")
    return 1 if faults else 0


def _noted(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not number.isdigit() or len(number) > 10 or len(digest) != 64:
        raise InvalidSettings(
            f"--head must be ID:HASH as `audit verify` prints it, got {text[:90]!r}"
        )
    return int(number), digest


def _failed(error: Exception) -> int:
    print(f"{_PROG}: error: {error}", file=sys.stderr)
    return 2
