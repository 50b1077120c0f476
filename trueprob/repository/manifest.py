"""`manifest.json`: the description of a model version (format: docs/service.md#model-repository).

Every error is an InvalidDocument that names the key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from trueprob.calibrators.document import parse_json
from trueprob.errors import InvalidDocument

__all__ = ["InputSpec", "Manifest", "valid_model_name"]

FORMAT: Final = 1
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
PART: Final = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
FILE_NAME: Final = re.compile(f"{PART}(/{PART}){{0,7}}")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
KEYS: Final = frozenset(
    ("format", "name", "version", "task", "n_classes", "class_names", "input", "output", "files")
)
OPTIONAL: Final = frozenset(("inputs", "training", "scores"))
OUTPUT_KINDS: Final = ("logits", "probabilities")
INPUT_KEYS: Final = frozenset(("name", "dtype", "shape", "layout", "preprocessing"))


@dataclass(frozen=True)
class InputSpec:
    """An input tensor of a network, and how an image becomes one.

    Attributes
    ----------
    name : str
        Name of the input in the ONNX graph.
    dtype : str
        NumPy name of the type, such as ``uint8``.
    shape : tuple of str or int
        A string is a free dimension, such as ``"batch"``.
    layout : str
        ``NHWC`` or ``NCHW`` for images; any text otherwise.
    preprocessing : mapping
        How images are decoded, such as ``{"mode": "L", "resize": [8, 8]}``.
    """

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    layout: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The description of a model version.

    Attributes
    ----------
    name : str
        Name of the model.
    version : int
        Positive.
    n_classes : int
        At least 2.
    class_names : tuple of str
        Distinct names, in the order of the classes.
    input : InputSpec or None
        None for a logits-only model, whose network is not in the repository, and for a network
        of several inputs.
    inputs : tuple of InputSpec
        All inputs of a network of several, at least two; otherwise empty. The document has this
        key only then.
    output_name : str
        Name of the output in the ONNX graph.
    output_kind : {"logits", "probabilities"}
        What the output holds. The document has this key only for probabilities.
    files : mapping of file name to ``sha256:…``
        Digests of the files; `ModelRepository.add` fills them in.
    training, scores : mapping
        Any JSON: how the network was trained, and the scores it reached.
    task : str
        Only ``classification``.
    """

    name: str
    version: int
    n_classes: int
    class_names: tuple[str, ...]
    input: InputSpec | None = None
    inputs: tuple[InputSpec, ...] = ()
    output_name: str = "logits"
    output_kind: str = "logits"
    files: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    task: str = "classification"

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        _check(
            valid_model_name(self.name), "name", "letters, digits, '_', '.' and '-', at most 100"
        )
        _check(_is_count(self.version, 1), "version", "a positive integer")
        _check(self.task == "classification", "task", "'classification'")
        _check(_is_count(self.n_classes, 2), "n_classes", "an integer of at least 2")
        names = self.class_names
        _check(
            len(names) == self.n_classes
            and all(map(_is_text, names))
            and len(set(names)) == len(names)
            and not any("\0" in name for name in names),
            "class_names",
            f"{self.n_classes} distinct, non-empty strings without NUL",
        )
        object.__setattr__(self, "inputs", tuple(self.inputs))
        _check(
            not self.inputs
            or (
                len({spec.name for spec in self.inputs}) == len(self.inputs) >= 2
                and self.input is None
            ),
            "inputs",
            "at least two inputs of different names, with input null",
        )
        _check(isinstance(self.output_name, str), "output.name", "a string")
        _check(self.output_kind in OUTPUT_KINDS, "output.kind", " or ".join(OUTPUT_KINDS))
        for name, digest in self.files.items():
            _check(valid_file_name(name), "files", "plain names of files or relative paths")
            _check(
                _is_text(digest) and DIGEST.fullmatch(digest) is not None,
                f"files.{name}",
                "sha256: and 64 hex digits",
            )

    @property
    def network_inputs(self) -> tuple[InputSpec, ...]:
        """All inputs of the network; empty for a logits-only model."""
        return self.inputs if self.input is None else (self.input,)

    def with_files(self, files: Mapping[str, str]) -> Manifest:
        """A copy with these digests."""
        return replace(self, files=dict(files))

    def to_dict(self) -> dict[str, Any]:
        """The manifest as a JSON document."""
        kind = self.output_kind
        inputs = {"inputs": list(map(_input_document, self.inputs))} if self.inputs else {}
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "task": self.task,
            "n_classes": self.n_classes,
            "class_names": list(self.class_names),
            "input": None if self.input is None else _input_document(self.input),
            **inputs,
            "output": {"name": self.output_name} | ({} if kind == "logits" else {"kind": kind}),
            "files": dict(self.files),
            "training": dict(self.training),
            "scores": dict(self.scores),
        }

    def dumps(self) -> bytes:
        """The content of `manifest.json`."""
        try:
            text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            raise InvalidDocument(
                "manifest.training and manifest.scores must be JSON without NaN"
            ) from None
        return text.encode() + b"\n"

    @classmethod
    def loads(cls, data: bytes | str) -> Manifest:
        """Read the content of a `manifest.json`; InvalidDocument names a wrong key."""
        return cls.from_dict(parse_json(data, "manifest"))

    @classmethod
    def from_dict(cls, document: object) -> Manifest:
        """Read a manifest from a JSON document.

        Raises
        ------
        InvalidDocument
            A key is missing, unknown or has a wrong value.
        """
        if not isinstance(document, Mapping):
            raise InvalidDocument(f"manifest must be an object, got {type(document).__name__}")
        version = document.get("format")
        _check(version == FORMAT and not isinstance(version, bool), "format", str(FORMAT))
        _require(document, KEYS, OPTIONAL, "manifest")
        output = _mapping(document["output"], "output")
        _require(output, frozenset(("name",)), frozenset(("kind",)), "manifest.output")
        names = document["class_names"]
        _check(isinstance(names, list | tuple), "class_names", "a list")
        inputs = document.get("inputs", ())
        _check(isinstance(inputs, list | tuple), "inputs", "a list")
        return cls(
            name=document["name"],
            version=document["version"],
            task=document["task"],
            n_classes=document["n_classes"],
            class_names=tuple(names),
            input=None if document["input"] is None else _input(document["input"], "input"),
            inputs=tuple(_input(spec, f"inputs[{i}]") for i, spec in enumerate(inputs)),
            output_name=output["name"],
            output_kind=output.get("kind", "logits"),
            files=dict(_mapping(document["files"], "files")),
            training=dict(_mapping(document.get("training", {}), "training")),
            scores=dict(_mapping(document.get("scores", {}), "scores")),
        )


