"""Parses long JSON lists in blocks, so that other threads can run in between.

A parser holds the interpreter lock until it is done. Between two blocks other threads, such as the
event loop, can run.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Sized
from typing import Any, Final, TypeVar

__all__ = [
    "BLOCK_BYTES",
    "elements_in_blocks",
    "loads_with_infinity",
    "numbers_in_blocks",
    "skip_space",
]

BLOCK_BYTES: Final = 1 << 20  # simdjson takes about 2 ms
# After a shorter block, a pause would cost more than the block did.
_PAUSE_BYTES: Final = 1 << 16
_PAUSE_SECONDS: Final = 1e-5
_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_MARK: Final = re.compile(rb"[\],]")
_LAST: Final = {end: re.compile(re.escape(end) + rb"[ \t\n\r]*\]") for end in (b"]", b"}")}

Block = TypeVar("Block", bound=Sized)
Parse = Callable[[bytes], Block | None]


def elements_in_blocks(
    text: bytes, start: int, end: bytes, parse: Parse[Block], *, block_bytes: int = BLOCK_BYTES
) -> tuple[list[Block] | None, int]:
    """Parse the elements of a list whose elements are all lists or all objects.

    ``start`` is just after the opening bracket, ``end`` is ``]`` or ``}``, and ``parse`` gets the
    text of a list and returns None if it cannot parse it. Returns the parsed blocks and the
    position after the closing bracket; on failure None and the position of the invalid block.

    Blocks that are valid JSON and have commas in between are valid JSON together. So a cut at the
    wrong place, such as within a string, makes the parse fail but never gives wrong elements.
    """
    blocks: list[Block] = []
    while True:
        stop = text.rfind(end, start, start + block_bytes) + 1
        if not stop:  # an element longer than a block
            stop = text.find(end, start + block_bytes) + 1
        if not stop:
            return None, start
        following = skip_space(text, stop)
        block = None
        if text[following : following + 1] in (b",", b"]"):
            block = parse(b"[" + text[start:stop] + b"]")
        if block is None or not len(block):
            # The list ends within the block. Then cut at its last element.
            last = _LAST[end].search(text, start, stop + 1)
            if last is None or last.start() + 1 >= stop:
                return None, start
            stop = last.start() + 1
            block = parse(b"[" + text[start:stop] + b"]")
        if block is None or not len(block):
            return None, start
        blocks.append(block)
        _pause(stop - start)
        stop = skip_space(text, stop)
        mark = text[stop : stop + 1]
        if mark == b"]":
            return blocks, stop + 1
        if mark != b",":
            return None, start
        start = stop + 1


def numbers_in_blocks(
    text: bytes, start: int, parse: Parse[Block], *, block_bytes: int = BLOCK_BYTES
) -> tuple[list[Block] | None, int]:
    """Parse the elements of a list of numbers; like `elements_in_blocks` otherwise."""
    blocks: list[Block] = []
    while True:
        limit = start + block_bytes
        end = stop = text.find(b"]", start, limit)
        if stop < 0:
            stop = text.rfind(b",", start, limit)
        if stop < 0:  # a number longer than a block, or the space around it
            found = _MARK.search(text, limit)
            if found is None:
                return None, start
            stop = found.start()
            end = stop if found[0] == b"]" else -1
        block = parse(b"[" + text[start:stop] + b"]")
        if block is None or not len(block):
            return None, start
        blocks.append(block)
        if stop == end:
            return blocks, stop + 1
        _pause(stop - start)
        start = stop + 1


def skip_space(text: bytes, start: int) -> int:
    """Position of the next character that is not white space."""
    found = _SPACE.match(text, start)
    return start if found is None else found.end()


def loads_with_infinity(text: bytes) -> Any:
    """Parse JSON that may have -Infinity, which masks a class; ValueError for anything else.

    Slower than orjson, which does not know -Infinity: for texts that it has refused.
    """

    def constant(name: str) -> float:
        if name != "-Infinity":
            raise ValueError(f"{name} is not JSON")
        return -math.inf

    def number(digits: str) -> float:
        if math.isinf(value := float(digits)):  # no mask: it was not written as one
            raise ValueError(f"{digits[:40]} is not finite")
        return value

    try:
        return json.loads(text.decode(), parse_constant=constant, parse_float=number)
    except RecursionError:
        raise ValueError("the text is nested too deep") from None


def _pause(parsed: int) -> None:
    if parsed >= _PAUSE_BYTES:
        time.sleep(_PAUSE_SECONDS)
