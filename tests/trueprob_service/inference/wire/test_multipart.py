import pytest

from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest, ServiceError
from trueprob_service.inference.wire.images import pictures_from_multipart

TYPE = "multipart/form-data; boundary=XX"
PART = b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
END = b"--XX--\r\n"


def test_parts_come_in_their_order() -> None:
    pictures = [b"\x89PNG\r\n\x1a\n", b"", b"--XX", b"\r\n--X", b"\r\n"]
    body = b"".join(PART + picture + b"\r\n" for picture in pictures) + END
    assert pictures_from_multipart(body, TYPE, max_parts=5) == pictures


def test_a_quoted_boundary_and_other_headers_are_read() -> None:
    body = (
        b"--a b\r\nContent-Type: image/png\r\ncontent-disposition: form-data; name=image\r\n\r\n"
        b"x\r\n--a b--"
    )
    assert pictures_from_multipart(body, 'multipart/form-data; boundary="a b"', max_parts=1) == [
        b"x"
    ]


OTHER = b'--XX\r\nContent-Disposition: form-data; name="picture"\r\n\r\nx\r\n'
REFUSED: list[tuple[bytes, str, type[ServiceError], str]] = [
    (b"", TYPE, BadRequest, "truncated"),
    (END, TYPE, InvalidRequest, "at least one part named image"),
    (PART + b"x\r\n" + END, "multipart/form-data", BadRequest, "must have a boundary"),
    (PART + b"x\r\n" + END, "multipart/form-data; boundary=", BadRequest, "must have a boundary"),
    (PART + b"x\r\n" + END, TYPE + "Y", BadRequest, "with this boundary"),
    (PART + b"x\r\n" + END, TYPE + "Y" * 300, BadRequest, "with this boundary"),
    (PART + b"x\r\n", TYPE, BadRequest, "last boundary is missing"),
    (PART + b"x\r\n" + END[:-3], TYPE, BadRequest, "last boundary is missing"),
    (OTHER + END, TYPE, InvalidRequest, "unknown part 'picture': expected parts named image"),
    (b"--XX\r\n\r\nx\r\n" + END, TYPE, InvalidRequest, "unknown part ''"),
    (b"--XX\r\nA: " + b"b" * 5000 + b"\r\n\r\nx\r\n" + END, TYPE, BadRequest, "boundary"),
    (b"--XX\r\n" + b"A: b\r\n" * 9 + b"\r\nx\r\n" + END, TYPE, BadRequest, "boundary"),
    ((PART + b"x\r\n") * 3 + END, TYPE, BodyTooLarge, "more than 2 parts"),
]


@pytest.mark.parametrize(("body", "content_type", "error", "words"), REFUSED)
def test_what_cannot_be_used_is_refused_in_words(
    body: bytes, content_type: str, error: type[ServiceError], words: str
) -> None:
    with pytest.raises(error, match=words):
        pictures_from_multipart(body, content_type, max_parts=2)
