"""Reads the fields of a protobuf message, such as an ONNX file, without a library.

The service does not install the package onnx. Values are numbers or views of bytes, so the data of
weights are skipped, not copied. Wire format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Fields", "field_bytes", "fields_of", "integers", "texts"]

Fields = dict[int, list[Any]]


def texts(fields: Fields, number: int) -> list[str]:
    """Texts of a repeated field; a number in its place is no text, as for other readers."""
    values = fields.get(number, ())
    return [bytes(value).decode() for value in values if not isinstance(value, int)]


def integers(fields: Fields, number: int) -> list[int]:
    """Integers of a repeated field, packed into one value or not."""
    result: list[int] = []
    for value in fields.get(number, ()):
        if isinstance(value, int):
            result.append(value)
            continue
        position = 0
        while position < len(value):
            each, position = _varint(value, position)
            result.append(each)
    return [value - (1 << 64) if value >= 1 << 63 else value for value in result]


def fields_of(message: memoryview) -> Fields:
    """The fields of a protobuf message by number: integers, or views of bytes."""
    result: Fields = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        key &= 0xFFFFFFFF  # what other readers keep of it
        value: int | memoryview
        if key & 7 == 0:
            value, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}.get(key & 7)
            if size is None:
                if key & 7 != 2:
                    raise ValueError("not a protobuf message")
                size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        result.setdefault(key >> 3, []).append(value)
    return result


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def field_bytes(number: int, content: bytes) -> bytes:
    """The bytes of a field that holds a text or a message.

    A message that follows another one of its type is merged into it, so a field is added to a file
    by appending it.
    """
    return _written(number << 3 | 2) + _written(len(content)) + content


def _written(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes((*result, value))
