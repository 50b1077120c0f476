"""`trueprob collect` against a real service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.running_service import ROOT, RunningService, running_service
from trueprob import load_calibration_set
from trueprob.cli.__main__ import main

pytestmark = pytest.mark.integration
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("collect")
    with running_service(folder / "state", ROOT / "models") as running:
        yield running


def collect(
    capsys: pytest.CaptureFixture[str], service: RunningService, *arguments: object
) -> tuple[int, Any]:
    code = main(["collect", "digits", *map(str, arguments), "--url", service.url, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code != 2 else captured.err


def test_logits_in_batches_are_the_set_and_its_fit(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = EXAMPLES / "digits_drifted.npz", tmp_path / "set.npz"
    arguments = (data, "--name", "shifted", "--batch-rows", 100)
    code, document = collect(capsys, service, *arguments, "-o", output, "--fit")
    whole = load_calibration_set(data)
    assert (code, document["set"]["digest"]) == (0, whole.digest)
    assert load_calibration_set(output).digest == whole.digest
    assert document["fit"]["promoted"] is True
    code, again = collect(capsys, service, *arguments)
    assert (code, again["set"]["n"]) == (0, whole.n)
    # Columns in another order are the same rows; their names go with every batch.
    order = np.roll(np.arange(10), 3)
    permuted = {"logits": whole.logits[:, order], "labels": np.argsort(order)[whole.labels]}
    np.savez(tmp_path / "permuted.npz", **permuted, class_names=order.astype(str))
    named = (tmp_path / "permuted.npz", "--name", "shifted", "--batch-rows", 100)
    code, again = collect(capsys, service, *named)
    assert (code, again["set"]["digest"]) == (0, whole.digest)
    # The same request is the same fit; with other options the rows are no new evidence.
    code, again = collect(capsys, service, *arguments, "--fit")
    assert (code, again["fit"]["fit"]) == (0, document["fit"]["fit"])
    assert collect(capsys, service, *arguments, "--fit", "--method", "temperature")[0] == 1


def test_folders_of_pictures_become_logits(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in ("3", "7"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    output = tmp_path / "set.npz"
    code, document = collect(
        capsys, service, tmp_path / "data", "--name", "pictures", "--batch-rows", 3, "-o", output
    )
    assert (code, document["set"]["n"], document["fit"]) == (0, 8, None)
    found = load_calibration_set(output)
    assert found.labels.tolist() == [3] * 4 + [7] * 4
    assert found.n_classes == 10


def test_what_is_wrong_with_the_set_or_its_fit_is_said(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(EXAMPLES / "digits_test.npz") as arrays:
        np.savez(tmp_path / "off.npz", logits=arrays["logits"], labels=(arrays["labels"] + 1) % 10)
    arguments = ["collect", "digits", str(tmp_path / "off.npz"), "--name", "off"]
    assert main([*arguments, "--url", service.url]) == 0
    error = capsys.readouterr().err
    (line,) = (line for line in error.splitlines() if line.startswith("trueprob: hold: "))
    assert line.endswith("after the repair; lower each label by one")
    assert main([*arguments, "--url", service.url, "--fit", "--json"]) == 1
    captured = capsys.readouterr()
    assert line in captured.err.splitlines()
    fit = json.loads(captured.out)["fit"]
    assert (fit["verdict"]["outcome"], fit["promoted"]) == ("held", False)
    assert fit["verdict"]["findings"][0]["code"] == "class_order"


def test_what_cannot_be_collected_is_one_line(
    service: RunningService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "no.npz", logits=np.zeros((3, 10)))
    (tmp_path / "wrong.csv").write_text("label,a,b\n0,1,2\n")
    for data, sentence in [
        ("empty", "at least one row, got none"),
        ("no.npz", "must hold labels"),
        ("none.npz", "cannot be read"),
        ("wrong.csv", "must be 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got a, b (missing"),
    ]:
        code, line = collect(capsys, service, tmp_path / data, "--name", "x")
        assert (code, sentence in line, line.count("\n")) == (2, True, 1), line
    data = EXAMPLES / "digits_drifted.npz"
    nobody = ["collect", "digits", str(data), "--name", "x", "--url", "http://127.0.0.1:9"]
    assert main([*nobody, "--key-file", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
