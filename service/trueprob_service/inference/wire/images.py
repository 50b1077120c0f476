"""Finds the picture files of a request body: PNG, JPEG or WebP.

A body is one picture, a JSON list of base64 strings, or ``multipart/form-data`` with one part named
``image`` for each picture (RFC 7578). What a file is, its first bytes say; a media type says only
that the body is a picture, so other names of the three types are read too.

Base64 may be wrapped, in the URL-safe alphabet (RFC 4648, section 5), without padding, or in a
``data:`` URL (RFC 2397).
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = [
    "FORMATS",
    "MEDIA_TYPES",
    "MULTIPART_MEDIA_TYPE",
    "PART_NAME",
    "READ_MEDIA_TYPES",
    "pictures_from_base64",
    "pictures_from_multipart",
]

MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
MULTIPART_MEDIA_TYPE: Final = "multipart/form-data"
PART_NAME: Final = "image"
FORMATS: Final = ("PNG", "JPEG", "WEBP")  # Pillow's names
READ_MEDIA_TYPES: Final = frozenset(MEDIA_TYPES) | {
    f"image/{name}"
    for name in (
        "jpg", "jpe", "jfif", "pjpeg", "pjp", "x-jpg", "x-jpeg", "x-citrix-jpeg", "x-png",
        "x-citrix-png", "apng", "vnd.mozilla.apng", "x-webp",
    )
}  # fmt: skip
_HEADERS_OF_A_PART: Final = 8
_HEADER_BYTES: Final = 4096


def pictures_from_base64(values: object) -> list[bytes]:
    """Picture files, at least one, from the base64 strings of a JSON body's ``images``."""
    if not isinstance(values, list) or not values:
        raise InvalidRequest("images must be a list of base64 strings with at least one")
    pictures = []
    for i, text in enumerate(values):
        if not isinstance(text, str):
            raise InvalidRequest(f"images[{i}] must be a base64 string")
        try:
            pictures.append(base64.b64decode(text, validate=True))
        except ValueError:
            pictures.append(_decoded(text, f"images[{i}]"))
    return pictures


def _decoded(text: str, name: str) -> bytes:
    """Decode base64 that is wrapped, URL-safe, unpadded or in a ``data:`` URL."""
    text = text.strip()
    if text[:5].lower() == "data:":
        header, comma, text = text.partition(",")
        if not comma or header.rstrip()[-7:].lower() != ";base64":
            raise InvalidRequest(
                f"{name} must be data:image/…;base64,… or base64 alone, got another data URL"
            )
        text = unquote(text)
    # A space within a line was a plus sign, before somebody took the text for a form's.
    text = "".join(line.strip() for line in text.splitlines()).rstrip("=")
    url_safe = "-" in text or "_" in text
    if not (url_safe and ("+" in text or "/" in text)):
        padded = text + "=" * (-len(text) % 4)
        with suppress(ValueError):
            return base64.b64decode(padded, altchars=b"-_" if url_safe else None, validate=True)
    raise InvalidRequest(f"{name} is not valid base64")


def pictures_from_multipart(body: bytes, content_type: str, *, max_parts: int) -> list[bytes]:
    """Picture files, at least one, from the parts of a form.

    Raises `BadRequest` if the body is damaged or truncated, `InvalidRequest` if a part has another
    name or there is none, and `BodyTooLarge` if there are too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise BadRequest("Content-Type multipart/form-data must have a boundary")
    form = _FormReader(max_parts)
    try:
        MultipartParser(
            boundary,
            form.callbacks(),
            max_header_count=_HEADERS_OF_A_PART,
            max_header_size=_HEADER_BYTES,
        ).write(body)
    except FormParserError:
        raise BadRequest("the body is not multipart/form-data with this boundary") from None
    if not form.ended:
        raise BadRequest("the body is truncated: its last boundary is missing")
    if not form.pictures:
        raise InvalidRequest(f"expected at least one part named {PART_NAME}, got none")
    return form.pictures


class _FormReader:
    """Collects the pictures of a form in the callbacks of `MultipartParser`."""

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
