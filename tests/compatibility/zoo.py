"""Classifiers as people convert them to ONNX: scikit-learn, boosting and torch, with their data.

Each entry trains a small classifier, converts it by the usual call of its converter, and knows
what the library itself says about the same rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ZOO", "Entry", "Trained"]

NAMES = ("cat", "dog", "eel")
CALIBRATION_ROWS, TEST_ROWS = 300, 40


@dataclass(frozen=True)
class Trained:
    """A converted classifier, rows for it, and its own scores of the test rows."""

    inputs: dict[str, NDArray[Any]]  # of the calibration and test rows, by the graph's names
    labels: NDArray[Any]  # of the same rows, as the user has them
    probabilities: NDArray[np.float64]  # of the same rows, by the library that trained it
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One line of the table."""

    id: str
    library: str
    classifier: str
    converter: str
    build: Callable[[Path], Trained]  # writes the ONNX file
    register: tuple[str, ...] = ()  # flags of `trueprob-service register`
    export: tuple[str, ...] = ()  # flags of `trueprob export-onnx`


@cache
def _table(n_classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows of eight numbers, with classes that overlap."""
    from sklearn.datasets import make_classification

    rows, labels = make_classification(
        600 + CALIBRATION_ROWS + TEST_ROWS, 8, n_informative=6, n_classes=n_classes, flip_y=0.1,
        random_state=3,
    )  # fmt: skip
    return rows.astype(np.float32), labels


def _sklearn(
    path: Path,
    make: Callable[[], Any],
    *,
    n_classes: int = 3,
    named: bool = False,
    options: dict[str, Any] | None = None,
    scores: Callable[[Any, NDArray[Any]], NDArray[Any]] | None = None,
) -> Trained:
    from skl2onnx import to_onnx

    rows, labels = _table(n_classes)
    names = NAMES[:n_classes] if named else tuple(map(str, range(n_classes)))
    given = np.array(names)[labels] if named else labels
    model = make().fit(rows[:600], given[:600])
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    graph = to_onnx(
        model,
        rows[:1],
        options=None if options is None else {id(last): options},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    path.write_bytes(graph.SerializeToString())
    said = model.predict_proba(rows[600:]) if scores is None else scores(model, rows[600:])
    return Trained({"rows": rows[600:]}, given[600:], said.astype(np.float64), names)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def _scaled_logistic() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), _logistic())


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(20, max_depth=6, random_state=0)


def _extra_trees() -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(20, max_depth=6, random_state=0)


def _boosting() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=10, random_state=0)


def _tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=5, random_state=0)


def _bayes() -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB()


def _neighbours() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(7)


def _perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((16,), alpha=1.0, solver="lbfgs", max_iter=2000, random_state=0)


def _discriminant() -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis()


def _linear_svc() -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC()


def _softmax_of_margins(model: Any, rows: NDArray[Any]) -> NDArray[Any]:
    margins = model.decision_function(rows)
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    result: NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
    return result


def _xgboost(path: Path, *, n_classes: int) -> Trained:
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    rows, labels = _table(n_classes)
    model = xgboost.XGBClassifier(n_estimators=12, max_depth=3).fit(rows[:600], labels[:600])
    graph = onnxmltools.convert_xgboost(
        model, initial_types=[("x", FloatTensorType([None, 8]))], target_opset=15
    )
    path.write_bytes(graph.SerializeToString())
    said = model.predict_proba(rows[600:]).astype(np.float64)
    names = tuple(map(str, range(n_classes)))
    return Trained({"rows": rows[600:]}, labels[600:], said, names)


def _lightgbm(path: Path, *, n_classes: int, zipmap: bool) -> Trained:
    import lightgbm
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    rows, labels = _table(n_classes)
    model = lightgbm.LGBMClassifier(n_estimators=12, verbose=-1, n_jobs=1)
    model.fit(rows[:600], labels[:600])
    graph = onnxmltools.convert_lightgbm(
        model, initial_types=[("x", FloatTensorType([None, 8]))], target_opset=15, zipmap=zipmap
    )
    path.write_bytes(graph.SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of arrays without the names of the fit
        said = model.predict_proba(rows[600:])
    names = tuple(map(str, range(n_classes)))
    return Trained({"rows": rows[600:]}, labels[600:], np.asarray(said, np.float64), names)


def _trained(network: Any, inputs: Any, labels: NDArray[Any], loss: Any, steps: int = 60) -> None:
    import torch

    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(network(*inputs), torch.from_numpy(labels)).backward()
        optimiser.step()
    network.eval()


def _exported(network: Any, inputs: tuple[Any, ...], path: Path, names: list[str]) -> None:
    """By the exporter of TorchScript, since torch.export takes seconds a network."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, inputs, str(path), input_names=names, output_names=["logits"],
            dynamic_axes={name: {0: "batch"} | ({1: "length"} if len(names) > 1 else {})
                          for name in names} | {"logits": {0: "batch"}},
            opset_version=18, dynamo=False,
        )  # fmt: skip


