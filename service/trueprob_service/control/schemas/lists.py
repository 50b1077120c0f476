"""Lists: newest first, a bounded page at a time, continued by an opaque cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from trueprob_service.errors import InvalidRequest

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "Page", "split"]

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
_LARGEST_ID: Final = 2**31 - 1

RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Page:
    """What part of a list is asked for."""

    before: int | None  # rows with a smaller id (or revision) than this; None for the newest
    limit: int  # rows

    @classmethod
    def of(cls, cursor: str | None, limit: int) -> Page:
        """From query parameters.

        Raises `InvalidRequest`: the cursor is none that a list gave.
        """
        if cursor is None:
            return cls(None, limit)
        if not (cursor.isascii() and cursor.isdigit()) or int(cursor) > _LARGEST_ID:
            raise InvalidRequest("cursor must be the 'next' of an earlier page of this list")
        return cls(int(cursor), limit)


def split(
    rows: Sequence[RowT], page: Page, key: Callable[[RowT], int]
) -> tuple[list[RowT], str | None]:
    """A page's rows and the cursor of the next, from one row more than the limit."""
    shown = list(rows[: page.limit])
    return shown, str(key(shown[-1])) if len(rows) > page.limit else None
