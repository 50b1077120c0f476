import base64
import hmac
import struct

import numpy as np
import pytest

from trueprob_service.receipts.columns import ShadowRows
from trueprob_service.receipts.receipt import ForgedReceipt, Receipt, Receipts, digest64
from trueprob_service.receipts.secrets import ReceiptKey

KEY = ReceiptKey(1, bytes(range(32)))
MODEL, CLASSES = digest64("digits"), digest64("0\x001")


def make(key: ReceiptKey = KEY, now: float = 1_700_000_000.25, process: int = 7) -> Receipts:
    return Receipts(
        [key],
        clock=lambda: now,
        random_bytes=lambda n: bytes([process]) * n,
    )


def issue(receipts: Receipts, n: int = 3) -> list[str]:
    return receipts.issue(
        model=MODEL,
        version=4,
        revision=12,
        class_list=CLASSES,
        prediction=np.arange(n),
        confidence=np.linspace(0.1, 0.9, n),
        group=2**64 - 1,
    )


def older(
    key: ReceiptKey = KEY,
    *,
    nonce: int = 0,
    candidate: tuple[int, float, bytes] = (0, 0.0, bytes(8)),
) -> str:
    """A receipt in format 1, which releases up to 0.2.0 issued."""
    block = struct.pack(
        ">4sI8sIQ8sIdQQ24sId8s", b"TPR1", key.key_id, MODEL, 4, 12, CLASSES, 0, 0.1, 2**64 - 1,
        1_700_000_000_250_000, bytes([7]) * 16 + nonce.to_bytes(8, "big"), *candidate,
    )  # fmt: skip
    return base64.urlsafe_b64encode(block + key.tag(block)).rstrip(b"=").decode()


def test_a_receipt_says_what_was_signed() -> None:
    receipts = make()
    assert receipts.verify(issue(receipts)[2]) == Receipt(
        model=MODEL,
        version=4,
        revision=12,
        class_list=CLASSES,
        prediction=2,
        confidence=0.9,
        group=2**64 - 1,
        issued_at=1_700_000_000.25,
        nonce=bytes([7]) * 16 + (2).to_bytes(8, "big"),
    )


def test_golden_receipt() -> None:
    # Written once by this code and kept: a receipt that was issued must verify for its whole
    # time to live, so the format may not change under the same domain tag.
    golden = issue(make(), 1)[0]
    assert golden == (
        "VFBSMgAAAAHMa2utMaD_TQAAAAQAAAAAAAAADChXim1Kd6toAAAAAD-5mZmZmZma__________8ABgokGCIQ"
        "kAcHBwcHBwcHBwcHBwcHBwcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AAAPJscaJ_F7uofSVHVGqYh8"
    )


def test_golden_receipt_of_format_1() -> None:
    """What release 0.2.0 issued says the same as the receipt of today, and is not issued again."""
    golden = (
        "VFBSMQAAAAHMa2utMaD_TQAAAAQAAAAAAAAADChXim1Kd6toAAAAAD-5mZmZmZma__________8ABgokGCIQ"
        "kAcHBwcHBwcHBwcHBwcHBwcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAATrbZ47QDPbSPZBT5zk1MRA"
    )
    assert golden == older()
    today = issue(make(), 1)[0]
    assert len(today) == 192
    assert make().verify(golden) == make().verify(today)
    candidate = (2, 1 / 3, digest64("smart-0123456789ab"))
    assert make().verify(older(candidate=candidate)).candidate == candidate


def test_formats_may_be_mixed_in_one_request() -> None:
    receipts = make()
    today = issue(receipts, 3)
    forged = older(ReceiptKey(1, bytes(32)), nonce=7)
    mixed = [older(nonce=5), today[1], "x", forged, older(nonce=6), today[2]]
    verified = receipts.verify_all(mixed)
    assert verified.genuine.tolist() == [True, True, False, False, True, True]
    numbers = [int.from_bytes(nonce[-8:], "big") for nonce in verified.nonce_bytes]
    assert [numbers[i] for i in (0, 1, 4, 5)] == [5, 1, 6, 2]
    assert verified.prediction.tolist()[4:] == [0, 2]
    assert not verified.shadow("predecessor").calibrator.any()


