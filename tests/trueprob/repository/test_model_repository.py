import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trueprob import (
    Baseline,
    DigestMismatch,
    IdentityCalibrator,
    InputSpec,
    InvalidDocument,
    InvalidInput,
    Manifest,
    ModelRepository,
    ModelVersionNotFound,
    TemperatureCalibrator,
    VersionExists,
    dumps_calibrator,
    fit,
)

SPEC = InputSpec("image", "uint8", ("batch", 8, 8, 1), "NHWC", {"mode": "L", "resize": [8, 8]})


def manifest(version=1, name="digits", **changes):
    return Manifest(name, version, 3, ("a", "b", "c"), **{"input": SPEC, **changes})


@pytest.fixture
def repository(tmp_path):
    return ModelRepository(tmp_path / "models")


def test_a_version_comes_back_as_it_was_written(repository):
    calibrator = TemperatureCalibrator(3, 1.5)
    files = {"model.onnx": b"network", "calibrator.json": dumps_calibrator(calibrator)}
    written = repository.add(manifest(training={"seed": 0}), files)
    read = repository.get("digits", 1)
    assert read == written
    assert read.manifest.input == SPEC
    assert set(read.manifest.files) == set(files)
    assert read.calibrator() == calibrator
    assert read.onnx_path.read_bytes() == b"network"
    assert read.baseline() is None
    read.verify()


def test_an_empty_repository_has_nothing(repository):
    assert repository.models() == []
    assert repository.versions("digits") == []
    assert repository.next_version("digits") == 1
    with pytest.raises(ModelVersionNotFound, match="digits/1 is not in the repository"):
        repository.get("digits", 1)


def test_versions_are_sorted_as_numbers_and_strangers_are_ignored(repository):
    for version in (10, 9, 2):
        repository.add(manifest(version), {})
    for stray in ("digits/.3.abc.partial", "digits/04", "digits/latest", "digits/7", ".git/1"):
        (repository.root / stray).mkdir(parents=True)
    assert repository.models() == ["digits"]
    assert repository.versions("digits") == [2, 9, 10]
    assert repository.next_version("digits") == 11


def test_a_logits_only_model_has_the_identity(repository):
    version = repository.add(manifest(input=None), {})
    assert version.onnx_path is None
    assert version.manifest.input is None
    assert version.calibrator() == IdentityCalibrator(3)


def test_a_version_never_changes(repository):
    repository.add(manifest(), {"MODEL_CARD.md": b"first"})
    with pytest.raises(VersionExists, match="digits/1 exists, and versions never change"):
        repository.add(manifest(), {"MODEL_CARD.md": b"second"})
    assert (repository.get("digits", 1).path / "MODEL_CARD.md").read_bytes() == b"first"


def test_of_several_writers_one_wins_and_nothing_is_left_behind(repository):
    def write(content):
        try:
            repository.add(manifest(), {"MODEL_CARD.md": content})
        except VersionExists:
            return None
        return content

    with ThreadPoolExecutor(8) as pool:
        winners = [c for c in pool.map(write, [bytes([i]) * 1000 for i in range(16)]) if c]
    assert len(winners) == 1
    version = repository.get("digits", 1)
    version.verify()
    assert (version.path / "MODEL_CARD.md").read_bytes() == winners[0]
    assert [entry.name for entry in (repository.root / "digits").iterdir()] == ["1"]


def test_changed_missing_and_foreign_files_are_noticed(repository):
    version = repository.add(manifest(), {"model.onnx": b"network"})
    version.verify()
    (version.path / "calibrator.json").write_bytes(b"{}")
    with pytest.raises(DigestMismatch, match=r"calibrator\.json of digits/1 has no digest"):
        version.verify()
    (version.path / "model.onnx").write_bytes(b"other")
    with pytest.raises(DigestMismatch, match=r"model\.onnx of digits/1 does not match"):
        version.verify()
    (version.path / "model.onnx").unlink()
    with pytest.raises(DigestMismatch, match=r"model\.onnx of digits/1 is missing"):
        version.verify()


@pytest.mark.parametrize(
    "file", ["../x", "/a", "a/../b", "a//b", "a/", "", ".hidden", "manifest.json", "a..b"]
)
def test_files_have_plain_names(repository, file):
    with pytest.raises(InvalidInput, match="plain names"):
        repository.add(manifest(), {file: b""})
    assert repository.models() == []


@pytest.mark.parametrize("name", ["../digits", "", ".", "..", "a/b", "a..b", "é", "-x", "a" * 101])
def test_names_that_are_no_names_are_not_found(repository, name):
    repository.add(manifest(), {})
    assert repository.versions(name) == []
    with pytest.raises(ModelVersionNotFound):
        repository.get(name, 1)
    with pytest.raises(InvalidDocument, match=r"manifest\.name must be"):
        manifest(name=name)


@pytest.mark.parametrize("version", [0, -1, 10**12])
def test_numbers_that_are_no_versions_are_not_found(repository, version):
    with pytest.raises(ModelVersionNotFound):
        repository.get("digits", version)


def test_a_manifest_that_belongs_elsewhere_is_refused(repository):
    version = repository.add(manifest(), {})
    version.path.rename(version.path.with_name("2"))
    with pytest.raises(InvalidDocument, match="must be those of the directory, digits/2"):
        repository.get("digits", 2)


