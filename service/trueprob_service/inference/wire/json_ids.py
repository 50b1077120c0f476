"""The member ``ids`` of a JSON body: the caller's own ids of the rows, beside the rows themselves.

The readers of rows (`trueprob_service.inference.wire.json_rows`) are fast because a body has one
member. So ``ids`` is cut out of the text before: at its start or its end, where clients write it,
without parsing the rows. Elsewhere the body is parsed as a whole.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from trueprob_service.receipts.identified import checked_ids

__all__ = ["without_ids"]

_NAME: Final = b'"ids"'
_SPACE: Final = rb"[ \t\n\r]*"
_FIRST: Final = re.compile(_SPACE.join((rb"\A", rb"\{", _NAME, b":", b"")))
_LAST: Final = re.compile(_SPACE.join((b",", _NAME, b":", rb"(?=\[)")))
# A list of texts and numbers; brackets and quotes may be in the texts.
_LIST: Final = re.compile(rb'\[(?:[^\[\]"]++|"(?:[^"\\]++|\\.)*+")*+\]', re.DOTALL)
_AFTER_FIRST: Final = re.compile(_SPACE.join((b"", rb"([,}])")))
_END: Final = re.compile(_SPACE.join((rb"\}", rb"\Z")))
_MARGIN_BYTES: Final = 64  # of the end of a body: what follows its last list


def without_ids(body: bytes) -> tuple[list[str] | None, bytes]:
    """The ids of a body, and the body without them; None, and the same body, if it has none.

    Raises `InvalidRequest` if ``ids`` is no list of ids. What is not JSON stays as it is.
    """
    found = _first(body) or _last(body) or _anywhere(body)
    if found is None:
        return None, body
    values, rest = found
    return checked_ids(values), rest


def _first(body: bytes) -> tuple[Any, bytes] | None:
    """As `without_ids`, for a body that begins with its ids."""
    opening = _FIRST.match(body)
    if opening is None:
        return None
    text = _LIST.match(body, opening.end())
    if text is None or (after := _AFTER_FIRST.match(body, text.end())) is None:
        return None
    values = _loads(text[0])
    rest = body[after.end() :] if after[1] == b"," else b"}" + body[after.end() :]
    return None if values is None else (values, b"{" + rest)


def _last(body: bytes) -> tuple[Any, bytes] | None:
    """As `without_ids`, for a body that ends with its ids.

    A member of an inner object is never taken for it: the list would be followed by two braces.
    """
    place = body.rfind(_NAME)
    comma = body.rfind(b",", max(0, place - _MARGIN_BYTES), max(0, place))
    opening = None if comma < 0 else _LAST.match(body, comma)
    if opening is None:
        return None
    end = _END.search(body, max(opening.end(), len(body) - _MARGIN_BYTES))
    values = None if end is None else _loads(body[opening.end() : end.start()])
    return None if values is None else (values, body[:comma] + b"}")


def _anywhere(body: bytes) -> tuple[Any, bytes] | None:
    document = _loads(body)
    if not isinstance(document, dict) or "ids" not in document:
        return None
    values = document.pop("ids")
    return values, orjson.dumps(document)


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
