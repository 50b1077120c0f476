"""Networks of two classes with one number per row, and of scikit-learn with a ZipMap."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.trueprob_service.application import application
from tests.trueprob_service.inspections import shared_inspector
from tests.trueprob_service.register.networks import network, one_score_network, save
from trueprob.calibrators import IdentityCalibrator
from trueprob.onnx_export import fused_onnx
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.register.command import main

pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)
Z = ROWS.sum(axis=1, dtype=np.float64)
P = 1 / (1 + np.exp(-Z))


def register(folder: Path, path: Path, *flags: str) -> int:
    environ = {"TRUEPROB_MODEL_REPOSITORY": str(folder / "models")}
    return main([str(path), "--name", "mine", *flags], environ, inspector=shared_inspector())


def serve(folder: Path, scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        models = folder / "models"
        async with application(
            folder / "state", model_repository=models, min_calibration_rows=10
        ) as client:
            await scenario(client)

    asyncio.run(run())


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(
    ("ending", "flags", "said"),
    [
        ("Sigmoid", (), "probabilities: one number per row, P(yes)"),
        ("Sigmoid", ("--output-kind", "probabilities"), "one number per row, P(yes)"),
        ("MatMul", ("--output-kind", "logits"), "logits: one number per row, the logit of P(yes)"),
    ],
)
def test_one_number_per_row_is_of_class_1(
    tmp_path: Path, capsys: Any, rank: int, ending: str, flags: tuple[str, ...], said: str
) -> None:
    path = one_score_network(tmp_path / "m.onnx", ending, rank=rank)
    assert register(tmp_path, path, "--class-names", "no,yes", *flags) == 0
    assert said in capsys.readouterr().out
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    assert (version.manifest.n_classes, version.manifest.class_names) == (2, ("no", "yes"))
    assert "one number per row" in (version.path / "MODEL_CARD.md").read_text()

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/models/mine/probabilities", json={"rows": ROWS.tolist()})
        assert answer.status_code == 200, answer.text
        expected = np.stack([1 - P, P], axis=1)
        np.testing.assert_allclose(answer.json()["probabilities"], expected, atol=1e-6)
        assert answer.json()["class"] == ["yes" if p > 0.5 else "no" for p in P]
        data = {"name": "x", "datatype": "FP32", "shape": [4, 5], "data": ROWS.ravel().tolist()}
        answer = await client.post("/v2/models/mine/infer", json={"inputs": [data]})
        np.testing.assert_allclose(answer.json()["outputs"][0]["data"], expected.ravel(), atol=1e-6)

    serve(tmp_path, scenario)


def test_a_logit_may_be_said_by_name_or_by_its_sigmoid(tmp_path: Path) -> None:
    assert register(tmp_path, one_score_network(tmp_path / "m.onnx", "MatMul", name="logits")) == 0
    node, score = helper.make_node, (TensorProto.FLOAT, ["n", 1])
    path = save(
        tmp_path / "both.onnx",
        [node("MatMul", ["x", "w"], ["z"]), node("Sigmoid", ["z"], ["p"])],
        {"x": (TensorProto.FLOAT, ["n", 5])},
        {"p": score, "z": score},
        {"w": np.ones((5, 1), np.float32)},
    )
    assert register(tmp_path, path) == 0
    assert register(tmp_path, path, "--output", "p") == 0
    repository = ModelRepository(tmp_path / "models")
    found = [repository.get("mine", number).manifest for number in (1, 2, 3)]
    assert [(each.output_name, each.output_kind) for each in found] == [
        ("logits", "logits"), ("z", "logits"), ("p", "probabilities"),
    ]  # fmt: skip


def test_a_sigmoid_is_no_logit_whatever_its_name(tmp_path: Path) -> None:
    path = one_score_network(tmp_path / "m.onnx", "Sigmoid", name="logits")
    assert register(tmp_path, path) == 0
    manifest = ModelRepository(tmp_path / "models").get("mine", 1).manifest
    assert (manifest.output_name, manifest.output_kind) == ("logits", "probabilities")


def test_one_output_for_each_class_is_refused_with_the_remedy(tmp_path: Path, capsys: Any) -> None:
    node = helper.make_node
    path = save(
        tmp_path / "columns.onnx",
        [
            node("MatMul", ["x", "w"], ["z"]),
            node("Softmax", ["z"], ["p"]),
            node("Split", ["p"], ["a", "b", "c"], axis=1),
        ],
        {"x": (TensorProto.FLOAT, ["n", 5])},
        {name: (TensorProto.FLOAT, ["n", 1]) for name in ("a", "b", "c")},
        {"w": np.eye(5, 3, dtype=np.float32)},
    )
    assert register(tmp_path, path) == 2
    assert "one output for each class (a, b, c): export the matrix" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ending", "flags", "words"),
    [
        ("MatMul", (), "one number per row, and the graph does not end in a Sigmoid"),
        ("MatMul", (), "set it with --output-kind"),
        ("Tanh", (), "set it with --output-kind"),
        ("MatMul", ("--output-kind", "probabilities"), "lie outside [0, 1]"),
        ("Sigmoid", ("--output-kind", "logits"), "is the Sigmoid of a logit: P(class 1)"),
        ("Softmax", (), "the Softmax of one number per row, which is always 1"),
        (
            "Sigmoid",
            ("--class-names", "a,b,c"),
            "--class-names has 3 names, the network gives score",
        ),
    ],
)
def test_what_one_number_is_is_never_guessed(
    tmp_path: Path, capsys: Any, ending: str, flags: tuple[str, ...], words: str
) -> None:
    path = one_score_network(tmp_path / "m.onnx", ending)
    assert register(tmp_path, path, *flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_calibration_set_of_the_one_number_or_of_rows(tmp_path: Path) -> None:
    path = one_score_network(tmp_path / "m.onnx", "Sigmoid")
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(200, 5)).astype(np.float32)
    z = rows.sum(axis=1)
    labels = (rng.random(200) < 1 / (1 + np.exp(-z / 2))).astype(int)
    kinds = {"rows": rows, "x": rows, "logits": z, "probabilities": 1 / (1 + np.exp(-z))}
    for name, values in kinds.items():
        for shaped in (values, values.reshape(200, -1)):
            np.savez(tmp_path / "val.npz", labels=labels, **{name: shaped})
            flags = ("--calibration", str(tmp_path / "val.npz"), "--method", "temperature")
            assert register(tmp_path, path, *flags) == 0
    repository = ModelRepository(tmp_path / "models")
    temperatures = [
        repository.get("mine", number).calibrator().temperature(np.zeros((1, 2), np.float32))
        for number in repository.versions("mine")
    ]
    np.testing.assert_allclose(np.ravel(temperatures), temperatures[0][0], rtol=1e-4)
    assert 1.5 < temperatures[0][0] < 3


def test_one_number_everywhere_in_the_service(tmp_path: Path) -> None:
    """A declared model of two classes: sets, labelled rows, tensors."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=100) * 3
    labels = (rng.random(100) < 1 / (1 + np.exp(-z / 2))).astype(int)
    path = "/v1/models/two/calibration-sets?promote=never&method=temperature"
    npz = io.BytesIO()
    np.savez(npz, labels=labels, logits=z[:, np.newaxis])
    csv = "logit_1,label\n" + "".join(
        f"{a!r},{b}\n" for a, b in zip(z.tolist(), labels, strict=False)
    )

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.put("/v1/models/two", json={"n_classes": 2})).status_code == 201
        answers = [
            await client.post(
                path, content=npz.getvalue(), headers={"content-type": "application/x-npz"}
            ),
            await client.post(path, content=csv, headers={"content-type": "text/csv"}),
            await client.post(path, json={"labels": labels.tolist(), "logits": z.tolist()}),
            await client.post(
                path, json={"labels": labels.tolist(), "logits": z[:, None].tolist()}
            ),
        ]
        assert [each.status_code for each in answers] == [202] * 4, answers[-1].text
        assert len({each.json()["calibration_set"] for each in answers}) == 1
        given: list[Any] = [1.3, [1.3], [0, 1.3], -2]
        rows = [{"id": str(i), "logits": v, "label": 1} for i, v in enumerate(given)]
        answer = await client.post("/v1/models/two/labels", json={"rows": rows})
        assert (answer.status_code, answer.json()["accepted"]) == (200, 4), answer.text
        for wrong, words in (
            ([1, 2, 3], "rows[0].logits must have 2 numbers or one, the logit of class 1, got 3"),
            ([None], "rows[0].logits[0] must be a number, got null"),
            (True, "rows[0].logits must be a list of numbers, got a boolean"),
            ([], "rows[0].logits must have 2 numbers or one"),
        ):
            body = {"rows": [{"id": "x", "logits": wrong, "label": 1}]}
            answer = await client.post("/v1/models/two/labels", json=body)
            assert (answer.status_code, words in answer.text) == (422, True), answer.text
        for shape in ([2, 1], [2]):
            tensor = {"name": "logits", "datatype": "FP32", "shape": shape, "data": [1.3, -2]}
            answer = await client.post("/v2/models/two/infer", json={"inputs": [tensor]})
            assert answer.status_code == 200, answer.text
            found = answer.json()["outputs"][0]
            assert (found["name"], found["shape"]) == ("probabilities", shape)
            np.testing.assert_allclose(found["data"], 1 / (1 + np.exp([-1.3, 2])), atol=1e-6)
        assert (await client.put("/v1/models/three", json={"n_classes": 3})).status_code == 201
        body = {"rows": [{"id": "x", "logits": [1.3], "label": 1}]}
        answer = await client.post("/v1/models/three/labels", json=body)
        assert "rows[0].logits must have 3 numbers, got 1" in answer.text

    serve(tmp_path, scenario)


