"""``multipart/form-data``: several pictures, each a part named ``image`` (RFC 7578)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["MEDIA_TYPE", "PART_NAME", "decode"]

MEDIA_TYPE: Final = "multipart/form-data"
PART_NAME: Final = "image"
_HEADERS_OF_A_PART: Final = 8
_HEADER_BYTES: Final = 4096


def decode(body: bytes, content_type: str, *, max_parts: int) -> list[bytes]:
    """The pictures of a body.

    Returns: at least one; what each part holds, not looked at. Raises `BadRequest`: not such a
    body, or a truncated one. Raises `InvalidRequest`: a part of another name, or none at all.
    Raises `BodyTooLarge`: more parts than the limit.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise BadRequest("Content-Type multipart/form-data must have a boundary")
    parts = _Parts(max_parts)
    try:
        MultipartParser(
            boundary,
            parts.callbacks(),
            max_header_count=_HEADERS_OF_A_PART,
            max_header_size=_HEADER_BYTES,
        ).write(body)
    except FormParserError:
        raise BadRequest("the body is not multipart/form-data with this boundary") from None
    if not parts.ended:
        raise BadRequest("the body is truncated: its last boundary is missing")
    if not parts.pictures:
        raise InvalidRequest(f"expected at least one part named {PART_NAME}, got none")
    return parts.pictures


class _Parts:
    """What the parser calls."""

    def __init__(self, max_parts: int) -> None:
        self.pictures: list[bytes] = []
        self.ended = False
        self._max_parts = max_parts
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._content: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
            "on_header_field": lambda data, start, end: self._header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._header(1, data[start:end]),
            "on_headers_finished": self._check_name,
            "on_part_data": lambda data, start, end: self._content.append(data[start:end]),
            "on_part_end": lambda: self.pictures.append(b"".join(self._content)),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.pictures) == self._max_parts:
            raise BodyTooLarge(f"the body has more than {self._max_parts} parts")
        self._headers, self._content = [], []

    def _header(self, which: int, data: bytes) -> None:
        self._headers[-1][which].extend(data)

    def _check_name(self) -> None:
        dispositions = [
            bytes(value)
            for field, value in self._headers
            if field.lower() == b"content-disposition"
        ]
        options = parse_options_header(dispositions[0])[1] if dispositions else {}
        name = options.get(b"name", b"").decode("latin-1")
        if name != PART_NAME:
            raise InvalidRequest(
                f"unknown part {name[:40]!r}: expected parts named {PART_NAME} only"
            )

    def _end(self) -> None:
        self.ended = True
