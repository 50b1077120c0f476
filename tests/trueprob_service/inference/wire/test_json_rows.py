import contextlib
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trueprob_service.inference.mutated import FUZZ
from trueprob_service.errors import BadRequest, InvalidRequest, ServiceError
from trueprob_service.inference.wire import json_rows
from trueprob_service.inference.wire.json_rows import MIN_BYTES, simd_rows

rows = st.integers(1, 5).flatmap(
    lambda k: st.lists(
        st.lists(
            st.floats(allow_nan=False, allow_infinity=False, width=64) | st.integers(-9, 9),
            min_size=k,
            max_size=k,
        ),
        min_size=1,
        max_size=6,
    )
)


@given(st.sampled_from(["logits", "probabilities", "log_probabilities"]), rows)
def test_rows_decode_to_the_same_numbers(name: str, values: list[list[float]]) -> None:
    got_name, got = json_rows.decode(json.dumps({name: values}).encode())
    assert got_name == name
    np.testing.assert_array_equal(got, np.asarray(values, np.float64))


@pytest.mark.slow
@FUZZ
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_decode_or_are_refused_in_words(body: bytes) -> None:
    with contextlib.suppress(ServiceError):
        name, values = json_rows.decode(body)
        assert name in json_rows.INPUTS
        assert len(values) > 0


REFUSED = [
    (b"", BadRequest, "got an empty body"),
    (b"{", BadRequest, "not JSON"),
    (b'{"logits": [[NaN, 1]]}', BadRequest, "logits must be finite"),
    (b'{"logits": [[Infinity, 1]]}', BadRequest, "logits must be finite"),
    (b"[[1, 2]]", InvalidRequest, "expected a JSON object with one of logits"),
    (b"{}", InvalidRequest, "expected exactly one of logits"),
    (b'{"logits": [[1, 2]], "probabilities": [[1, 0]]}', InvalidRequest, "exactly one of"),
    (b'{"logit": [[1, 2]]}', InvalidRequest, "unknown field 'logit'"),
    (b'{"logits": [1, [2]]}', InvalidRequest, "logits must be a list of rows"),
    (b'{"logits": 3}', InvalidRequest, "logits must be a list of rows"),
    (b'{"other": []}', InvalidRequest, "unknown field 'other'"),
    (b'{"logits": [[1, 2], [3]]}', InvalidRequest, "row 0 has 2 numbers, row 1 has 1"),
    (b'{"logits": [[1, null]]}', InvalidRequest, r"got null at logits\[0\]\[1\]"),
    (b'{"logits": [["1", "2"]]}', InvalidRequest, r"got str at logits\[0\]\[0\]"),
    (b'{"logits": [[1, {}]]}', InvalidRequest, r"got dict at logits\[0\]\[1\]"),
    (b'{"logits": [[[1], [1, 2]]]}', InvalidRequest, r"got list at logits\[0\]\[0\]"),
    (b'{"logits": [[1, [2]]]}', InvalidRequest, r"got list at logits\[0\]\[1\]"),
    (b'{"logits": [' + b"[" * 90 + b"1" + b"]" * 90 + b"]}", InvalidRequest, "got list at"),
    (b'{"logits": [[true, false]]}', InvalidRequest, r"got bool at logits\[0\]\[0\]"),
    (b'{"logits": [[true, 1.5]]}', InvalidRequest, r"got bool at logits\[0\]\[0\]"),
    (b'{"logits": [[[1], [2]]]}', InvalidRequest, r"got list at logits\[0\]\[0\]"),
    (b'{"logits": [[1, {"a": 2}]]}', InvalidRequest, r"got dict at logits\[0\]\[1\]"),
    (b'{"images": "abc"}', InvalidRequest, "images must be a list of base64 strings"),
    (b'{"images": [1]}', InvalidRequest, r"images\[0\] must be a base64 string"),
    (b'{"images": ["a\\n"]}', InvalidRequest, r"images\[0\] is not valid base64"),
]


