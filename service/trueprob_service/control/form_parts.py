"""``multipart/form-data`` (RFC 7578) in a file: its parts by name."""

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

_PIECE_BYTES: Final = 1 << 20
_HEADERS_OF_A_PART: Final = 8
_HEADER_BYTES: Final = 4096


@dataclass(frozen=True)
class FormPart:
    """One part: its name, the name of the file that it was, and what it holds."""

    name: str
    filename: str
    content: bytes


def form_parts(path: Path, content_type: str) -> list[FormPart]:
    """The parts of a form, in their order.

    Raises `BadRequest`: there is no boundary, or the body is not such a form.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("Content-Type multipart/form-data must name its boundary")
    collected = _Collected()
    callbacks: MultipartCallbacks = {
        "on_part_begin": collected.begin,
        "on_header_field": collected.header_field,
        "on_header_value": collected.header_value,
        "on_header_end": collected.header_end,
        "on_part_data": collected.data,
        "on_part_end": collected.end,
        "on_end": collected.finish,
    }
    try:
        parser = MultipartParser(
            boundary,
            callbacks,
            max_header_count=_HEADERS_OF_A_PART,
            max_header_size=_HEADER_BYTES,
        )
        for piece in _pieces(path):
            parser.write(piece)
        parser.finalize()
    except FormParserError:
        raise BadRequest("the body is not multipart/form-data with that boundary") from None
    if not collected.complete:
        raise BadRequest("the multipart body is truncated: its last boundary is missing")
    return collected.parts


class _Collected:
    """Gathers what the parser reports."""

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


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
