"""Weights in a second file, pointers of Git LFS, ZipMaps and networks that answer at random."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.trueprob_service.application import application
from tests.trueprob_service.inspections import shared_inspector
from tests.trueprob_service.register.networks import network, save, weights
from trueprob.arrays.files import read_arrays
from trueprob.calibrators import IdentityCalibrator
from trueprob.errors import DigestMismatch, InvalidInput
from trueprob.onnx_export.export import fused_onnx
from trueprob.repository.manifest import InputSpec, Manifest
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.control.models.discovery import discover
from trueprob_service.register.command import main

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
ROWS = np.random.default_rng(3).normal(size=(2, 5)).astype(np.float32)


def register(folder: Path, path: Path, *flags: str) -> int:
    environ = {"TRUEPROB_MODEL_REPOSITORY": str(folder / "models")}
    return main([str(path), "--name", "mine", *flags], environ, inspector=shared_inspector())


def logits(folder: Path, rows: np.ndarray) -> np.ndarray:
    """What a service that was started on the repository takes for the network's logits."""

    async def scenario() -> np.ndarray:
        async with application(folder / "state", model_repository=folder / "models") as client:
            path = "/v1/models/mine/probabilities?return=logits"
            answer = await client.post(path, json={"rows": rows.tolist()})
            assert answer.status_code == 200, answer.text
            return np.array(answer.json()["logits"])

    return asyncio.run(scenario())


def in_two_files(folder: Path, location: str = "weights.bin") -> Path:
    """A network whose matrix lies in a second file."""
    folder.mkdir(exist_ok=True)
    model = onnx.load(network(folder / "one.onnx", ("n", 5)))
    path = folder / "two.onnx"
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    (folder / "one.onnx").unlink()
    return path