@pytest.mark.parametrize("labels", [["no", "maybe", "yes"], [7, 3, 5]])
def test_a_zipmap_is_looked_through(tmp_path: Path, labels: list[Any]) -> None:
    texts = isinstance(labels[0], str)
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["z"]),
        node("Softmax", ["z"], ["scores"]),
        node("ZipMap", ["scores"], ["output_probability"], domain="ai.onnx.ml",
             **{"classlabels_strings" if texts else "classlabels_int64s": labels}),
        node("ArgMax", ["z"], ["best"], axis=1, keepdims=0),
        node("ArrayFeatureExtractor", ["names", "best"], ["label"], domain="ai.onnx.ml"),
    ]  # fmt: skip
    weight = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    path = tmp_path / "m.onnx"
    save(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, ["n", 5])},
        {"label": (TensorProto.STRING if texts else TensorProto.INT64, [1, "n"])},
        {"w": weight, "names": np.array(labels, object if texts else np.int64)},
        opsets=(("", 17), ("ai.onnx.ml", 3)),
    )
    model = onnx.load(path)
    key = TensorProto.STRING if texts else TensorProto.INT64
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    model.graph.output.append(helper.make_value_info("output_probability", kind))
    onnx.save(model, path)
    assert register(tmp_path, path) == 0
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    assert version.manifest.class_names == tuple(map(str, labels))
    assert (version.manifest.output_name, version.manifest.output_kind) == (
        "scores", "probabilities",
    )  # fmt: skip
    file = version.path / "model.onnx"
    assert file.read_bytes().startswith(path.read_bytes())
    fused = fused_onnx(file, IdentityCalibrator(3), output="scores", numbers="probabilities")
    outputs = onnx.load_from_string(fused).graph.output
    assert [each.name for each in outputs if each.name in ("scores", "label")] == ["label"]
    powers = np.exp(ROWS @ weight)

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/models/mine/probabilities", json={"rows": ROWS.tolist()})
        assert answer.status_code == 200, answer.text
        expected = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(answer.json()["probabilities"], expected, atol=1e-6)
        assert answer.json()["class"] == [str(labels[i]) for i in powers.argmax(axis=1)]

    serve(tmp_path, scenario)


def test_two_columns_come_before_one(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", ("n", 5), outputs=("one", "logits"))
    assert register(tmp_path, path) == 0
    assert register(tmp_path, path, "--output", "one", "--output-kind", "logits") == 0
    assert register(
        tmp_path, path, "--class-names", "a,b", "--output-kind", "logits"
    ) == 0  # fmt: skip
    repository = ModelRepository(tmp_path / "models")
    found = [repository.get("mine", number).manifest for number in (1, 2, 3)]
    assert [(each.output_name, each.n_classes) for each in found] == [
        ("logits", 3), ("one", 2), ("one", 2),
    ]  # fmt: skip
    assert json.loads((repository.get("mine", 2).path / "manifest.json").read_bytes())[
        "output"
    ] == {"name": "one"}
