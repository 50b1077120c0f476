"""Classifiers of other libraries: registered, served, calibrated and exported again.

docs/compatibility.md has a line for each; ``python -m tests.compatibility.test_compatibility``
writes it anew.
"""

from __future__ import annotations

import asyncio
import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compatibility.zoo import CALIBRATION_ROWS, ZOO, Entry, Trained
from tests.trueprob_service.application import ROOT, application
from trueprob import logits_from_probabilities
from trueprob.calibrators import Calibrator, loads_calibrator
from trueprob.cli.__main__ import main as trueprob
from trueprob.client import AsyncClient
from trueprob_service.register.command import main as register

pytestmark = pytest.mark.slow
for package in ("skl2onnx", "onnxmltools", "xgboost", "lightgbm", "torch"):
    pytest.importorskip(package)

DOCUMENT = ROOT / "docs/compatibility.md"
BEGIN, END = "<!-- compatibility:begin -->\n", "<!-- compatibility:end -->\n"


@dataclass(frozen=True)
class Served:
    """What a classifier said by itself, in the service, and in the exported file."""

    trained: Trained
    uncalibrated: dict[str, Any]  # the service's answer for the test rows
    calibrated: dict[str, Any]
    calibrator: Calibrator
    exported: NDArray[np.float32]  # probabilities


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    return asyncio.run(_serve_all(tmp_path_factory.mktemp("zoo")))


async def _serve_all(folder: Path) -> dict[str, Served]:
    models, trained = folder / "models", {}
    models.mkdir()
    for entry in ZOO:
        trained[entry.id] = _registered(entry, folder, models)
    found = {}
    async with application(folder / "state", model_repository=models) as http:
        for entry in ZOO:
            before = await _answer(http, entry.id, trained[entry.id], version=1)
            after = await _answer(http, entry.id, trained[entry.id], version=2)
            await _check_client(http, entry.id, trained[entry.id], after)
            calibrator = loads_calibrator((models / entry.id / "2/calibrator.json").read_bytes())
            exported = _exported(entry, folder, models, trained[entry.id])
            found[entry.id] = Served(trained[entry.id], before, after, calibrator, exported)
    return found


def _registered(entry: Entry, folder: Path, models: Path) -> Trained:
    """Version 1 without a calibrator, version 2 with one."""
    network, rows = folder / f"{entry.id}.onnx", folder / f"{entry.id}.npz"
    trained = entry.build(network)
    given = {name: values[:CALIBRATION_ROWS] for name, values in trained.inputs.items()}
    np.savez(rows, labels=trained.labels[:CALIBRATION_ROWS], **given)
    flags = [str(network), "--name", entry.id, "--models", str(models), *entry.register]
    assert register(flags, {}) == 0
    assert register([*flags, "--calibration", str(rows)], {}) == 0
    return trained


async def _answer(
    http: httpx.AsyncClient, model: str, trained: Trained, *, version: int
) -> dict[str, Any]:
    test = {name: values[CALIBRATION_ROWS:] for name, values in trained.inputs.items()}
    if "images" in test:
        body: dict[str, Any] = {"images": [_png(pixels) for pixels in test["images"]]}
    elif "rows" in test:
        body = {"rows": test["rows"].tolist()}
    else:
        body = {"inputs": {name: values.tolist() for name, values in test.items()}}
    answer = await http.post(f"/v1/models/{model}/probabilities?version={version}", json=body)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def _check_client(
    http: httpx.AsyncClient, model: str, trained: Trained, answer: dict[str, Any]
) -> None:
    """The Python client sends rows and named inputs, and gets the same answer."""
    if "images" in trained.inputs:
        return
    client = AsyncClient("http://localhost", transport=http._transport)
    test = {name: values[CALIBRATION_ROWS:] for name, values in trained.inputs.items()}
    given: dict[str, Any] = test if "rows" in test else {"inputs": test}
    said = await client.predict(model, **given)
    np.testing.assert_array_equal(
        said.probabilities, np.asarray(answer["probabilities"], np.float32)
    )


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _exported(entry: Entry, folder: Path, models: Path, trained: Trained) -> NDArray[np.float32]:
    """Probabilities of the test rows by network and calibrator in one file."""
    import onnxruntime

    target = folder / f"{entry.id}-calibrated.onnx"
    calibrator = models / entry.id / "2/calibrator.json"
    source = folder / f"{entry.id}.onnx"
    command = ["export-onnx", str(source), str(calibrator), "-o", str(target), *entry.export]
    assert trueprob(command) == 0
    session = onnxruntime.InferenceSession(str(target))
    test = {name: values[CALIBRATION_ROWS:] for name, values in trained.inputs.items()}
    if "images" in test:
        scaled = test["images"].transpose(0, 3, 1, 2).astype(np.float32) / 255
        feed = {session.get_inputs()[0].name: scaled}
    elif "rows" in test:
        feed = {session.get_inputs()[0].name: test["rows"]}
    else:
        feed = test
    (found,) = session.run(["probabilities"], feed)
    result: NDArray[np.float32] = found
    return result


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.id)
def test_a_version_without_calibrator_gives_the_scores_of_the_library_that_trained_it(
    entry: Entry, served: dict[str, Served]
) -> None:
    one = served[entry.id]
    own = one.trained.probabilities[CALIBRATION_ROWS:]
    assert np.allclose(one.uncalibrated["probabilities"], own, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.id)
def test_the_names_of_the_classes_arrive(entry: Entry, served: dict[str, Served]) -> None:
    one = served[entry.id]
    if one.trained.class_names[0].isdigit():
        assert one.calibrator.class_names in (None, one.trained.class_names)
    else:
        assert one.calibrator.class_names == one.trained.class_names


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.id)
def test_a_calibrated_version_gives_the_calibrator_of_those_scores(
    entry: Entry, served: dict[str, Served]
) -> None:
    one = served[entry.id]
    logits = logits_from_probabilities(one.trained.probabilities[CALIBRATION_ROWS:])
    expected = one.calibrator.predict_proba(logits)
    assert np.allclose(one.calibrated["probabilities"], expected, rtol=0.0, atol=1e-4)
    assert not np.allclose(one.uncalibrated["probabilities"], expected, rtol=0.0, atol=1e-3)


@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.id)
def test_one_file_of_network_and_calibrator_gives_the_answers_of_the_service(
    entry: Entry, served: dict[str, Served]
) -> None:
    one = served[entry.id]
    assert np.allclose(one.exported, one.calibrated["probabilities"], rtol=0.0, atol=1e-5)


def test_the_document_lists_them() -> None:
    text = DOCUMENT.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == _table()


def _table() -> str:
    head = ("classifier", "converter", "flags of `register`", "flags of `export-onnx`")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for entry in ZOO:
        flags = [f"`{' '.join(part)}`" if part else "" for part in (entry.register, entry.export)]
        cells = (f"{entry.library}: {entry.classifier}", entry.converter, *flags)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    whole = DOCUMENT.read_text()
    before, after = whole[: whole.index(BEGIN) + len(BEGIN)], whole[whole.index(END) :]
    DOCUMENT.write_text(before + _table() + after)