@pytest.mark.parametrize("position", range(0, 166, 5))
def test_one_changed_character_of_format_1_is_a_forgery(position: int) -> None:
    text = older()
    other = "A" if text[position] != "A" else "B"
    assert not make().verify_all([text[:position] + other + text[position + 1 :]]).genuine[0]


def test_the_confidence_keeps_its_float64_bits() -> None:
    confidence = np.array([np.nextafter(0.3, 1), 1 / 3, np.float64(np.float32(0.93))])
    receipts = make()
    ids = receipts.issue(
        model=MODEL, version=1, revision=1, class_list=CLASSES,
        prediction=np.zeros(3, np.int64), confidence=confidence,
    )  # fmt: skip
    assert [receipts.verify(i).confidence for i in ids] == confidence.tolist()


def test_no_nonce_twice_in_a_process_and_none_shared_by_two() -> None:
    first, second = make(process=1), make(process=2)
    ids = [issue(first, 500), issue(first, 500), issue(second, 500)]
    nonces = [first.verify(i).nonce for batch in ids for i in batch]
    assert len(set(nonces)) == 1500


@pytest.mark.parametrize("position", range(0, 192, 5))
def test_one_changed_character_is_a_forgery(position: int) -> None:
    receipts = make()
    text = issue(receipts, 1)[0]
    other = "A" if text[position] != "A" else "B"
    with pytest.raises(ForgedReceipt):
        receipts.verify(text[:position] + other + text[position + 1 :])


@pytest.mark.parametrize("bad", ["", "x", "=" * 192, "é" * 166, "A" * 166, "A" * 192, "A" * 193])
def test_text_that_is_no_receipt_is_refused(bad: str) -> None:
    with pytest.raises(ForgedReceipt):
        make().verify(bad)


def test_appended_characters_do_not_make_a_second_receipt() -> None:
    receipts = make()
    text = issue(receipts, 1)[0]
    for spelling in (text + "A", text + "=", text + "==", " " + text, text + "\n"):
        with pytest.raises(ForgedReceipt):
            receipts.verify(spelling)


def test_the_unused_bits_of_the_last_character_do_not_make_a_second_receipt() -> None:
    receipts = make()
    text = older()  # format 2 has none
    raw = base64.urlsafe_b64decode(text + "==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twins = [
        text[:-1] + c
        for c in alphabet
        if c != text[-1] and base64.urlsafe_b64decode(text[:-1] + c + "==") == raw
    ]
    assert twins  # 124 bytes leave unused bits, so other spellings of the same bytes exist
    for twin in twins:
        with pytest.raises(ForgedReceipt):
            receipts.verify(twin)


def test_another_key_and_an_unknown_key_id_are_refused() -> None:
    text = issue(make(ReceiptKey(1, b"a" * 32)), 1)[0]
    for other in (ReceiptKey(1, b"b" * 32), ReceiptKey(2, b"a" * 32)):
        with pytest.raises(ForgedReceipt):
            make(other).verify(text)


def test_verify_all_marks_the_forged_ones() -> None:
    receipts = make()
    good, bad, also_good = issue(receipts)
    verified = receipts.verify_all([good, bad[:-2] + "zz", also_good])
    assert verified.genuine.tolist() == [True, False, True]


def test_answers_from_the_shadow_travel_in_the_receipt() -> None:
    receipts, candidate = make(), digest64("smart-0123456789ab")
    predecessor = digest64("identity-0123456789ab")
    ids = receipts.issue(
        model=MODEL,
        version=4,
        revision=12,
        class_list=CLASSES,
        prediction=np.array([0, 1]),
        confidence=np.array([0.5, 0.6]),
        candidate=ShadowRows(candidate, np.array([2, 1]), np.array([1 / 3, 0.7])),
        predecessor=ShadowRows(predecessor, np.array([0, 3]), np.array([0.9, 2 / 3])),
    )
    found = [receipts.verify(each) for each in ids]
    assert [receipt.prediction for receipt in found] == [0, 1]
    assert [each.candidate for each in found] == [(2, 1 / 3, candidate), (1, 0.7, candidate)]
    assert found[1].predecessor == (3, 2 / 3, predecessor)
    columns = receipts.verify_all(ids)
    beside = columns.shadow("candidate")
    assert beside.prediction.tolist() == [2, 1]
    assert beside.confidence.tolist() == [1 / 3, 0.7]
    assert beside.calibrator.tolist() == [int.from_bytes(candidate, "big")] * 2
    assert columns.shadow("predecessor").confidence.tolist() == [0.9, 2 / 3]


