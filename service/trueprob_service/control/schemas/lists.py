"""Lists in pages: newest first, at most `limit` items, continued by an opaque cursor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, Field

from trueprob_service.errors import InvalidRequest

__all__ = ["DEFAULT_LIMIT", "LARGEST_ID", "MAX_LIMIT", "Items", "Page", "row_id", "split"]

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
LARGEST_ID: Final = 2**31 - 1  # the largest value of integer columns
_DIGITS: Final = re.compile(r"[0-9]{1,10}")

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT")


class Items(BaseModel, Generic[ItemT]):
    """A page of a list, newest first."""

    items: list[ItemT]
    next: str | None = Field(
        description="Pass it as ?cursor= to get the next page; null on the last page."
    )


def row_id(text: str) -> int | None:
    """The id of a row as a client sends it; None for a text that cannot be an id."""
    if _DIGITS.fullmatch(text) is None or int(text) > LARGEST_ID:
        return None
    return int(text)


@dataclass(frozen=True)
class Page:
    """The page that a client asks for."""

    before: int | None  # rows with a smaller id (or revision) than this; None for the newest
    limit: int  # rows

    @classmethod
    def from_query(cls, cursor: str | None, limit: int) -> Page:
        """The page for the query parameters.

        Raises `InvalidRequest` for a cursor that no list has returned.
        """
        if cursor is None:
            return cls(None, limit)
        before = row_id(cursor)
        if before is None:
            raise InvalidRequest("cursor must be the 'next' of an earlier page of this list")
        return cls(before, limit)


def split(
    rows: Sequence[RowT],  # newest first; one more than the limit if there is a next page
    page: Page,
    key: Callable[[RowT], int],  # the id or revision by which the list is ordered
) -> tuple[list[RowT], str | None]:
    """The rows of a page and the cursor of the next page."""
    shown = list(rows[: page.limit])
    return shown, str(key(shown[-1])) if len(rows) > page.limit else None
