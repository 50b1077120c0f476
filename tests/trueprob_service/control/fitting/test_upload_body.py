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
DOCUMENT = {"logits": LOGITS.tolist(), "labels": LABELS.tolist()}
FOREIGN = "must be cat, dog, bird, got cat, dog, cow (missing: bird; not expected: cow)"
# The same rows with their classes as bird, cat, dog; an integer is an index of these columns.
OTHER_ORDER = {
    "logits": LOGITS[:, [2, 0, 1]],
    "labels": np.array([1, 2, 0])[LABELS],
    "class_names": ["bird", "cat", "dog"],
}
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
    "csv of a spreadsheet, with an index": (
        b"\n".join(
            b"%s;%s" % (b"%d" % (n - 1) if n else b"", line)
            for n, line in enumerate(
                csv(NAMES, [0, 1, 2], TEXTS, "")
                .replace(b",", b";")
                .replace(b".", b",")
                .splitlines()
            )
        ),
        "text/csv",
    ),
    "csv in another order": (csv(["bird", "cat", "dog"], [2, 0, 1], TEXTS), "text/csv"),
    "csv by index": (csv(["0", "1", "2"], [0, 1, 2], LABELS.tolist()), "text/csv"),
    "csv whose indices are of its own columns": (
        csv(["bird", "cat", "dog"], [2, 0, 1], [[1, 2, 0][label] for label in LABELS], ""),
        "text/csv",
    ),
    "npz in another order": (npz(**OTHER_ORDER), "application/x-npz"),
    "json in another order": (
        json.dumps({n: np.asarray(a).tolist() for n, a in OTHER_ORDER.items()}).encode(),
        "application/json",
    ),
    "form in another order": form(
        *((n, npy(a)) for n, a in OTHER_ORDER.items() if n != "class_names"),
        ("class_names", json.dumps(OTHER_ORDER["class_names"]).encode()),
    ),
    "csv by index in the order of texts": (
        csv(["2", "0", "1"], [2, 0, 1], LABELS.tolist()),
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


def test_a_permuted_table_gives_the_same_calibrator_which_bears_the_names(named: World) -> None:
    documents, options = [], "promote=always&method=vector&allow_prediction_change=true"
    for number, what in enumerate(("csv", "csv in another order")):
        # Another model each, so that the second fit is not simply that of the first.
        named.call("PUT", f"/v1/models/pets-{number}", json={"class_names": NAMES})
        content, kind = BODIES[what]
        answer = named.call(
            "POST",
            f"/v1/models/pets-{number}/calibration-sets?{options}&force=true",
            content=content,
            headers={"content-type": kind, "prefer": "wait=60"},
        )
        assert answer.status_code == 201, answer.text
        calibrator = answer.json()["calibrator"]
        documents.append(named.get(f"/v1/models/pets-{number}/calibrators/{calibrator}"))
    assert documents[0]["class_names"] == NAMES
    assert documents[0]["id"] == documents[1]["id"]
    assert documents[0]["parameters"] == documents[1]["parameters"]


def table(header: str, separator: str, comma: str, ids: bool) -> bytes:
    lines = [header]
    for row, (values, label) in enumerate(zip(LOGITS, TEXTS, strict=True)):
        cells = [f"{float(value)!r}".replace(".", comma) for value in values]
        lines.append(separator.join([*[str(3 * row)] * ids, *cells, label]))
    return "\n".join(lines).encode()


P = np.exp(LOGITS, dtype=np.float64)
P = np.round(P / P.sum(axis=1, keepdims=True), 2)
OFF = int((np.abs(P.sum(axis=1) - 1) > 1e-3).sum())
IDS = "column 'id' is taken as an id, not as a class"


@pytest.mark.parametrize(
    ("content", "kind", "notes"),
    [
        (*BODIES["json"], []),
        (*BODIES["npz with names"], []),
        (*BODIES["csv"], []),
        (table("cat;dog;bird;label", ";", ".", False), "text/csv", ["separated by semicolons"]),
        (
            table("id;cat;dog;bird;label", ";", ",", True),
            "text/csv",
            ["separated by semicolons", IDS, "read as decimal commas"],
        ),
        (
            table("id\tlogit_cat\tlogit_dog\tlogit_bird\tlabel", "\t", ",", True),
            "text/csv; charset=utf-8",
            ["separated by tabs", IDS, "read as decimal commas"],
        ),
        (table("id,logit_cat,logit_dog,logit_bird,label", ",", ".", True), "text/csv", [IDS]),
        (
            table("age,logit_cat,logit_dog,logit_bird,label", ",", ".", True)
            .replace(b"\n0,", b"\n40.5,")
            .replace(b"\n3,", b"\n40.5,"),
            "text/csv",
            ["ignored, because they have no prefix logit_: age"],
        ),
        (
            npz(probabilities=P, labels=LABELS),
            "application/x-npz",
            [f"{OFF} of {len(P)} rows do not sum to 1 within 1e-3"],
        ),
        (
            *form(("probabilities", json.dumps(P.tolist()).encode()), ("labels", npy(LABELS))),
            [f"{OFF} of {len(P)} rows do not sum to 1 within 1e-3"],
        ),
    ],
)
def test_the_answer_says_how_the_body_was_understood(
    named: World, content: bytes, kind: str, notes: list[str]
) -> None:
    uploaded = send(named, content, kind)
    path = "/v1/models/pets/calibration-sets/named/rows"
    appended = named.call("POST", path, content=content, headers={"content-type": kind})
    again = send(named, content, kind)
    for answer in (uploaded, appended, again):
        assert answer.is_success, answer.text
        said = answer.json().get("notes", [])
        assert len(said) == len(notes), answer.text
        assert all(note in sentence for note, sentence in zip(notes, said, strict=True)), said


@pytest.mark.parametrize(
    ("content", "kind", "note"),
    [
        (
            b"score;label\n" + b"0,25;0\n0,75;1\n" * 30,
            "text/csv",
            "is read as P(1), of two classes",
        ),
        (b'{"probabilities": [0.25], "labels": [0]}', "application/json", "read as P(class 1)"),
        (
            b'{"logits": [[-1.5]], "labels": [0]}',
            "application/json",
            "logits: one number per row is read as log P(class 1) \u2212 log P(class 0)",
        ),
        (
            npz(log_probabilities=np.log([0.25, 0.5]), labels=np.array([0, 1])),
            "application/x-npz",
            "read as log P(class 1)",
        ),
    ],
)
def test_the_answer_says_what_a_lone_score_is(
    sqlite_world: World, content: bytes, kind: str, note: str
) -> None:
    sqlite_world.call("PUT", "/v1/models/binary", json={"n_classes": 2})
    path = "/v1/models/binary/calibration-sets/named/rows"
    answer = sqlite_world.call("POST", path, content=content, headers={"content-type": kind})
    assert answer.status_code == 200, answer.text
    assert note in answer.json()["notes"][-1]
    stored = sqlite_world.get("/v1/models/binary/calibration-sets/named")
    assert stored["notes"] is None


def test_rows_of_other_classes_are_not_appended(named: World) -> None:
    path = "/v1/models/pets/calibration-sets/named/rows"
    headers = {"content-type": "text/csv"}
    first = named.call("POST", path, content=BODIES["csv"][0], headers=headers)
    assert first.status_code == 200, first.text
    again = named.call("POST", path, content=BODIES["csv in another order"][0], headers=headers)
    assert again.json()["digest"] == first.json()["digest"]  # it has these rows already
    foreign = csv(["cat", "dog", "cow"], [0, 1, 2], TEXTS)
    refused = named.call("POST", path, content=foreign, headers=headers)
    assert (refused.status_code, FOREIGN in refused.text) == (422, True)


@pytest.mark.parametrize(
    ("content", "kind", "status", "sentence"),
    [
        (csv(["cat", "dog", "cow"], [0, 1, 2], TEXTS), "text/csv", 422, FOREIGN),
        (csv(["cat", "dog"], [0, 1], TEXTS), "text/csv", 422, "got cat, dog (missing: bird)"),
        (csv(["1", "2", "3"], [0, 1, 2], TEXTS), "text/csv", 422, "got 1, 2, 3 (missing"),
        (
            npz(logits=LOGITS, labels=LABELS, class_names=["cat", "dog", "cow"]),
            "application/x-npz",
            422,
            FOREIGN,
        ),
        (
            json.dumps({**DOCUMENT, "class_names": ["cat", "dog", "cow"]}).encode(),
            "application/json",
            422,
            FOREIGN,
        ),
        (
            json.dumps({**DOCUMENT, "class_names": ["cat", "dog", "dog"]}).encode(),
            "application/json",
            422,
            "dog occurs twice",
        ),
        (
            json.dumps({**DOCUMENT, "class_names": [0, 1, 2]}).encode(),
            "application/json",
            422,
            "class_names must be a non-empty list of texts",
        ),
        (
            b'{"images": ["eA=="], "labels": [1], "class_names": ["cat", "dog", "bird"]}',
            "application/json",
            422,
            "no network here: send logits",
        ),
        (b"label,cat\n0,1\n", "text/csv", 422, "two classes"),
        (b"label,logit_cat\n0,1\n", "text/csv", 422, "must be named prob_1 or score"),
        (b"label;cat;dog;bird\n0;1_0;2;3\n", "text/csv", 422, "column 'cat', row 0"),
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
    extra["class_names"] = np.array(NAMES)
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
    assert set(extra) | set(matrices) | {"logits", "images", "rows", "inputs"} == set(
        uploads._FIELDS
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,y\n0.5,1.5,0\n0.1,0.2,1\n", "name it label if it holds labels"),
        ("a,b,label\n0.5,one,0\n0.1,0.2,1\n", "leave out a column that is no class"),
        ("id,label\n17,0\n18,1\n", "columns named logit_CLASS or prob_CLASS are scores"),
        ("score,label\n17.5,0\n18.25,1\n", "name it logit_1 if they are log-odds"),
        ("id,x,label\n17,1.5,0\n18,0.5,1\n", "a lone score of two classes is named"),
    ],
)
def test_errors_of_a_table_name_no_option_of_a_command(named: World, text: str, words: str) -> None:
    answer = named.call(
        "POST",
        "/v1/models/m/calibration-sets",
        content=text.encode(),
        headers={"content-type": "text/csv"},
    )
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert "--" not in answer.json()["detail"]