def test_many_ids_say_what_each_says_alone() -> None:
    receipts = make()
    ids = issue(receipts, 40)
    verified, each = receipts.verify_all(ids), [receipts.verify(text) for text in ids]
    for name in ("version", "revision", "prediction", "confidence", "group", "issued_at"):
        assert getattr(verified, name).tolist() == [getattr(receipt, name) for receipt in each]
    for name in ("model", "class_list"):
        digests = [getattr(receipt, name) for receipt in each]
        assert [n.to_bytes(8, "big") for n in getattr(verified, name).tolist()] == digests
    assert verified.nonce_bytes == [receipt.nonce for receipt in each]
    assert len(receipts.verify_all([])) == 0


def test_what_was_signed_as_something_else_is_no_receipt() -> None:
    key = ReceiptKey(1, bytes(range(32)))
    receipts = Receipts([key], clock=lambda: 0.0)
    block = base64.urlsafe_b64decode(issue(receipts)[0])[:128]
    for domain, genuine in ((b"TPR2", True), (b"TPR1", False), (b"TPX2", False)):
        other = domain + block[4:]
        text = base64.urlsafe_b64encode(other + key.tag(other)).rstrip(b"=").decode()
        assert receipts.verify_all([text]).genuine.tolist() == [genuine]


def test_those_in_another_form_do_not_spoil_the_others() -> None:
    receipts = make()
    ids = issue(receipts, 50)
    wrong = {3: "", 9: ids[9] + "A", 20: "é" + ids[20][1:], 21: ids[21][:-1] + "\n", 49: "+" * 166}
    ids[30] = older()
    wrong[30] = ids[30][:-1] + chr(ord(ids[30][-1]) + 1)  # a bit that no encoder sets
    verified = receipts.verify_all([wrong.get(i, ids[i]) for i in range(50)])
    assert np.flatnonzero(~verified.genuine).tolist() == [3, 9, 20, 21, 30, 49]
    assert verified.nonce_bytes[40] == receipts.verify(ids[40]).nonce
    assert not receipts.verify_all(list(wrong.values())).genuine.any()


def test_ids_of_several_keys_are_told_apart_row_by_row() -> None:
    old, new = ReceiptKey(1, bytes(32)), ReceiptKey(2, bytes(range(32)))
    both = Receipts([new, old], clock=lambda: 0.0)
    ids = [*issue(make(old), 2), *issue(make(new), 2), *issue(make(ReceiptKey(3, bytes(32))), 2)]
    mixed = [ids[place] for place in (4, 0, 2, 5, 1, 3)]
    assert both.verify_all(mixed).genuine.tolist() == [False, True, True, False, True, True]
    # The right id of a key, and another one's signature.
    forged = issue(make(ReceiptKey(2, bytes(32))), 1)
    assert not both.verify_all([*forged, ids[0]]).genuine[0]


@pytest.mark.parametrize("change", ["plus", "unused bits", "longer", "no text of ASCII"])
def test_a_second_spelling_among_many_is_a_forgery(change: str) -> None:
    receipts = make()
    ids = (
        [older(nonce=i) for i in range(3000)] if change == "unused bits" else issue(receipts, 3000)
    )
    place, text = next((i, text) for i, text in enumerate(ids) if "-" in text)
    ids[place] = {
        "plus": text.replace("-", "+", 1),
        "unused bits": text[:-1] + chr(ord(text[-1]) + 1),
        "longer": text + "A",
        "no text of ASCII": "ä" + text[1:],
    }[change]
    verified = receipts.verify_all(ids)
    assert np.flatnonzero(~verified.genuine).tolist() == [place]


@pytest.mark.parametrize("length", [0, 32, 64, 65, 200])
def test_the_tag_is_an_hmac(length: int) -> None:
    block, secret = bytes(range(108)), bytes(range(length))
    assert ReceiptKey(1, secret).tag(block) == hmac.digest(secret, block, "sha256")[:16]
