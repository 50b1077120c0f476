"""Reads the parts of a `multipart/form-data` body (RFC 7578) from a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trueprob_service.errors import BadRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["FormPart", "form_parts"]

_CHUNK_BYTES: Final = 1 << 20
_MAX_PART_HEADERS: Final = 8
_MAX_HEADER_BYTES: Final = 4096


@dataclass(frozen=True)
class FormPart:
    """One part: the name of its field, the name of its file, and its content."""

    name: str
    filename: str
    content: bytes


def form_parts(path: Path, content_type: str) -> list[FormPart]:
    """The parts of a form, in their order.

    Raises `BadRequest` if the Content-Type has no boundary, or the body is not a form with it.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("Content-Type multipart/form-data must name its boundary")
    collector = _PartCollector()
    callbacks: MultipartCallbacks = {
        "on_part_begin": collector.begin,
        "on_header_field": collector.header_field,
        "on_header_value": collector.header_value,
        "on_header_end": collector.header_end,
        "on_part_data": collector.data,
        "on_part_end": collector.end,
        "on_end": collector.finish,
    }
    try:
        parser = MultipartParser(
            boundary,
            callbacks,
            max_header_count=_MAX_PART_HEADERS,
            max_header_size=_MAX_HEADER_BYTES,
        )
        for chunk in _chunks(path):
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise BadRequest("the body is not multipart/form-data with that boundary") from None
    if not collector.complete:
        raise BadRequest("the multipart body is truncated: its last boundary is missing")
    return collector.parts


class _PartCollector:
    """Collects parts from the calls of the parser."""

    def __init__(self) -> None:
        self.parts: list[FormPart] = []
        self.complete = False
        self._field, self._value, self._data = bytearray(), bytearray(), bytearray()
        self._disposition = b""

    def begin(self) -> None:
        self._data, self._disposition = bytearray(), b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, filename = options.get(b"name", b""), options.get(b"filename", b"")
        self.parts.append(
            FormPart(
                name.decode("utf-8", "replace"),
                filename.decode("utf-8", "replace"),
                bytes(self._data),
            )
        )

    def finish(self) -> None:
        self.complete = True


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
