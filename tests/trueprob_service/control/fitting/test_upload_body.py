"""Formats of an upload: the same rows give the same set in each."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.control.harness import NPZ, World, npz, rows
from trueprob_service.control.fitting import upload_body as uploads

pytestmark = pytest.mark.slow

NAMES = ["cat", "dog", "bird"]
LOGITS, LABELS = rows(3, 60, sharpness=2.0)
LOGITS = np.round(LOGITS, 3)


@pytest.fixture
def named(sqlite_world: World) -> World:
    answer = sqlite_world.call("PUT", "/v1/models/pets", json={"class_names": NAMES})
    assert answer.status_code == 201
    return sqlite_world


def send(world: World, content: bytes, kind: str, model: str = "pets") -> httpx.Response:
    return world.call(
        "POST",
        f"/v1/models/{model}/calibration-sets?promote=never",
        content=content,
        headers={"content-type": kind},
    )


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    body = b"".join(
        b'--xyz\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in parts
    )
    return body + b"--xyz--\r\n", "multipart/form-data; boundary=xyz"


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def csv(columns: list[str], order: list[int], labels: list[Any], prefix: str = "logit_") -> bytes:
    lines = [",".join(["label", *(prefix + name for name in columns)])]
    lines += [
        ",".join([str(label), *(repr(float(row[i])) for i in order)])
        for row, label in zip(LOGITS, labels, strict=True)
    ]
    return "\n".join(lines).encode()


TEXTS = [NAMES[label] for label in LABELS]
BODIES = {
    "npz with indices": (npz(logits=LOGITS, labels=LABELS), "application/x-npz"),
    "npz with names": (npz(logits=LOGITS, labels=TEXTS), "application/zip"),
    "json": (
        json.dumps({"logits": LOGITS.tolist(), "labels": TEXTS}).encode(),
        "application/json",
    ),
    "json with both kinds of labels": (
        json.dumps({"logits": LOGITS.tolist(), "labels": [int(LABELS[0]), *TEXTS[1:]]}).encode(),
        "application/json; charset=utf-8",
    ),
    "csv": (csv(NAMES, [0, 1, 2], TEXTS), "text/csv"),
    "csv in another order": (csv(["bird", "cat", "dog"], [2, 0, 1], TEXTS), "text/csv"),
    "csv by index": (csv(["0", "1", "2"], [0, 1, 2], LABELS.tolist()), "text/csv"),
    "csv whose indices are of its own columns": (
        csv(["bird", "cat", "dog"], [2, 0, 1], [[1, 2, 0][label] for label in LABELS], ""),
        "text/csv",
    ),
    "form of .npy": form(("logits", npy(LOGITS)), ("labels", npy(LABELS))),
    "form of both": form(("labels", json.dumps(TEXTS).encode()), ("logits", npy(LOGITS))),
}


def test_the_same_rows_are_the_same_set_in_every_format(named: World) -> None:
    digests = {}
    for what, (content, kind) in BODIES.items():
        answer = send(named, content, kind)
        assert answer.status_code == 202, (what, answer.text)
        digests[what] = answer.json()["calibration_set"]
    assert len(set(digests.values())) == 1, digests
    assert len(named.get("/v1/models/pets/calibration-sets")["items"]) == 1


@pytest.mark.parametrize(
    ("content", "kind", "status", "sentence"),
    [
        (csv(["cat", "dog", "cow"], [0, 1, 2], TEXTS), "text/csv", 422, "the 3 classes"),
        (b"label,logit_cat\n", "text/csv", 422, "two classes"),
        (npy(LOGITS), "application/x-npz", 422, "no labels"),
        (*form(("logits", npy(LOGITS))), 422, "labels"),
        (*form(("logits", b"["), ("labels", npy(LABELS))), 400, "part logits"),
        (*form(("picture", b"x")), 422, "unknown part 'picture'"),
        (*form(("labels", b"[1]"), ("labels", b"[1]")), 422, "twice"),
        (*form(("image", b"x"), ("labels", b"[1]")), 422, "no network"),
        (b"--xyz\r\n", "multipart/form-data; boundary=xyz", 400, "truncated"),
        (b"nothing", "multipart/form-data; boundary=xyz", 400, "boundary"),
        (b"nothing", "multipart/form-data", 400, "name its boundary"),
        (b'{"images": [7], "labels": [1]}', "application/json", 422, "images[0]"),
        (b'{"images": [], "labels": [1]}', "application/json", 422, "at least one"),
        (b"x", "application/vnd.apache.parquet", 415, "text/csv"),
    ],
)
def test_an_unreadable_body_is_refused_with_a_sentence(
    named: World, content: bytes, kind: str, status: int, sentence: str
) -> None:
    answer = send(named, content, kind)
    assert (answer.status_code, sentence in answer.text) == (status, True), answer.text
    assert named.get("/v1/models/pets/calibration-sets")["items"] == []


def test_every_array_name_of_a_set_is_a_field_of_json_and_a_part_of_a_form(named: World) -> None:
    shifted = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    matrices = {"probabilities": np.exp(shifted), "log_probabilities": shifted}
    extra = {"labels": LABELS, "weights": np.linspace(1, 2, 60), "groups": LABELS % 2}
    for name, matrix in matrices.items():
        arrays = {name: matrix, **extra}
        bodies = [
            (npz(**arrays), NPZ["content-type"]),
            (json.dumps({n: a.tolist() for n, a in arrays.items()}).encode(), "application/json"),
            form(*((n, npy(a)) for n, a in arrays.items())),
        ]
        answers = [send(named, *body) for body in bodies]
        assert [answer.status_code for answer in answers] == [202] * 3, answers[0].text
        assert len({answer.json()["calibration_set"] for answer in answers}) == 1
    assert set(extra) | set(matrices) | {"logits", "images"} == set(uploads._FIELDS)