def _softmax(logits: Any) -> NDArray[np.float64]:
    result: NDArray[np.float64] = logits.double().softmax(1).detach().numpy()
    return result


def _torch_rows(path: Path, *, end: str) -> Trained:
    """A perceptron; for two classes ``end`` is `logit`, `sigmoid` or `flat sigmoid`."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    n_classes = 3 if end == "logits" else 2
    rows, labels = _table(n_classes)
    width = n_classes if end == "logits" else 1
    body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, width))
    given = torch.from_numpy(rows)
    if end == "logits":
        _trained(body, (given[:600],), labels[:600], nn.functional.cross_entropy)
        said = _softmax(body(given[600:]))
        network: nn.Module = body
    else:

        def loss(z: Any, y: Any) -> Any:
            return nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.float())

        _trained(body, (given[:600],), labels[:600], loss)
        positive = body(given[600:]).double().sigmoid().detach().numpy()
        said = np.concatenate([1.0 - positive, positive], axis=1)
        tail = {"logit": (), "sigmoid": (nn.Sigmoid(),), "flat sigmoid": (nn.Sigmoid(),)}[end]
        network = nn.Sequential(body, *tail, *((nn.Flatten(0),) if end.startswith("flat") else ()))
    _exported(network, (given[:2],), path, ["x"])
    names = tuple(map(str, range(n_classes)))
    return Trained({"rows": rows[600:]}, labels[600:], said, names)


def _torch_two_files(path: Path) -> Trained:
    """With the weights in a second file, as torch's exporter and large models have them."""
    import onnx

    trained = _torch_rows(path, end="logits")
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location=f"{path.name}.data",
        size_threshold=0,
    )  # fmt: skip
    return trained


def _torch_pictures(path: Path) -> Trained:
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.manual_seed(0)
    digits = load_digits()
    pixels = (digits.images * 15.9).astype(np.uint8)[:1500, :, :, None]
    labels = digits.target[:1500].astype(np.int64)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    _trained(network, (scaled[:1000],), labels[:1000], nn.functional.cross_entropy, steps=30)
    _exported(network, (scaled[:2],), path, ["pictures"])
    used = slice(1000, 1000 + CALIBRATION_ROWS + TEST_ROWS)
    names = tuple(map(str, range(10)))
    return Trained({"images": pixels[used]}, labels[used], _softmax(network(scaled[used])), names)


def _torch_tokens(path: Path) -> Trained:
    """A transformer encoder of token ids; it pools over the tokens that the mask keeps."""
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(30, 16)
            self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
            self.feed = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU())
            self.head = nn.Linear(32, 3)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            x = self.tokens(input_ids)
            kept = attention_mask.to(x.dtype)
            scores = self.query(x) @ self.key(x).transpose(1, 2) / 4.0
            scores = scores + (kept[:, None, :] - 1.0) * 1e4
            x = x + scores.softmax(-1) @ self.value(x)
            pooled = (self.feed(x) * kept[:, :, None]).sum(1) / kept.sum(1, keepdim=True)
            return self.head(pooled)

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    n = 600 + CALIBRATION_ROWS + TEST_ROWS
    ids = rng.integers(1, 30, (n, 12))
    length = rng.integers(4, 13, n)
    mask = (np.arange(12) < length[:, None]).astype(np.int64)
    ids *= mask
    signal = np.stack([((ids % 3 == c) * mask).sum(1) for c in range(3)], axis=1)
    labels = (signal + rng.gumbel(size=signal.shape)).argmax(axis=1).astype(np.int64)
    network = Encoder()
    tensors = torch.from_numpy(ids), torch.from_numpy(mask)
    _trained(network, tuple(t[:600] for t in tensors), labels[:600], nn.functional.cross_entropy)
    _exported(network, tuple(t[:2] for t in tensors), path, ["input_ids", "attention_mask"])
    held = tuple(t[600:] for t in tensors)
    inputs = {"input_ids": ids[600:], "attention_mask": mask[600:]}
    return Trained(inputs, labels[600:], _softmax(network(*held)), ("0", "1", "2"))


