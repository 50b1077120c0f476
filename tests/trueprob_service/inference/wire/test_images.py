"""Picture files in the ways that clients write them: base64 of every kind."""

import base64
import textwrap

import pytest

from trueprob_service.errors import InvalidRequest
from trueprob_service.inference.wire.images import pictures_from_base64

# A length that needs padding, and bytes that give + and / in base64.
BYTES = bytes(range(256)) + b"\xfb\xef\xbe\xff\xff\xff"
TEXT = base64.b64encode(BYTES).decode()
URL_SAFE = base64.urlsafe_b64encode(BYTES).decode()

WRITTEN = {
    "plain": TEXT,
    "unpadded": TEXT.rstrip("="),
    "padded too far": TEXT + "==",
    "URL-safe": URL_SAFE,
    "URL-safe, unpadded": URL_SAFE.rstrip("="),
    "MIME": base64.encodebytes(BYTES).decode(),
    "wrapped at 64": "\n".join(textwrap.wrap(TEXT, 64)),
    "wrapped, carriage returns": "\r\n".join(textwrap.wrap(TEXT, 76)) + "\r\n",
    "wrapped and indented": "\n\t  ".join(textwrap.wrap(TEXT, 60)),
    "wrapped, URL-safe, unpadded": "\n".join(textwrap.wrap(URL_SAFE, 76)).rstrip("="),
    "spaces around": f"  {TEXT}\n",
    "data URL": f"data:image/png;base64,{TEXT}",
    "data URL with a parameter": f"data:image/jpeg;name=a.jpg;base64,{TEXT}",
    "data URL without a type": f"data:;base64,{TEXT}",
    "data URL, capitals": f"DATA:image/PNG;BASE64,{TEXT}",
    "data URL, percent-encoded": "data:image/png;base64,"
    + TEXT.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    "data URL, wrapped": "data:image/webp;base64,\n" + base64.encodebytes(BYTES).decode(),
    "data URL, URL-safe": f"data:image/webp;base64,{URL_SAFE}",
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_base64_is_read_however_it_is_written(kind: str) -> None:
    assert len(set("+/") & set(TEXT)) == 2
    assert TEXT.endswith("=")
    assert pictures_from_base64([TEXT, WRITTEN[kind]]) == [BYTES, BYTES]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A", "is not valid base64"),
        ("YWJj!", "is not valid base64"),
        ("YW=Jj", "is not valid base64"),
        (TEXT + TEXT, "is not valid base64"),
        (TEXT.replace("+", " ", 1), "is not valid base64"),
        (TEXT.replace("+", "-", 1), "is not valid base64"),
        (f"b'{TEXT}'", "is not valid base64"),
        ("é", "is not valid base64"),
        ("https://example.org/a.png", "is not valid base64"),
        ("data:image/png," + TEXT, "must be data:image/…;base64,… or base64 alone"),
        ("data:image/svg+xml;utf8,<svg/>", "must be data:image/…;base64,…"),
        ("data:image/png;base64", "must be data:image/…;base64,…"),
        (7, "must be a base64 string"),
        (None, "must be a base64 string"),
        ({"b64": TEXT}, "must be a base64 string"),
    ],
)
def test_what_is_no_base64_is_refused_by_its_index(text: object, words: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^images\[1\] " + words):
        pictures_from_base64([TEXT, text])


@pytest.mark.parametrize("values", [[], "text", None, {}])
def test_images_are_a_list(values: object) -> None:
    with pytest.raises(InvalidRequest, match="images must be a list of base64 strings"):
        pictures_from_base64(values)
