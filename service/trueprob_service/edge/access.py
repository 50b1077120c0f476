"""What each route needs: one table of methods, paths, scopes and the names of their actions.

A test compares the table with the OpenAPI document. A write to a path that is not in it needs
``admin``, anything else a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = [
    "ANY_KEY",
    "OPEN",
    "ROUTES",
    "ROWS_MEDIA_TYPE",
    "SAFE_METHODS",
    "SCOPES",
    "Access",
    "Rule",
    "access_to",
    "model_pattern",
    "valid_model_glob",
]

SCOPES: Final = ("predict", "label", "calibrate", "read", "admin")
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
OPEN: Final = "open"  # needs no key unless require_key_everywhere is set: probes, browsers
ANY_KEY: Final = "any key"
ROWS_MEDIA_TYPE: Final = "application/x-npz"  # an Accept with it asks for raw rows


@dataclass(frozen=True)
class Rule:
    """What one route needs."""

    method: str
    path: str  # as in the OpenAPI document; * at the end: any path below
    needs: str  # a scope, `ANY_KEY` or `OPEN`
    action: str | None = None  # of a write: its name in the audit trail, also when it is refused
    rows: str | None = None  # the scope if raw rows are asked for


_MODEL: Final = "/v1/models/{model}"
_SETS: Final = f"{_MODEL}/calibration-sets"
_OIP: Final = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
ROUTES: Final = (
    *(
        Rule("GET", path, OPEN)
        for path in ("/", "/docs", "/docs/*", "/page/{file}", "/openapi.json", "/metrics")
    ),
    Rule("GET", "/v2/health/live", OPEN),
    Rule("GET", "/v2/health/ready", OPEN),
    Rule("GET", "/v2", ANY_KEY),
    *(Rule("GET", path, ANY_KEY) for path in _OIP),
    *(Rule("GET", f"{path}/ready", ANY_KEY) for path in _OIP),
    *(Rule("POST", f"{path}/infer", "predict") for path in _OIP),
    Rule("POST", f"{_MODEL}/probabilities", "predict"),
    Rule("POST", f"{_MODEL}/labels", "label"),
    Rule("GET", "/v1/models", ANY_KEY),
    Rule("GET", _MODEL, ANY_KEY),
    Rule("PUT", _MODEL, "admin", "model.put"),
    Rule("DELETE", _MODEL, "admin", "model.delete"),
    Rule("GET", _SETS, ANY_KEY),
    Rule("POST", _SETS, "calibrate", "set.add"),
    Rule("GET", f"{_SETS}/{{digest}}", ANY_KEY, "set.download", rows="read"),
    Rule("DELETE", f"{_SETS}/{{digest}}", "calibrate", "set.delete"),
    Rule("POST", f"{_SETS}/{{name}}/rows", "calibrate", "set.append"),
    Rule("GET", f"{_MODEL}/fits", ANY_KEY),
    Rule("POST", f"{_MODEL}/fits", "calibrate", "fit.start"),
    Rule("GET", f"{_MODEL}/fits/{{fit}}", ANY_KEY),
    Rule("DELETE", f"{_MODEL}/fits/{{fit}}", "calibrate", "fit.cancel"),
    Rule("GET", f"{_MODEL}/calibrators", ANY_KEY),
    Rule("GET", f"{_MODEL}/calibrators/{{calibrator}}", ANY_KEY),
    Rule("POST", f"{_MODEL}/calibrators/{{calibrator}}/promote", "calibrate", "pair.promote"),
    Rule("GET", f"{_MODEL}/promotions", ANY_KEY),
    Rule("POST", f"{_MODEL}/rollback", "calibrate", "pair.rollback"),
    Rule("GET", f"{_MODEL}/shadow", ANY_KEY),
    Rule("PUT", f"{_MODEL}/shadow", "calibrate", "shadow.start"),
    Rule("DELETE", f"{_MODEL}/shadow", "calibrate", "shadow.end"),
    Rule("GET", f"{_MODEL}/calibration", ANY_KEY),
    Rule("GET", f"{_MODEL}/alarms", ANY_KEY),
    Rule("POST", f"{_MODEL}/alarms/{{alarm}}/acknowledge", "calibrate", "alarm.acknowledge"),
    Rule("GET", "/v1/audit", "admin"),
)


@dataclass(frozen=True)
class Access:
    """What a request needs."""

    is_open: bool
    scope: str | None  # None: any key
    rows_scope: str | None  # the scope if its Accept asks for raw rows
    model: str | None  # the model that it names
    all_models: bool  # it shows every model, whatever key it has
    action: str | None
    route: str | None  # its path as in the OpenAPI document; None for a path that is not there


def _compiled(rule: Rule) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", rule.path.removesuffix("*"))
    text = "".join(
        re.escape(part) if i % 2 == 0 else f"(?P<{part}>[^/]+)" for i, part in enumerate(parts)
    )
    return re.compile(text + (".*" if rule.path.endswith("*") else ""), re.DOTALL)


_COMPILED: Final = tuple((rule, _compiled(rule)) for rule in ROUTES)
_OF_MODEL: Final = re.compile(r"/v[12]/models/([^/]+)(?:/.*)?", re.DOTALL)


@lru_cache(maxsize=1024)  # few paths are requested, and the patterns cost several µs
def access_to(method: str, path: str) -> Access:
    """What a request with this method and path needs."""
    named = _OF_MODEL.fullmatch(path)
    model = None if named is None else named[1]
    same = "GET" if method in SAFE_METHODS else method
    for rule, pattern in _COMPILED:
        if rule.method == same and pattern.fullmatch(path):
            scope = None if rule.needs in (OPEN, ANY_KEY) else rule.needs
            is_open, shows_all = rule.needs == OPEN, rule.path == "/metrics"
            return Access(is_open, scope, rule.rows, model, shows_all, rule.action, rule.path)
    scope = None if method in SAFE_METHODS else "admin"
    return Access(False, scope, None, model, False, None, None)


_GLOB: Final = re.compile(r"[A-Za-z0-9_.*?-]{1,100}")


def valid_model_glob(glob: str) -> bool:
    """Whether a text is a model's name, perhaps with ``*`` (any characters) and ``?`` (one)."""
    return _GLOB.fullmatch(glob) is not None


@lru_cache(maxsize=1024)
def model_pattern(globs: Sequence[str]) -> str:
    """A regular expression for the names that match one of the globs, for Python and PostgreSQL."""
    wild = {"*": ".*", "?": ".", ".": "[.]"}
    return "^(" + "|".join("".join(wild.get(c, c) for c in glob) for glob in globs) + ")$"