@pytest.mark.parametrize(("body", "error", "words"), REFUSED)
def test_what_cannot_be_used_is_refused_by_name(
    body: bytes, error: type[ServiceError], words: str
) -> None:
    with pytest.raises(error, match=words):
        json_rows.decode(body)


INF = np.inf
MASKED = [
    (b'{"logits": [[1, -Infinity, 2]]}', [[1, -INF, 2]]),
    (b'{"logits": [[-Infinity,1.5],[2,-Infinity]]}', [[-INF, 1.5], [2, -INF]]),
    (b'{"logits": [[1, null, 2]], "masked": true}', [[1, -INF, 2]]),
    (b' { "masked" :true , "logits": [[null, 1], [-Infinity, 2]] } ', [[-INF, 1], [-INF, 2]]),
    (b'{"logits": [[1, 2]], "masked": true}', [[1, 2]]),
    (b'{"logits": [[1, 2]], "masked": false}', [[1, 2]]),
    (b'{"masked": false, "logits": [[1, -Infinity]]}', [[1, -INF]]),
    (b'{"logits": [1.5, -Infinity]}', [1.5, -INF]),
    (b'{"logits": [null, 1], "masked": true}', [-INF, 1]),
    (b'{"log_probabilities": [[0, -Infinity]]}', [[0, -INF]]),
]


@pytest.mark.parametrize(("body", "expected"), MASKED)
@pytest.mark.parametrize("block_bytes", [8, 1 << 20])
def test_masks_are_minus_infinity(body: bytes, expected: list[Any], block_bytes: int) -> None:
    _, values = json_rows.decode(body, block_bytes=block_bytes)
    np.testing.assert_array_equal(values, expected)


NOT_MASKED = [
    (b'{"logits": [[1, null]]}', 'null at .*, which masks a class only with "masked": true'),
    (b'{"logits": [[1, null]], "masked": false}', 'only with "masked": true'),
    (b'{"logits": [[1, NaN]], "masked": true}', "not JSON.* at byte 16 .*NaN and Infinity"),
    (b'{"logits": [[1, Infinity]], "masked": true}', "not JSON.* at byte 16 "),
    (b'{"logits": [[-Infinity, NaN]]}', "not JSON.* at byte 24 "),
    (b'{"logits": [[-Infinity, null]]}', "not JSON"),
    (b'{"logits": [[1, -1e999]]}', "not JSON"),
    (b'{"logits": [[--Infinity, 1]]}', "not JSON"),
    (b'{"logits": [[-Infinity7, 1]]}', "not JSON"),
    (b'{"logits": [["-Infinity", 1]]}', r"got str at logits\[0\]\[0\]"),
    (b'{"logits": [[true, -Infinity]]}', r"got bool at logits\[0\]\[0\]"),
    (b'{"logits": [[-Infinity, "5"]], "masked": true}', r"got str at logits\[0\]\[1\]"),
    (b'{"logits": [[{}, null]], "masked": true}', r"got dict at logits\[0\]\[0\]"),
    (b'{"logits": [[null, [1]]], "masked": true}', r"got list at logits\[0\]\[1\]"),
    (b'{"logits": [[1, null], [1]], "masked": true}', "row 0 has 2 numbers, row 1 has 1"),
    (b'{"logits": [null, [1, 2]], "masked": true}', "logits must be a list of rows"),
    (b'{"logits": [[1, 2]], "masked": 1}', 'masked must be true or false, beside "logits"'),
    (b'{"logits": [[1, 2]], "masked": null}', "masked must be true or false"),
    (b'{"masked": true}', "masked must be true or false, beside"),
    (b'{"masked": true, "logits": [[1, 2]], "masked": true}', "masked must be true or false"),
    (
        b'{"probabilities": [[1, null]], "masked": true}',
        "masked is for logits, got 'probabilities'",
    ),
    (b'{"log_probabilities": [[0, null]], "masked": true}', "masked is for logits, got 'log_prob"),
    (b'{"images": ["AAEC"], "masked": true}', "masked is for logits, got 'images'"),
    (b'{"images": ["-Infinity"]}', r"images\[0\] is not valid base64"),
    (b'{"log_probabilities": [[0, null]]}', r"got null at log_probabilities\[0\]\[1\]$"),
]


