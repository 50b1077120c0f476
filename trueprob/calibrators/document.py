"""Reader and writer of `calibrator.json`, exact to the bit.

    {"format": 1, "id": "smart-3f9a1c0d2b7e", "kind": "smart", "n_classes": 3, "parameters": {},
     "class_names": ["cat", "dog", "bird"],
     "fitted_on": {"digest": "sha256:…", "n": 597, "created_at": "…",
                   "gap_edges": [0.31, …], "gap_counts": [60, …]}}

`fitted_on` is null for a calibrator that was fitted on nothing; earlier documents have no bins of
the logit gaps in it. One without class names has no `class_names`, one without an input stage no
`input_stage`: {"zeros": {"mass": […], "class_frequencies": […]}, "clip": 430.6}, either of the two
null; only where they are set, it has "mask_below": -1e9 and "zeros_are_masks": true. One that was
made without its rows has no `uncertainty` (see `uncertainty`), which the id does not cover. Unknown
formats, kinds and keys are refused, and so is an id that does not match the content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.logit_functions import logit_gap
from trueprob.calibrators.base import Calibrator
from trueprob.calibrators.input_stage import InputStage
from trueprob.calibrators.parameters import numbers, require_keys
from trueprob.calibrators.published_smart.smart_mlp import SmartMlpCalibrator
from trueprob.calibrators.stack import MEMBER_KINDS, StackCalibrator
from trueprob.calibrators.uncertainty import Uncertainty
from trueprob.drift.reference_bins import ReferenceBins
from trueprob.errors import InvalidDocument, InvalidInput

__all__ = [
    "KINDS",
    "FittedOn",
    "dumps_calibrator",
    "from_dict",
    "loads_calibrator",
    "read_fitted_on",
    "to_dict",
]

FORMAT: Final = 1
KEYS: Final = ("format", "id", "kind", "n_classes", "parameters", "fitted_on")
OPTIONAL: Final = frozenset({"class_names", "input_stage", "uncertainty"})
GAPS: Final = ("gap_edges", "gap_counts")
KINDS: Final[Mapping[str, type[Calibrator]]] = MappingProxyType(
    {**MEMBER_KINDS, **{kind.kind: kind for kind in (SmartMlpCalibrator, StackCalibrator)}}
)


@dataclass(frozen=True)
class FittedOn:
    """The calibration set that a calibrator was fitted on.

    Attributes
    ----------
    digest : str
        ``sha256:…`` of the set.
    n : int
        Rows.
    created_at : str
        ISO 8601, as given by the caller.
    gaps : ReferenceBins or None
        Logit gaps of its rows; None in documents of earlier versions.
    """

    digest: str
    n: int
    created_at: str
    gaps: ReferenceBins | None = None

    @classmethod
    def of(
        cls, rows: CalibrationSet, created_at: str, *, masks: InputStage | None = None
    ) -> FittedOn:
        """Describe a calibration set; rows of weight 0 and masked classes are not in the gaps."""
        used = rows.logits if rows.weights is None else rows.logits[rows.weights > 0.0]
        gap = logit_gap(used if masks is None else masks.masked(used))
        return cls(rows.digest, rows.n, created_at, ReferenceBins.of_values(gap))

    def to_dict(self) -> dict[str, Any]:
        """The value of `fitted_on`."""
        document = {"digest": self.digest, "n": self.n, "created_at": self.created_at}
        if self.gaps is None:
            return document
        counts = np.rint(self.gaps.shares * self.gaps.n).astype(int).tolist()
        return {**document, "gap_edges": self.gaps.edges.tolist(), "gap_counts": counts}


def to_dict(calibrator: Calibrator, fitted_on: FittedOn | None = None) -> dict[str, Any]:
    """Turn a calibrator into its document, a dictionary of JSON values; see `from_dict`."""
    names, stage = calibrator.class_names, calibrator.input_stage
    uncertainty = calibrator.uncertainty
    return {
        "format": FORMAT,
        "id": calibrator.id,
        "kind": calibrator.kind,
        "n_classes": calibrator.n_classes,
        **({} if names is None else {"class_names": list(names)}),
        "parameters": calibrator.parameters(),
        **({} if stage is None else {"input_stage": stage.parameters()}),
        **({} if uncertainty is None else {"uncertainty": uncertainty.parameters()}),
        "fitted_on": None if fitted_on is None else fitted_on.to_dict(),
    }


def from_dict(document: object) -> Calibrator:
    """Read a calibrator from its document.

    Parameters
    ----------
    document : mapping
        As `to_dict` writes it.

    Returns
    -------
    Calibrator

    Raises
    ------
    InvalidDocument
        Unknown format, kind or key, a parameter out of its range, an id that does not match.
    """
    checked = _checked(document)
    kind = checked["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        shown = repr(kind[:40]) if isinstance(kind, str) else type(kind).__name__
        raise InvalidDocument(
            f"calibrator kind {shown} is unknown, expected one of {', '.join(sorted(KINDS))}"
        )
    n_classes = checked["n_classes"]
    if isinstance(n_classes, bool) or not isinstance(n_classes, int) or n_classes < 2:
        raise InvalidDocument("calibrator n_classes must be an integer of at least 2")
    parameters = checked["parameters"]
    if not isinstance(parameters, Mapping):
        raise InvalidDocument("calibrator parameters must be an object")
    calibrator: Calibrator = KINDS[kind].from_parameters(n_classes, parameters)
    if "input_stage" in checked:
        stage = InputStage.from_parameters(n_classes, checked["input_stage"])
        calibrator = replace(calibrator, input_stage=stage)
    if "class_names" in checked:
        names = checked["class_names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidDocument("calibrator class_names must be a list of texts")
        try:
            calibrator = calibrator.with_class_names(names)
        except InvalidInput as error:
            raise InvalidDocument(f"calibrator {error.message}") from None
    if "uncertainty" in checked:
        uncertainty = Uncertainty.from_parameters(checked["uncertainty"])
        calibrator = replace(calibrator, uncertainty=uncertainty)
    if checked["id"] != calibrator.id:
        raise InvalidDocument(
            f"calibrator id must be {calibrator.id} for this content: the document was altered"
        )
    read_fitted_on(checked)
    return calibrator


def read_fitted_on(document: object) -> FittedOn | None:
    """`fitted_on` of a calibrator document, None when null; InvalidDocument when malformed."""
    value = _checked(document)["fitted_on"]
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidDocument("calibrator fitted_on must be an object or null")
    keys = ("digest", "n", "created_at")
    has_gaps = not value.keys().isdisjoint(GAPS)
    require_keys(value, (*keys, *GAPS) if has_gaps else keys, where="calibrator fitted_on")
    digest, n, created_at = value["digest"], value["n"], value["created_at"]
    if not isinstance(digest, str) or not isinstance(created_at, str):
        raise InvalidDocument("calibrator fitted_on digest and created_at must be strings")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InvalidDocument("calibrator fitted_on n must be a positive integer")
    return FittedOn(digest, n, created_at, _gaps(value) if has_gaps else None)


def _gaps(value: Mapping[str, Any]) -> ReferenceBins:
    edges, counts = (np.array(numbers(value, key, where="calibrator fitted_on")) for key in GAPS)
    if not (np.diff(edges) > 0.0).all():
        raise InvalidDocument("calibrator fitted_on gap_edges must ascend")
    if counts.size != edges.size + 1 or (counts < 1.0).any() or (counts % 1.0).any():
        raise InvalidDocument(
            "calibrator fitted_on gap_counts must be positive integers, one more than gap_edges"
        )
    return ReferenceBins(edges, counts / counts.sum(), float(counts.sum()))


def dumps_calibrator(calibrator: Calibrator, fitted_on: FittedOn | None = None) -> bytes:
    """Write `calibrator.json` as bytes: UTF-8, indented, ending with a newline."""
    text = json.dumps(to_dict(calibrator, fitted_on), indent=1, allow_nan=False)
    return text.encode() + b"\n"


def loads_calibrator(data: bytes | str) -> Calibrator:
    """Read `calibrator.json`.

    Parameters
    ----------
    data : bytes or str

    Returns
    -------
    Calibrator

    Raises
    ------
    InvalidDocument
        Not JSON, or not a calibrator document.
    """
    return from_dict(parse_json(data, "calibrator"))


def parse_json(data: bytes | str, what: str) -> object:
    """Parse JSON without NaN and infinities; InvalidDocument names the document."""

    def refuse(constant: str) -> None:
        raise InvalidDocument(f"{what} must be JSON, which does not allow {constant}")

    try:
        document: object = json.loads(data, parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidDocument(f"{what} must be JSON, but cannot be parsed{where}") from None
    return document


def _checked(document: object) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise InvalidDocument(f"calibrator must be an object, got {type(document).__name__}")
    version = document.get("format")
    if isinstance(version, bool) or version != FORMAT:
        raise InvalidDocument(f"calibrator format must be {FORMAT}, got another format")
    require_keys(document, {*KEYS, *(OPTIONAL & set(document))}, where="calibrator")
    return document