_TENSOR = {"zipmap": False}
_logits, _probabilities = ("--input", "logits"), ("--input", "probabilities")

ZOO: tuple[Entry, ...] = (
    Entry("logistic", "scikit-learn", "LogisticRegression", "skl2onnx, zipmap=False",
          partial(_sklearn, make=_logistic, options=_TENSOR)),
    Entry("logistic-zipmap", "scikit-learn", "LogisticRegression, text classes",
          "skl2onnx, ZipMap (its default)", partial(_sklearn, make=_logistic, named=True)),
    Entry("pipeline-binary", "scikit-learn", "StandardScaler and LogisticRegression, two classes",
          "skl2onnx, zipmap=False",
          partial(_sklearn, make=_scaled_logistic, n_classes=2, options=_TENSOR)),
    Entry("forest", "scikit-learn", "RandomForestClassifier", "skl2onnx, zipmap=False",
          partial(_sklearn, make=_forest, options=_TENSOR), export=_probabilities),
    Entry("forest-zipmap-binary", "scikit-learn", "RandomForestClassifier, two text classes",
          "skl2onnx, ZipMap", partial(_sklearn, make=_forest, n_classes=2, named=True),
          export=_probabilities),
    Entry("extra-trees", "scikit-learn", "ExtraTreesClassifier", "skl2onnx, zipmap=False",
          partial(_sklearn, make=_extra_trees, options=_TENSOR), export=_probabilities),
    Entry("gradient-boosting", "scikit-learn", "GradientBoostingClassifier",
          "skl2onnx, zipmap=False", partial(_sklearn, make=_boosting, options=_TENSOR)),
    Entry("tree", "scikit-learn", "DecisionTreeClassifier", "skl2onnx, ZipMap",
          partial(_sklearn, make=_tree), export=_probabilities),
    Entry("naive-bayes", "scikit-learn", "GaussianNB", "skl2onnx, ZipMap",
          partial(_sklearn, make=_bayes), export=_probabilities),
    Entry("neighbours", "scikit-learn", "KNeighborsClassifier", "skl2onnx, zipmap=False",
          partial(_sklearn, make=_neighbours, options=_TENSOR), export=_probabilities),
    Entry("perceptron", "scikit-learn", "MLPClassifier", "skl2onnx, zipmap=False",
          partial(_sklearn, make=_perceptron, options=_TENSOR)),
    Entry("discriminant", "scikit-learn", "LinearDiscriminantAnalysis", "skl2onnx, ZipMap",
          partial(_sklearn, make=_discriminant)),
    Entry("linear-svc", "scikit-learn", "LinearSVC", "skl2onnx, raw_scores=True",
          partial(_sklearn, make=_linear_svc, options={"raw_scores": True},
                  scores=_softmax_of_margins), export=_logits),
    Entry("xgboost", "XGBoost", "XGBClassifier", "onnxmltools", partial(_xgboost, n_classes=3)),
    Entry("xgboost-binary", "XGBoost", "XGBClassifier, two classes", "onnxmltools",
          partial(_xgboost, n_classes=2)),
    Entry("lightgbm", "LightGBM", "LGBMClassifier", "onnxmltools, ZipMap (its default)",
          partial(_lightgbm, n_classes=3, zipmap=True)),
    Entry("lightgbm-binary", "LightGBM", "LGBMClassifier, two classes", "onnxmltools, zipmap=False",
          partial(_lightgbm, n_classes=2, zipmap=False), export=_probabilities),
    Entry("torch-rows", "torch", "perceptron, logits", "torch.onnx.export",
          partial(_torch_rows, end="logits")),
    Entry("torch-two-files", "torch", "perceptron, weights in a second file",
          "torch.onnx.export, external data", _torch_two_files),
    Entry("torch-pictures", "torch", "convolutional network of pictures", "torch.onnx.export",
          _torch_pictures, ("--layout", "NCHW", "--mode", "L", "--mean", "0", "--std", "1")),
    Entry("torch-one-logit", "torch", "perceptron, one logit for two classes", "torch.onnx.export",
          partial(_torch_rows, end="logit")),
    Entry("torch-sigmoid", "torch", "perceptron, sigmoid of shape (n, 1)", "torch.onnx.export",
          partial(_torch_rows, end="sigmoid")),
    Entry("torch-flat-sigmoid", "torch", "perceptron, sigmoid of shape (n,)", "torch.onnx.export",
          partial(_torch_rows, end="flat sigmoid")),
    Entry("torch-tokens", "torch", "transformer of token ids with a mask", "torch.onnx.export",
          _torch_tokens),
)  # fmt: skip
