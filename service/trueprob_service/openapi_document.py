"""What the OpenAPI document says of all routes alike, added to what FastAPI derives from each.

- how keys are sent, and which routes need one (`securitySchemes`);
- the errors that can come before a route is reached: of keys, hosts, pages, bodies;
- that parameters are never null, and when `If-Match` is required. FastAPI knows them as optional,
  because the service itself answers for one that is missing.

FastAPI is not imported: the document is a mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from trueprob_service.control.api.documentation import IF_MATCH_SOMETIMES, problems

__all__ = ["SCHEME", "complete", "operations"]

Operation = dict[str, Any]
SCHEME: Final = "ApiKey"
_METHODS: Final = ("get", "put", "post", "delete")
_EVERYWHERE: Final = (421,)  # an unknown host
_WRITES: Final = (403,)  # a page of another origin, or a key that lacks a scope
_BODIES: Final = (400, 413, 415)
_KEYS: Final = (401, 403)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    """Method (upper case), path and description of every operation."""
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def complete(
    document: dict[str, Any],
    needs_key: Callable[[str, str], bool],  # of a method and a path
) -> None:
    """Add to FastAPI's document, in place."""
    document.setdefault("components", {})["securitySchemes"] = {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, if the service has any. Writing needs a scope.",
        }
    }
    for method, path, operation in operations(document):
        statuses = {*_EVERYWHERE}
        if method != "GET":
            statuses |= {*_WRITES}
        if "requestBody" in operation:
            statuses |= {*_BODIES}
        if needs_key(method, path):
            operation["security"] = [{SCHEME: []}]
            statuses |= {*_KEYS}
        _add_errors(operation, statuses)
        for parameter in operation.get("parameters", ()):
            _without_null(parameter["schema"])
        _require_if_match(operation)


def _add_errors(operation: Operation, statuses: set[int]) -> None:
    responses = operation["responses"]
    for status, response in problems(*statuses).items():
        if status in statuses:
            responses.setdefault(str(status), response)
    operation["responses"] = dict(sorted(responses.items()))


def _without_null(schema: dict[str, Any]) -> None:
    """Leave null out of the types of a parameter: it is text, and absent if it has no value."""
    types = schema.get("anyOf")
    if types is None:
        return
    kept = [each for each in types if each != {"type": "null"}]
    if len(kept) == 1:
        del schema["anyOf"]
        schema.update({**kept[0], **schema})


def _require_if_match(operation: Operation) -> None:
    """The header is required where a request without it is 428 whatever its body says."""
    sometimes = operation.pop(IF_MATCH_SOMETIMES, False)
    if sometimes or "428" not in operation["responses"]:
        return
    for parameter in operation["parameters"]:
        if parameter["name"] == "If-Match":
            parameter["required"] = True
