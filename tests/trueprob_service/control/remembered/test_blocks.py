"""Blocks of remembered predictions against a dictionary: merges, looks, and what they give back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trueprob_service.control.remembered.blocks import (
    CONTEXT,
    HOUR_MICROSECONDS,
    RememberedBlock,
    blocks_of,
    id_hashes,
    id_key,
    matches,
    signed,
)
from trueprob_service.receipts.columns import ROLES, ShadowRows, number
from trueprob_service.receipts.identified import IdentifiedRows
from trueprob_service.receipts.receipt import Stamp, digest64, input_digests

HOUR = 500_000
KEY = id_key(b"secret")
PROCESS = bytes(range(16))


def answer(
    ids: list[str], first: int = 0, *, seconds: float = 1.0, shadow: bool = False, revision: int = 3
) -> IdentifiedRows:
    """Rows that the counter tells apart."""
    n = len(ids)
    numbers = np.arange(first, first + n)
    logits = np.stack([numbers, -numbers], axis=1).astype(np.float32)

    def candidate(given: NDArray[np.float32]) -> ShadowRows:
        return ShadowRows(b"shadowed", given[:, 0].astype(np.int64) + 1, given[:, 0] / 7.0)

    return IdentifiedRows(
        ids, "m", 2, revision, digest64("classes"), numbers, (numbers / 1e6).astype(np.float32),
        logits, candidate if shadow else None, None,
        Stamp(HOUR * HOUR_MICROSECONDS + int(seconds * 1e6), first),
    )  # fmt: skip


def block_of(*answers: IdentifiedRows) -> RememberedBlock:
    ((place, block),) = blocks_of(answers, key=KEY, process=PROCESS).items()
    assert place == ("m", HOUR)
    return block


def stored_and_read(block: RememberedBlock) -> RememberedBlock:
    return RememberedBlock.from_bytes(*block.to_bytes())


@pytest.mark.parametrize("shadow", [False, True])
def test_a_row_gives_back_what_its_receipt_would_carry(shadow: bool) -> None:
    ids = ["a", "b", "ü" * 128]
    given = answer(ids, 5, shadow=shadow)
    block = stored_and_read(block_of(given))
    assert len(block.rows.tobytes()) + 16 * 3 == 3 * (64 if shadow else 48)
    order = np.argsort(id_hashes(KEY, "m", ids)["high"])
    rows = block.receipts(np.arange(3), hour=HOUR, model=number(digest64("m")))
    assert rows["model"].tolist() == [number(digest64("m"))] * 3
    assert rows["version"].tolist() == [2] * 3
    assert rows["revision"].tolist() == [3] * 3
    assert rows["class_list"].tolist() == [number(digest64("classes"))] * 3
    assert rows["issued_at"].tolist() == [given.stamp.issued_at] * 3
    np.testing.assert_array_equal(rows["prediction"], given.prediction[order])
    np.testing.assert_array_equal(rows["confidence"], given.confidence[order].astype(np.float64))
    assert rows["group"].tolist() == [input_digests(given.logits)[place] for place in order]
    nonces = [PROCESS + (5 + place).to_bytes(8, "big") for place in order.tolist()]
    assert rows["nonce"].astype(">u8").tobytes() == b"".join(nonces)
    assert rows["predecessor"].tolist() == [(0, 0.0, 0)] * 3
    if shadow:
        expected = ShadowRows(b"shadowed", given.prediction + 1, given.logits[:, 0] / 7.0)
        assert rows["candidate"]["calibrator"].tolist() == [number(b"shadowed")] * 3
        np.testing.assert_array_equal(rows["candidate"]["prediction"], expected.prediction[order])
        np.testing.assert_array_equal(
            rows["candidate"]["confidence"], expected.confidence[order].astype(np.float32)
        )
    else:
        assert rows["candidate"].tolist() == [(0, 0.0, 0)] * 3


IDS = st.lists(st.sampled_from([f"id-{n}" for n in range(12)]), min_size=1, max_size=8, unique=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(IDS, st.booleans(), st.integers(1, 3)), min_size=1, max_size=7), st.data()
)
def test_merges_in_any_grouping_keep_the_latest_of_each_id(
    drawn: list[tuple[list[str], bool, int]], data: st.DataObject
) -> None:
    latest: dict[str, int] = {}
    times: dict[str, int] = {}
    blocks, first = [], 0
    for place, (ids, shadow, revision) in enumerate(drawn):
        given = answer(ids, first, seconds=float(place), shadow=shadow, revision=revision)
        blocks.append(block_of(given))
        for text, counter in zip(ids, range(first, first + len(ids)), strict=True):
            latest[text], times[text] = counter, times.get(text, 0) + 1
        first += len(ids)
    while len(blocks) > 1:
        n = data.draw(st.integers(2, len(blocks)))
        some = data.draw(st.permutations(range(len(blocks))))[:n]
        merged = stored_and_read(RememberedBlock.merged([blocks[index] for index in some]))
        blocks = [block for index, block in enumerate(blocks) if index not in some] + [merged]
    (block,) = blocks
    assert len(block) == len(latest)
    assert (np.diff(block.high.astype(object)) > 0).all()
    hashes = id_hashes(KEY, "m", list(latest))
    order = np.argsort(hashes["high"])
    wanted, places = matches(hashes["high"][order], block.high)
    assert wanted.tolist() == list(range(len(latest)))
    np.testing.assert_array_equal(block.low[places], hashes["low"][order])
    names = [list(latest)[place] for place in order.tolist()]
    rows = block.rows[places]
    assert rows["counter"].tolist() == [latest[name] for name in names]
    assert rows["replaced"].tolist() == [times[name] > 1 for name in names]
    revisions = {
        counter: revision
        for (ids, _, revision), start in zip(
            drawn, np.cumsum([0] + [len(ids) for ids, _, _ in drawn]).tolist(), strict=False
        )
        for counter in range(start, start + len(ids))
    }
    assert block.contexts[rows["context"]]["revision"].tolist() == [
        revisions[latest[name]] for name in names
    ]


def test_predictions_of_one_microsecond_are_ordered_by_their_counter() -> None:
    later, earlier = answer(["a"], 7), answer(["a"], 6)
    assert block_of(later, earlier).rows["counter"].tolist() == [7]


def test_parts_hold_all_rows_in_order_with_their_ranges() -> None:
    block = block_of(answer([f"{n}" for n in range(10)]))
    parts = list(block.parts(4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert np.concatenate([part.high for part in parts]).tolist() == block.high.tolist()
    ends = [each for part in parts for each in part.span]
    assert ends == sorted(ends)
    assert ends[0] == int(block.high[0]) - 2**63


def test_signed_numbers_keep_the_order_of_unsigned_ones() -> None:
    given = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    assert signed(given).tolist() == [-(2**63), -(2**63) + 1, -1, 0, 2**63 - 1]


def test_rows_are_kept_apart_by_model_and_hour() -> None:
    late = answer(["a"], 1, seconds=3601.0)
    assert set(blocks_of([answer(["a"]), late], key=KEY, process=PROCESS)) == {
        ("m", HOUR), ("m", HOUR + 1),
    }  # fmt: skip


def test_hashes_depend_on_key_model_and_id_and_not_on_where_they_are_cut() -> None:
    def one(key: bytes, model: str, text: str) -> bytes:
        return id_hashes(key, model, [text]).tobytes()

    first = one(KEY, "m", "a1")
    others = [one(id_key(b"other"), "m", "a1"), one(KEY, "ma", "1"), one(KEY, "m", "a2")]
    assert first not in others
    assert first == one(KEY, "m", "a1")
    assert len(first) == 16


def test_a_context_names_all_that_rows_share() -> None:
    assert CONTEXT.names == ("process", "version", "revision", "class_list", *ROLES)
    block = block_of(answer(["a", "b"]), answer(["c"], 2))
    assert len(block.contexts) == 1