def valid_model_name(name: object) -> bool:
    """Whether a model may have this name, which becomes the name of a directory."""
    return isinstance(name, str) and MODEL_NAME.fullmatch(name) is not None and ".." not in name


def valid_file_name(name: object) -> bool:
    """Whether a file of a version may have this name: a plain one, or a relative path of such."""
    return isinstance(name, str) and FILE_NAME.fullmatch(name) is not None and ".." not in name


def _input_document(spec: InputSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "layout": spec.layout,
        "preprocessing": dict(spec.preprocessing),
    }


def _input(value: object, key: str) -> InputSpec:
    spec = _mapping(value, key)
    _require(spec, INPUT_KEYS, frozenset(), f"manifest.{key}")
    for name in ("name", "dtype", "layout"):
        _check(isinstance(spec[name], str), f"{key}.{name}", "a string")
    shape = spec["shape"]
    _check(
        isinstance(shape, list | tuple)
        and all(isinstance(size, str) or _is_count(size, 1) for size in shape),
        f"{key}.shape",
        "a list of positive integers and names",
    )
    preprocessing = _mapping(spec["preprocessing"], f"{key}.preprocessing")
    return InputSpec(spec["name"], spec["dtype"], tuple(shape), spec["layout"], dict(preprocessing))


def _check(condition: bool, key: str, expected: str) -> None:
    if not condition:
        raise InvalidDocument(f"manifest.{key} must be {expected}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _mapping(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidDocument(f"manifest.{key} must be an object, got {type(value).__name__}")
    return value


def _require(
    document: Mapping[str, Any], keys: frozenset[str], optional: frozenset[str], where: str
) -> None:
    missing = sorted(keys - set(document))
    if missing:
        raise InvalidDocument(f"{where}.{missing[0]} is missing")
    unknown = sorted(str(key) for key in set(document) - keys - optional)
    if unknown:
        raise InvalidDocument(f"{where}.{unknown[0]} is unknown")
