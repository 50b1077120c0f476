"""`trueprob labels` against a real service: the labels of a warehouse, by the caller's ids."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.running_service import ROOT, RunningService, running_service
from trueprob import load_calibration_set
from trueprob.cli.__main__ import main
from trueprob.client import Client

pytestmark = pytest.mark.integration
DATA = load_calibration_set(ROOT / "examples" / "digits_test.npz")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("labels")
    with running_service(folder / "state", ROOT / "models") as running:
        yield running


@pytest.fixture
def rows(service: RunningService) -> list[tuple[str, int]]:
    """Ids of predictions that nobody has labelled, and their labels."""
    run = next(NUMBERS)
    ids = [f"order {run}, {i}" for i in range(len(DATA.labels))]
    with Client(service.url) as client:
        client.predict("digits", logits=DATA.logits, ids=ids, receipts=False)
    return list(zip(ids, DATA.labels.tolist(), strict=True))


def labels(
    capsys: pytest.CaptureFixture[str], service: RunningService, *arguments: object
) -> tuple[int, Any]:
    words = ["labels", *map(str, arguments), "--model", "digits", "--url", service.url, "--json"]
    code = main(words)
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code != 2 else captured.err


def write(
    path: Path, rows: list[tuple[str, Any]], names: tuple[str, str] = ("id", "label")
) -> Path:
    suffix = path.suffix
    if suffix == ".parquet":
        table = {names[0]: [a for a, _ in rows], names[1]: [b for _, b in rows]}
        pq.write_table(pa.table(table), path, row_group_size=100)
    elif suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(dict(zip(names, r, strict=True))) + "\n" for r in rows))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ";")
            writer.writerows([(*names, "more"), *((*row, "x") for row in rows)])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_every_label_of_a_file_counts_once(
    service: RunningService, rows: list[tuple[str, int]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], suffix: str,
) -> None:  # fmt: skip
    file = write(tmp_path / f"labels{suffix}", rows, ("order", "truth"))
    columns = ("--id-column", "order", "--label-column", "truth", "--batch-rows", 77)
    code, document = labels(capsys, service, file, *columns)
    n = len(rows)
    assert (code, document["rows"], document["counted"]) == (0, n, n)
    assert document["outcomes"] == {"accepted": n}
    code, document = labels(capsys, service, file, *columns, "--strict")
    assert (code, document["outcomes"]) == (0, {"duplicate": n})


def test_an_interrupted_command_goes_on_after_what_was_answered(
    service: RunningService, rows: list[tuple[str, int]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file, progress = write(tmp_path / "labels.csv", rows), tmp_path / "progress"
    damaged = tmp_path / "damaged.csv"
    lines = file.read_text("utf-8-sig").splitlines()
    damaged.write_text("\n".join([*lines[:151], "only one field", *lines[151:]]))
    options = ("--resume", progress, "--batch-rows", 60)
    code, error = labels(capsys, service, damaged, *options)
    assert (code, progress.read_text()) == (2, "120\n")
    assert "row 151 of" in error
    code, document = labels(capsys, service, file, *options)
    assert (code, document["resumed_at"]) == (0, 120)
    assert document["outcomes"] == {"accepted": len(rows) - 120}
    assert progress.read_text() == f"{len(rows)}\n"
    write(file, rows[:10])
    assert labels(capsys, service, file, *options)[0] == 2


def test_what_does_not_count_is_reported(
    service: RunningService, rows: list[tuple[str, int]], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wrong = (rows[1][1] + 1) % 10
    sent = [rows[0], rows[1], ("never predicted", 3), (rows[2][0], 11)]
    assert labels(capsys, service, write(tmp_path / "first.csv", rows[1:2]))[0] == 0
    sent[1] = (rows[1][0], wrong)
    report = tmp_path / "report.csv"
    arguments = (write(tmp_path / "some.csv", sent), "--unjoined", report)
    code, document = labels(capsys, service, *arguments)
    expected = {"accepted": 1, "conflict": 1, "unknown_id": 1, "unknown_class": 1}
    assert (code, document["counted"], document["outcomes"]) == (0, 1, expected)
    with report.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "label", "outcome"],
            [rows[1][0], str(wrong), "conflict"],
            ["never predicted", "3", "unknown_id"],
            [rows[2][0], "11", "unknown_class"],
        ]
    assert labels(capsys, service, *arguments, "--strict")[0] == 1


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_labels_stream_from_standard_input(
    service: RunningService, rows: list[tuple[str, int]], tmp_path: Path, kind: str
) -> None:
    suffix = ".csv" if kind == "csv" else ".jsonl"
    content = write(tmp_path / f"labels{suffix}", rows).read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "trueprob.cli", "labels", "-", "--model", "digits", "--url",
         service.url, "--json"],
        input=content, capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["outcomes"] == {"accepted": len(rows)}
    assert f"{len(rows)} rows answered" in done.stderr.decode()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"key,label\n1,2\n", "must have a column 'id', got 'key', 'label'"),
        ("a.csv", b"id,label\n1\n", "row 1 of {path} must have 2 fields"),
        ("a.csv", b"id,label\n,2\n", "the id of row 1 of {path} must be a text or a whole number"),
        ("a.csv", b"id,label\n1,\xff\n", "{path} is not a text in UTF-8"),
        ("a.jsonl", b'{"id": 1, "label": 2.5}\n', "the label of row 1 of {path} must be a text"),
        ("a.jsonl", b'{"id": 1, "label": 2}\n[1]\n', "row 2 of {path} must be an object of JSON"),
        ("a.jsonl", b'{"id": 1}\n', "must have a column 'label'"),
        ("a.parquet", b"no parquet", "{path} is not a .parquet file"),
        ("a.xlsx", b"", "{path} must end in one of .csv"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, content: bytes, words: str,
) -> None:  # fmt: skip
    path = tmp_path / name
    path.write_bytes(content)
    code, error = labels(capsys, service, path)
    assert code == 2
    assert words.format(path=path) in error
    assert len(error.splitlines()) == 1


def test_a_file_that_is_not_there_and_options_that_cannot_be_used(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = labels(capsys, service, tmp_path / "none.csv")
    assert (code, "none.csv cannot be read" in error) == (2, True)
    code, error = labels(capsys, service, "-", "--resume", tmp_path / "p")
    assert (code, "--resume needs a file that can be read again" in error) == (2, True)
    code, error = labels(capsys, service, "-", "--batch-rows", 0)
    assert (code, "--batch-rows must be 1 to 100000, got 0" in error) == (2, True)
    (tmp_path / "p").write_text("many")
    code, error = labels(capsys, service, write(tmp_path / "x.csv", []), "--resume", tmp_path / "p")
    assert (code, "must hold a number of rows" in error) == (2, True)
