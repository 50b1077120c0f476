"""Settings from variables and flags, read once.

``TRUEPROB_MAX_BODY_BYTES=1000000`` and ``--max-body-bytes 1000000`` are the same setting; a flag
wins over a variable. Nothing else in the service reads the environment.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from trueprob_service.settings import Settings

__all__ = ["PREFIX", "InvalidSettings", "load_settings"]

PREFIX: Final = "TRUEPROB_"
# Kubernetes injects these for a service named trueprob: not settings, whatever they are called.
_SERVICE_LINK: Final = re.compile(
    r"^TRUEPROB_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)$"
)
# Names of settings that are gone, and what took their place: not to be ignored with a warning.
_RENAMED: Final = {"receipt_secret": "receipt_secrets"}
_LINK_VALUE: Final = re.compile(r"^(tcp|udp)://")


class InvalidSettings(ValueError):
    """A setting has a value that cannot be used; the message is one line for the terminal."""


def load_settings(
    argv: Sequence[str], environ: Mapping[str, str], *, program: str = "trueprob-service"
) -> tuple[Settings, tuple[str, ...]]:
    """Read the settings from flags and variables.

    Raises `InvalidSettings`: a value cannot be used, or a setting has another name now; the
    message names the setting.
    """
    _refuse_old_names(argv, environ)
    values: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in environ.items():
        if not name.startswith(PREFIX) or _SERVICE_LINK.match(name) or _LINK_VALUE.match(value):
            continue
        field = name.removeprefix(PREFIX).lower()
        if field in Settings.model_fields:
            values[field] = value
        else:
            near = difflib.get_close_matches(field, Settings.model_fields, n=1, cutoff=0.0)
            unknown.append(f"{name} is not a setting; the nearest is {PREFIX}{near[0].upper()}")
    values |= vars(_parser(program).parse_args(list(argv)))
    try:
        return Settings(**values), tuple(unknown)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = str(first["loc"][0]) if first["loc"] else "settings"
        raise InvalidSettings(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _refuse_old_names(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    flags = {argument.partition("=")[0] for argument in argv}
    for old, new in _RENAMED.items():
        for name, renamed in (
            (f"{PREFIX}{old.upper()}", f"{PREFIX}{new.upper()}"),
            (f"--{old.replace('_', '-')}", f"--{new.replace('_', '-')}"),
        ):
            if name in environ or name in flags:
                raise InvalidSettings(
                    f"{name} is no setting any more: remove it and set {renamed} "
                    f"({Settings.model_fields[new].description})"
                )


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        text = f"{field.description} [{PREFIX}{name.upper()}]".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(flag, metavar="VALUE", help=text)
    return parser