@pytest.mark.parametrize(("body", "words"), NOT_MASKED)
@pytest.mark.parametrize("block_bytes", [8, 1 << 20])
def test_what_is_no_mask_is_refused(body: bytes, words: str, block_bytes: int) -> None:
    with pytest.raises(ServiceError, match=words):
        json_rows.decode(body, block_bytes=block_bytes)


def test_one_long_text_does_not_make_every_number_as_wide() -> None:
    body = json.dumps({"logits": [["9" * 100_000] + [1] * 500]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match=r"got str at logits\[0\]\[0\]"):
            json_rows.decode(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000  # 501 texts of 100 000 characters would be 200 MB


def test_pictures_are_decoded() -> None:
    assert json_rows.decode(b'{"images": ["AAEC", "/w=="]}') == (
        "images",
        [b"\x00\x01\x02", b"\xff"],
    )


def test_float32_prints_as_the_shortest_text_that_names_it() -> None:
    text = json_rows.encode({"confidence": np.array([0.93], np.float32)})
    assert text == b'{"confidence":[0.93]}'


large = np.random.default_rng(0).standard_normal((20, 30)).round(6)


def test_plain_rows_make_no_lists() -> None:
    body = json.dumps({"logits": large.tolist()}).encode()
    assert len(body) > MIN_BYTES
    name, values = json_rows.decode(body)
    assert name == "logits"
    assert isinstance(values, np.ndarray)
    assert values.tobytes() == large.tobytes()
    found = simd_rows(body, json_rows.ARRAYS)
    assert found is not None
    json_rows.decode(body.replace(b"-", b" "))  # another body does not write over the first one's
    assert found[1].tobytes() == large.tobytes()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[[1, 2]]",
        b'{"logits": [[1, 2]], "logits": [[1, 2]]}',
        b'{"images": [[1, 2]]}',
        b'{"logits": []}',
        b'{"logits": [[1, 2], [3]]}',
        b'{"logits": [[1, 2], 3]}',
        b'{"logits": [[[1], [2]]]}',
        b'{"logits": [1, 2]}',
        b'{"logits": [[1, true]]}',
        b'{"logits": [[1, "2"]]}',
        b'{"logits": [[1, null]]}',
        b'{"logits": [{"a": 1}]}',
        b'{"logits": [[1, 9007199254740993]]}',
        b'{"logits": [[1, -9007199254740993]]}',
        b'{"logits": [[1, 1e999]]}',
        b'{"logits": [[1, 2]]} x',
        b'\xef\xbb\xbf{"logits": [[1, 2]]}',
    ],
)
def test_what_is_not_plain_is_left_to_the_slow_reader(body: bytes) -> None:
    assert simd_rows(body, json_rows.ARRAYS) is None
    plain = b'{"logits": [[3, 4]]}'
    assert simd_rows(plain, json_rows.ARRAYS) is not None, "the parser goes on after a refusal"


@pytest.mark.parametrize("block_bytes", [8, 40, 1 << 20])
def test_one_number_per_row_is_an_array_of_them(block_bytes: int) -> None:
    for text in ("[1.3]", "[ 1, -2.5 ,3e-3]", "[1, 2]", str([float(i) for i in range(60)])):
        body = f'{{"logits": {text}}}'.encode()
        name, values = json_rows.decode(body, block_bytes=block_bytes)
        assert name == "logits"
        assert isinstance(values, np.ndarray)
        assert values.tolist() == json.loads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, true]", "must be a list of rows"),
        ('[1, "2"]', "must be a list of rows"),
        ("[1, null]", "must be a list of rows"),
        ("[1, [2]]", "must be a list of rows"),
        ("[[1], 2]", "must be a list of rows"),
    ],
)
def test_one_number_per_row_among_others_is_refused(text: str, message: str) -> None:
    for block_bytes in (8, 1 << 20):
        with pytest.raises(InvalidRequest, match=message):
            json_rows.decode(f'{{"logits": {text}}}'.encode(), block_bytes=block_bytes)