def test_a_calibrator_for_other_classes_is_refused(repository):
    data = dumps_calibrator(IdentityCalibrator(4))
    version = repository.add(manifest(), {"calibrator.json": data})
    with pytest.raises(InvalidDocument, match="must be the manifest's 3, got 4"):
        version.calibrator()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "d"), r"must be a, b, c, got a, b, d \(missing: c; not expected: d\)"),
        (("b", "a", "c"), "must be a, b, c, got b, a, c: the same classes in another order"),
        (("1", "2", "0"), "must be a, b, c, got 1, 2, 0"),
    ],
)
def test_a_calibrator_whose_class_names_contradict_the_manifest_is_refused(
    repository, names, message
):
    for version, given in ((1, names), (2, ("a", "b", "c")), (3, ("0", "1", "2"))):
        data = dumps_calibrator(TemperatureCalibrator(3, 2.0).with_class_names(given))
        added = repository.add(manifest(version), {"calibrator.json": data})
        if given != names:
            assert added.calibrator().class_names == given
            continue
        with pytest.raises(InvalidDocument, match=message):
            added.calibrator()


DOCUMENT = manifest().to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"manifest\.format must be 1"),
        ({"format": True}, r"manifest\.format must be 1"),
        ({"name": "a/b"}, r"manifest\.name must be"),
        ({"version": "1"}, r"manifest\.version must be a positive integer"),
        ({"version": True}, r"manifest\.version must be"),
        ({"task": "detection"}, r"manifest\.task must be 'classification'"),
        ({"n_classes": 1}, r"manifest\.n_classes must be"),
        ({"class_names": ["a", "b"]}, r"manifest\.class_names must be 3 distinct"),
        ({"class_names": ["a", "b", "b"]}, r"manifest\.class_names must be"),
        ({"class_names": ["a", "b", 3]}, r"manifest\.class_names must be"),
        ({"class_names": "abc"}, r"manifest\.class_names must be a list"),
        ({"input": []}, r"manifest\.input must be an object, got list"),
        ({"input": {}}, r"manifest\.input\.dtype is missing"),
        ({"input": {**DOCUMENT["input"], "shape": [0]}}, r"manifest\.input\.shape must be"),
        ({"input": {**DOCUMENT["input"], "name": 3}}, r"manifest\.input\.name must be a string"),
        ({"output": {}}, r"manifest\.output\.name is missing"),
        ({"output": {"name": 1}}, r"manifest\.output\.name must be a string"),
        ({"output": {"name": "y", "kind": "x"}}, r"manifest\.output\.kind must be logits or prob"),
        ({"files": {"model.onnx": "md5:0"}}, r"manifest\.files\.model\.onnx must be sha256"),
        (
            {"files": {"../x": "sha256:" + "0" * 64}},
            r"manifest\.files must be plain names of files",
        ),
        ({"scores": 3}, r"manifest\.scores must be an object"),
        ({"colour": "red"}, r"manifest\.colour is unknown"),
    ],
)
def test_manifests_that_do_not_follow_the_format_name_the_key(changes, message):
    with pytest.raises(InvalidDocument, match=message):
        Manifest.from_dict({**DOCUMENT, **changes})


@pytest.mark.parametrize("key", sorted(set(DOCUMENT) - {"training", "scores"}))
def test_missing_keys_are_named(key):
    document = {name: value for name, value in DOCUMENT.items() if name != key}
    with pytest.raises(InvalidDocument, match=rf"manifest\.{key}"):
        Manifest.from_dict(document)


def test_the_manifest_document_is_the_contracts():
    assert list(DOCUMENT) == [
        "format", "name", "version", "task", "n_classes", "class_names", "input", "output",
        "files", "training", "scores",
    ]  # fmt: skip
    assert Manifest.from_dict(json.loads(manifest().dumps())) == manifest()
    with pytest.raises(InvalidDocument, match="must be JSON"):
        Manifest.loads(b"{")
    with pytest.raises(InvalidDocument, match="without NaN"):
        manifest(scores={"ece": float("nan")}).dumps()


def test_the_kind_of_output_is_named_where_it_is_not_logits():
    assert manifest().to_dict()["output"] == {"name": "logits"}
    probabilities = manifest(output_name="p", output_kind="probabilities")
    assert probabilities.to_dict()["output"] == {"name": "p", "kind": "probabilities"}
    assert Manifest.loads(probabilities.dumps()) == probabilities


def test_a_baseline_comes_back(repository, overconfident):
    logits, labels = overconfident(200, 3)
    calibrator = fit(logits, labels, "temperature").calibrator
    baseline = Baseline.of(calibrator, logits, labels)
    assert baseline.n == 200
    assert baseline.gap_quantiles.shape == (101,)
    assert (np.diff(baseline.confidence_quantiles) >= 0).all()
    version = repository.add(manifest(), {"baseline.npz": baseline.to_bytes()})
    again = version.baseline()
    assert again.binned == baseline.binned
    assert np.array_equal(again.gap_quantiles, baseline.gap_quantiles)
    assert np.array_equal(again.confidence_quantiles, baseline.confidence_quantiles)


def test_what_is_no_baseline_is_refused():
    with pytest.raises(InvalidDocument, match="baseline must be a NumPy"):
        Baseline.from_bytes(b"hello")
    buffer = io.BytesIO()
    np.savez(buffer, gap_quantiles=np.zeros(101))
    with pytest.raises(InvalidDocument, match="baseline must hold count as 15 numbers"):
        Baseline.from_bytes(buffer.getvalue())
