"""The member `ids` is cut out of a body wherever it stands, and only the member of the body."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.inference.wire import json_ids, json_rows

TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=128)
MARKS = st.sampled_from(['"', "\\", "]", "[", "}", '"ids"', ',"ids":[', '"ids": ["a"]}', "é", "😀"])
IDS = st.lists(st.one_of(TEXTS, MARKS, st.integers(-(2**63), 2**64 - 1)), max_size=6)
OTHERS: list[dict[str, Any]] = [
    {"logits": [[1.0, 2.5], [0.25, -3.0]]},
    {"logits": [1.5, 2.0]},
    {"probabilities": [[0.5, 0.5]]},
    {"images": ["AAEC", "/w=="]},
    {"inputs": {"ids": [[1, 2]], "mask": [[1, 0]]}},
    {"inputs": {"mask": [[1, 0]], "ids": [[1, 2]]}},
    {"logits": [[1.0, None]], "masked": True},
    {"masked": True, "logits": [[1.0, None]]},
    {"logits": []},
]


def plain(values: list[Any]) -> list[str]:
    return [str(value) for value in values]


@settings(max_examples=300, deadline=None)
@given(IDS, st.sampled_from(OTHERS), st.integers(0, 2), st.booleans(), st.sampled_from([None, 1]))
def test_ids_are_read_wherever_they_stand(
    ids: list[Any], other: dict[str, Any], place: int, ascii_only: bool, indent: int | None
) -> None:
    members = list(other.items())
    members.insert(min(place, len(members)), ("ids", ids))
    text = json.dumps(dict(members), ensure_ascii=ascii_only, indent=indent)
    body = text.encode()
    assert json_rows.may_have_ids(body)
    found, rest = json_ids.without_ids(body)
    assert found == plain(ids)
    assert json.loads(rest) == other


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(OTHERS), st.sampled_from([None, 1]))
def test_a_body_without_ids_stays_as_it_is(other: dict[str, Any], indent: int | None) -> None:
    body = json.dumps(other, indent=indent).encode()
    assert json_ids.without_ids(body) == (None, body)


def test_rows_are_not_searched_for_ids() -> None:
    rows = json.dumps({"logits": np.zeros((500, 3)).tolist()}).encode()
    assert not json_rows.may_have_ids(rows)
    assert json_rows.may_have_ids(b'{"ids": ["a"], ' + rows[1:])
    assert json_rows.may_have_ids(rows[:-1] + b', "ids": ["a"]}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"ids": ["a"]',
        b'{"logits": [[1, 2]], "ids": ["a"}',
        b'{"logits": [[1, 2], "ids": ["a"]}',
        b'{"inputs": {"a": [[1]], "ids": [1]}',
        b'{"logits": [[1, 2]]}, "ids": ["a"]}',
        b'{"ids": ["a"],, "logits": [[1, 2]]}',
        b'{"ids": ["a"] "logits": [[1, 2]]}',
        b'{"logits": [[1, 2]],, "ids": ["a"]}',
        b'["ids", "a"]',
        b'"ids"',
    ],
)
def test_what_is_not_json_is_still_refused(body: bytes) -> None:
    _, rest = json_ids.without_ids(body)
    with pytest.raises((BadRequest, InvalidRequest)):
        json_rows.decode(rest)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("a", "ids must be a list of ids, got a text"),
        (None, "ids must be a list of ids, got null"),
        ({}, "ids must be a list of ids, got an object"),
        ([["a"]], r"ids\[0\] must be a text or an integer, got a list"),
        (["a", None], r"ids\[1\] must be a text or an integer, got null"),
        (["a", True], r"ids\[1\] must be a text or an integer, got a boolean"),
        ([1.0], r"ids\[0\] must be a text or an integer, got a fraction"),
        ([""], r"ids\[0\] must have 1 to 128 characters, got 0"),
        (["é" * 129], r"ids\[0\] must have 1 to 128 characters, got 129"),
        (["a", "b\u0000"], r"ids\[1\] must have no control characters, got 'b\\x00'"),
        (["\u009f"], r"ids\[0\] must have no control characters"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_what_is_no_list_of_ids_is_refused(ids: object, message: str, last: bool) -> None:
    other = {"logits": [[1.0, 2.0]]}
    document = {**other, "ids": ids} if last else {"ids": ids, **other}
    with pytest.raises(InvalidRequest, match=message):
        json_ids.without_ids(json.dumps(document).encode())
