"""Networks of several inputs and of token ids: registered, served and calibrated by name."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.trueprob_service.application import application
from tests.trueprob_service.inspections import shared_inspector
from tests.trueprob_service.register.networks import save, token_logits, token_network
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.register.command import main

pytestmark = pytest.mark.slow

PREDICT, INFER = "/v1/models/texts/probabilities", "/v2/models/texts/infer"
RNG = np.random.default_rng(2)
INPUTS = {
    "input_ids": RNG.integers(0, 10, (3, 6)),
    "attention_mask": np.array([[1] * 6, [1] * 4 + [0] * 2, [1] + [0] * 5]),
    "token_type_ids": RNG.integers(0, 2, (3, 6)),
}
LOGITS = token_logits(*INPUTS.values())
POWERS = np.exp(LOGITS - LOGITS.max(axis=1, keepdims=True))
EXPECTED = POWERS / POWERS.sum(axis=1, keepdims=True)


def register(folder: Path, path: Path, *flags: str) -> int:
    environ = {"TRUEPROB_MODEL_REPOSITORY": str(folder / "models")}
    return main([str(path), "--name", "texts", *flags], environ, inspector=shared_inspector())


def serve(folder: Path, scenario: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        models = folder / "models"
        async with application(
            folder / "state", model_repository=models, min_calibration_rows=10
        ) as client:
            await scenario(client)

    asyncio.run(run())


def listed(**changed: Any) -> dict[str, Any]:
    arrays = {name: array.tolist() for name, array in INPUTS.items()} | changed
    return {"inputs": {name: rows for name, rows in arrays.items() if rows is not None}}


def tensor(name: str, array: np.ndarray, datatype: str = "INT64") -> dict[str, Any]:
    return {
        "name": name, "shape": list(array.shape), "datatype": datatype,
        "data": array.ravel().tolist(),
    }  # fmt: skip


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("texts")
    assert register(found, token_network(found / "m.onnx"), "--class-names", "a,b,c") == 0
    return found


def test_the_manifest_has_names_types_and_shapes_of_the_graph(tmp_path: Path, capsys: Any) -> None:
    path = token_network(tmp_path / "m.onnx", kind=TensorProto.INT32)
    assert register(tmp_path, path) == 0
    assert capsys.readouterr().out.count("int32 rows ['batch', 'sequence']") == 3
    version = ModelRepository(tmp_path / "models").get("texts", 1)
    assert version.manifest.input is None
    assert [(spec.name, spec.dtype, spec.shape) for spec in version.manifest.inputs] == [
        (name, "int32", ("batch", "sequence")) for name in INPUTS
    ]
    document = json.loads((version.path / "manifest.json").read_bytes())
    assert (document["input"], len(document["inputs"])) == (None, 3)
    assert (version.path / "MODEL_CARD.md").read_text().count("`: int32, rows") == 3


def test_inputs_by_name_are_answered(folder: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post(PREDICT, json=listed())
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["probabilities"], EXPECTED, atol=1e-6)
        assert len(answer.json()["prediction_ids"]) == 3
        longer = {name: np.pad(array, ((0, 0), (0, 9))) for name, array in INPUTS.items()}
        answers = await asyncio.gather(  # of two lengths, so never in one batch
            *(client.post(PREDICT, json=listed()) for _ in range(4)),
            *(
                client.post(PREDICT, json={"inputs": {n: a.tolist() for n, a in longer.items()}})
                for _ in range(4)
            ),
        )
        assert [each.status_code for each in answers] == [200] * 8
        for each in answers:
            np.testing.assert_allclose(each.json()["probabilities"], EXPECTED, atol=1e-6)
        tensors = [tensor(name, array) for name, array in INPUTS.items()]
        answer = await client.post(INFER, json={"inputs": tensors[::-1]})
        assert answer.status_code == 200, answer.text
        found = np.reshape(answer.json()["outputs"][0]["data"], (3, 3))
        np.testing.assert_allclose(found, EXPECTED, atol=1e-6)
        metadata = (await client.get("/v2/models/texts")).json()
        assert metadata["inputs"] == [
            {"name": name, "datatype": "INT64", "shape": [-1, -1]} for name in INPUTS
        ]
        assert (await client.post(PREDICT, json={"logits": LOGITS.tolist()})).status_code == 200

    serve(folder, scenario)


MASK = INPUTS["attention_mask"]
BAD: list[tuple[dict[str, Any], str]] = [
    (listed(attention_mask=None), "inputs must have attention_mask, int64 of shape (n, sequence)"),
    (listed(extra=[[1]]), "unknown name 'extra': this network has input_ids, attention_mask"),
    (listed(input_ids=[[1, 2, 3], [4, 5], [6, 7, 8]]), ("input_ids is ragged: row 0 has 3 numbers, "
     "row 1 has 2; pad all rows to one length")),
    (listed(input_ids=[[1.5] * 6] * 3), "input_ids must hold whole numbers (int64), row 0"),
    (listed(input_ids=[["a"] * 6] * 3), "input_ids must hold numbers only, got str in row 0"),
    (listed(input_ids=[[1] * 6, [None] * 6, [1] * 6]), "got null in row 1"),
    (listed(attention_mask=[[True] * 6] * 3), "attention_mask must hold whole numbers"),
    (listed(attention_mask=MASK[:2].tolist()), "input_ids has 3 rows, attention_mask has 2"),
    (listed(attention_mask=MASK[:, :5].tolist()), ("attention_mask must have the sequence of "
     "input_ids, 6, got 5")),
    (listed(input_ids=[1, 2, 3]), "input_ids must be int64 of shape (n, sequence)"),
    (listed(input_ids=[[[1] * 6]] * 3), "input_ids must be int64 of shape (n, sequence)"),
    (listed(input_ids=[]), "input_ids must have at least one row"),
    (listed(input_ids=[[], [], []]), "input_ids must have at least one row"),
    (listed(input_ids="[[1]]"), "input_ids must be a list"),
    (listed(input_ids=[[10**30] * 6] * 3), "input_ids must hold whole numbers (int64)"),
    ({"inputs": {}}, "inputs must be an object with an array for each input"),
    ({"inputs": [[1]]}, "inputs must be an object with an array for each input"),
    ({"rows": [[1, 2]]}, "has 3 inputs (input_ids, attention_mask, token_type_ids)"),
    ({"images": ["eA=="]}, "takes no pictures: send rows or inputs (input_ids"),
    (listed(input_ids=[[1] * 6, [1, 99, 1, 1, 1, 1], [1] * 6]), ("input_ids has 99 in row 1, out "
     "of the network's range: it takes 0 to 9")),
    (listed(token_type_ids=[[2] * 6] * 3), "token_type_ids has 2 in row 0, out of the"),
    ({"inputs": {n: np.ones((1, 40), int).tolist() for n in INPUTS}}, ("cannot run rows of this "
     "length (input_ids of shape (1, 40)")),
]  # fmt: skip


def test_what_is_wrong_with_an_input_names_it(folder: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for body, words in BAD:
            answer = await client.post(PREDICT, json=body)
            assert (answer.status_code, words in answer.json()["detail"]) == (422, True), (
                body, answer.text,
            )  # fmt: skip
        tensors = {name: tensor(name, array) for name, array in INPUTS.items()}
        for changed, words in (
            ({"input_ids": tensor("input_ids", INPUTS["input_ids"], "INT32")}, "must be INT64"),
            ({"input_ids": None}, "input_ids (INT64 of shape [-1, -1]) is missing"),
            ({"extra": tensor("extra", MASK)}, "inputs[3].name must be logits or input_ids and"),
            ({"extra": tensors["input_ids"]}, "different names"),
            ({"input_ids": tensor("input_ids", MASK[:2])}, "input_ids has 2 rows"),
            (
                {"input_ids": tensor("input_ids", MASK[0])},
                "must have shape (n, sequence), got (6,)",
            ),
            ({"input_ids": tensor("input_ids", 99 * MASK)}, "input_ids has 99 in row 0"),
        ):
            given = [each for each in (tensors | changed).values() if each is not None]
            answer = await client.post(INFER, json={"inputs": given})
            assert (answer.status_code, words in answer.json()["detail"]) == (422, True), (
                words, answer.text,
            )  # fmt: skip
        header = {"inference-header-content-length": "0"}
        answer = await client.post(INFER, content=b"1234", headers=header)
        assert "a body without a JSON part is for one input" in answer.json()["detail"]
        assert (await client.post(PREDICT, json=listed())).status_code == 200

    serve(folder, scenario)


def test_calibration_sets_have_inputs_by_name(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    arrays = {
        "input_ids": rng.integers(0, 10, (70, 5)),
        "attention_mask": np.ones((70, 5), np.int32),  # no number changes in int64
        "token_type_ids": np.zeros((70, 5), np.int64),
    }
    logits = token_logits(*arrays.values())
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    inputs = {name: array.tolist() for name, array in arrays.items()}
    path = "/v1/models/texts/calibration-sets?promote=never"

    async def scenario(client: httpx.AsyncClient) -> None:
        binary = {"content-type": "application/x-npz"}
        answers = [
            await client.post(path, content=npz(labels=labels, **arrays), headers=binary),
            await client.post(path, json={"labels": labels.tolist(), "inputs": inputs}),
        ]
        assert [each.status_code for each in answers] == [202, 202], answers[0].text
        assert len({each.json()["calibration_set"] for each in answers}) == 1
        for rows, words in (
            ({"input_ids": arrays["input_ids"]}, "inputs must have attention_mask"),
            ({**arrays, "logits": logits}, "must not come together"),
            ({**arrays, "class_names": np.array(["a", "b", "c"])}, "leave them out with"),
            ({**arrays, "input_ids": arrays["input_ids"] + 5}, "out of the network's range"),
            ({"rows": arrays["input_ids"]}, "has 3 inputs"),
        ):
            answer = await client.post(path, content=npz(labels=labels, **rows), headers=binary)
            assert (answer.status_code, words in answer.text) == (422, True), answer.text

    serve(folder, scenario)
    np.savez(tmp_path / "val.npz", labels=labels, **arrays)
    flags = ("--calibration", str(tmp_path / "val.npz"), "--method", "temperature")
    assert register(tmp_path, token_network(tmp_path / "m.onnx"), *flags) == 0
    version = ModelRepository(tmp_path / "models").get("texts", 1)
    assert version.manifest.scores["calibration"]["n"] == 70


def test_rows_of_one_input_may_have_any_rank_and_type(tmp_path: Path) -> None:
    node = helper.make_node
    for place, (kind, shape, values) in enumerate((
        (TensorProto.FLOAT, ["n", 3], [[1.5, -2, 0.25]]),
        (TensorProto.FLOAT, ["n", 3, 1], [[[1.5], [-2], [0.25]]]),
        (TensorProto.DOUBLE, ["n", 3], [[1.5, -2, 0.25], [3, 4, 5]]),
        (TensorProto.INT32, ["n", 3], [[1, 2, 3]]),
        (TensorProto.BOOL, ["n", 3], [[True, False, True]]),
    )):  # fmt: skip
        path = save(
            tmp_path / "m.onnx",
            [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), node("Flatten", ["y"], ["logits"])],
            {"x": (kind, shape)},
            {"logits": (TensorProto.FLOAT, ["n", 3])},
        )
        flags = ("--version", str(place + 1), "--output-kind", "logits")
        assert register(tmp_path, path, *flags) == 0
        logits = np.reshape(values, (-1, 3)).astype(float)

        async def scenario(
            client: httpx.AsyncClient,
            place: int = place,
            values: Any = values,
            logits: Any = logits,
        ) -> None:
            version = f"?version={place + 1}&return=logits"
            for body in ({"rows": values}, {"inputs": {"x": values}}):
                answer = await client.post(PREDICT + version, json=body)
                assert answer.status_code == 200, answer.text
                np.testing.assert_array_equal(answer.json()["logits"], logits)
            if np.ndim(values) == 2 and not isinstance(values[0][0], bool):
                stream = io.BytesIO()
                np.save(stream, np.array(values))
                npy = {"content-type": "application/x-npy"}
                answer = await client.post(
                    f"{PREDICT}{version}&input=rows", content=stream.getvalue(), headers=npy
                )
                np.testing.assert_array_equal(answer.json()["logits"], logits)
            many = [values[0]] * 60
            labels = [0, 1, 2] * 20
            for rows in ({"rows": many}, {"inputs": {"x": many}}):
                answer = await client.post(
                    f"/v1/models/texts/calibration-sets?version={place + 1}&promote=never",
                    json={"labels": labels, **rows},
                )
                assert answer.status_code == 202, answer.text

        serve(tmp_path, scenario)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"text": (TensorProto.STRING, ["n", 1])}, "turn text into numbers elsewhere, declare"),
        ({"x": (TensorProto.FLOAT, ["n", 3]), "t": (TensorProto.FLOAT, [])}, "input 't' has shape"),
        (
            {"x": (TensorProto.FLOAT, ["n", 3]), "t": (TensorProto.FLOAT, [1])},
            "same number of rows",
        ),
    ],
)
def test_inputs_that_rows_cannot_fill(
    tmp_path: Path, capsys: Any, inputs: dict[str, Any], words: str
) -> None:
    names = [*inputs, "x"][:2] if "x" in inputs else []
    nodes = [helper.make_node("Identity", [next(iter(inputs))], ["logits"])]
    if len(set(names)) == 2:
        nodes = [helper.make_node("Add", names, ["logits"])]
    kind = next(iter(inputs.values()))
    path = save(tmp_path / "m.onnx", nodes, inputs, {"logits": kind})
    assert register(tmp_path, path) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