def relocated(path: Path, location: str, **more: str) -> Path:
    """The same file, its weights said to lie elsewhere."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key in {"location": location, **more}:
                entry.value = {"location": location, **more}[entry.key]
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("location", ["weights.bin", "parts/all/w.data", "_w"])
def test_weights_in_a_second_file_come_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    path = in_two_files(tmp_path / "from", location)
    monkeypatch.chdir(tmp_path / "from")
    assert register(tmp_path, Path("two.onnx")) == 0  # a path without a folder
    (tmp_path / "from" / location).write_bytes(b"")
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    version.verify()
    assert set(version.manifest.files) == {"model.onnx", location, "MODEL_CARD.md"}
    assert (version.path / "model.onnx").read_bytes() == path.read_bytes()
    np.testing.assert_allclose(logits(tmp_path, ROWS), ROWS @ weights(5, 3), atol=1e-6)


def test_a_version_whose_weights_are_not_what_they_were_is_refused(tmp_path: Path) -> None:
    assert register(tmp_path, in_two_files(tmp_path / "from")) == 0
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    file, content = version.path / "weights.bin", (version.path / "weights.bin").read_bytes()
    for damaged, words in (
        (content[:-1] + b"\0", "weights.bin of mine/1 does not match its digest"),
        (POINTER, "weights.bin of mine/1 is a Git LFS pointer, not the file itself: run `git lfs"),
        (None, "weights.bin of mine/1 is missing"),
    ):
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        assert words in discover(tmp_path / "models").refused["mine", 1]
        file.write_bytes(content)
    version.verify()
    undigested = {n: d for n, d in version.manifest.files.items() if n != "weights.bin"}
    (version.path / "manifest.json").write_bytes(version.manifest.with_files(undigested).dumps())
    with pytest.raises(DigestMismatch, match=r"weights\.bin of mine/1 has no digest"):
        ModelRepository(tmp_path / "models").get("mine", 1).verify()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("missing.bin", "file of weights 'missing.bin' is missing: put it beside the network"),
        ("../weights.bin", "must be a relative path inside the folder of the network"),
        ("a/../../weights.bin", "must be a relative path inside the folder"),
        ("/etc/hostname", "must be a relative path inside the folder"),
        ("C:\\weights.bin", "must be a relative path inside the folder"),
        ("", "must be a relative path inside the folder"),
        ("out", "is a link that leads out of the folder of the network"),
        ("link/weights.bin", "is a link that leads out of the folder"),
        ("pipe", "must be a regular file"),
        ("folder", "must be a regular file"),
        ("pointer", "is a Git LFS pointer, not the weights: run `git lfs pull`"),
        ("short", "is cut off: it has 3 bytes, the network needs 80"),
        ("manifest.json", "cannot have this name in the repository"),
        ("a b.bin", "cannot have this name in the repository"),
    ],
)
def test_weights_that_cannot_be_taken(
    tmp_path: Path, capsys: Any, location: str, words: str
) -> None:
    folder = tmp_path / "from"
    path = in_two_files(folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "out").symlink_to(outside / "weights.bin")
    (folder / "link").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "pointer").write_bytes(POINTER)
    (folder / "short").write_bytes(b"abc")
    for name in ("manifest.json", "a b.bin"):
        (folder / name).write_bytes((folder / "weights.bin").read_bytes())
    assert register(tmp_path, relocated(path, location)) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "from"
    path = in_two_files(folder)
    (folder / "linked.bin").symlink_to("weights.bin")
    assert register(tmp_path, relocated(path, "./linked.bin")) == 0
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    assert not (version.path / "linked.bin").is_symlink()
    version.verify()


def test_weights_of_a_constant_within_a_branch_are_found(tmp_path: Path, capsys: Any) -> None:
    node, value = helper.make_node, helper.make_tensor_value_info
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [1], b"\0\0\0\0", raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="hidden.bin")
    branch = helper.make_graph(
        [node("Constant", [], ["c"], value=tensor)], "b", [], [value("c", TensorProto.FLOAT, [1])]
    )
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    nodes = [
        node("Constant", [], ["yes"], value=yes),
        node("If", ["yes"], ["added"], then_branch=branch, else_branch=branch),
        node("Add", ["x", "added"], ["logits"]),
    ]
    rows = (TensorProto.FLOAT, ["n", 3])
    path = tmp_path / "m.onnx"
    graph = helper.make_graph(nodes, "g", [value("x", *rows)], [value("logits", *rows)])
    imports = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(model.SerializeToString())
    assert register(tmp_path, path) == 2
    assert "file of weights 'hidden.bin' is missing" in capsys.readouterr().err


def test_pointers_of_git_lfs_are_called_so(tmp_path: Path, capsys: Any) -> None:
    pointer = tmp_path / "m.onnx"
    pointer.write_bytes(POINTER)
    assert register(tmp_path, pointer) == 2
    assert "m.onnx is a Git LFS pointer, not the network itself: run `git lfs pull`" in (
        capsys.readouterr().err
    )
    rows = tmp_path / "val.npz"
    rows.write_bytes(POINTER)
    path = network(tmp_path / "n.onnx", ("n", 5))
    assert register(tmp_path, path, "--calibration", str(rows)) == 2
    assert "val.npz is a Git LFS pointer" in capsys.readouterr().err
    with pytest.raises(InvalidInput, match="rows is a Git LFS pointer"):
        read_arrays(POINTER, name="rows")
    with pytest.raises(InvalidInput, match="model is a Git LFS pointer"):
        fused_onnx(pointer, IdentityCalibrator(3))
    assert not (tmp_path / "models").exists()


def random_network(path: Path, kind: str) -> Path:
    node = helper.make_node
    nodes = {
        "dropout": [node("Dropout", ["x", "ratio", "training"], ["logits"])],
        "noise": [
            node("RandomNormalLike", ["x"], ["noise"], scale=1.0),
            node("Add", ["x", "noise"], ["logits"]),
        ],
        "seeded": [
            node("RandomUniformLike", ["x"], ["noise"], seed=1.0),
            node("Mul", ["x", "noise"], ["logits"]),
        ],
    }[kind]
    rows = (TensorProto.FLOAT, ["n", 3])
    constants = {"ratio": np.float32(0.3), "training": np.bool_(True)} if kind == "dropout" else {}
    return save(path, nodes, {"x": rows}, {"logits": rows}, constants)


@pytest.mark.parametrize("kind", ["dropout", "noise", "seeded"])
def test_networks_that_answer_at_random_are_refused(tmp_path: Path, capsys: Any, kind: str) -> None:
    path = random_network(tmp_path / "m.onnx", kind)
    assert register(tmp_path, path) == 2
    assert "different answers when it runs twice on the same rows: dropout" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "words"),
    [("float32", "runs twice on the same rows"), ("text", "needs a dtype of bool")],
)
def test_such_a_network_in_the_repository_is_not_served(
    tmp_path: Path, caplog: Any, dtype: str, words: str
) -> None:
    manifest = Manifest("mine", 1, 3, ("a", "b", "c"), InputSpec("x", dtype, ("batch", 3), "rows"))
    content = random_network(tmp_path / "m.onnx", "dropout").read_bytes()
    ModelRepository(tmp_path / "models").add(manifest, {"model.onnx": content})

    async def scenario() -> None:
        async with application(tmp_path / "state", model_repository=tmp_path / "models") as client:
            answer = await client.post("/v1/models/mine/probabilities", json={"rows": [[1, 2, 3]]})
            assert answer.status_code == 503
            assert answer.json()["code"] == "model_unavailable"
            assert words in answer.json()["detail"]
            metadata = (await client.get("/v2/models/mine")).json()
            assert [each["name"] for each in metadata["inputs"]] == ["logits"]

    asyncio.run(scenario())
    assert words in caplog.text
