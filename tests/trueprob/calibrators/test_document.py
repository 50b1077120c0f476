import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueprob import (
    CalibrationSet,
    FittedOn,
    IdentityCalibrator,
    InvalidDocument,
    SmartCalibrator,
    TemperatureCalibrator,
    dumps_calibrator,
    from_dict,
    loads_calibrator,
    to_dict,
)
from trueprob.arrays.logit_functions import logit_gap
from trueprob.calibrators import read_fitted_on

SMART = to_dict(SmartCalibrator(3, (1.0, 2.0), (0.1, 0.2, 0.3), 0.01))
SOURCE = {"digest": "sha256:00", "n": 4, "created_at": "2026-01-01T00:00:00+00:00"}


def changed(document, **changes):
    return {**document, **changes}


def with_parameters(**changes):
    return changed(SMART, parameters={**SMART["parameters"], **changes})


def with_gaps(**changes):
    gaps = {"gap_edges": [1.0, 2.0], "gap_counts": [1, 2, 1]}
    return changed(SMART, fitted_on={**SOURCE, **gaps, **changes})


def test_the_document_is_the_contracts():
    # sha256 of {"kind":"temperature","parameters":{"temperature":1.5}}, first 12 digits:
    # printf '%s' '…' | sha256sum
    source = FittedOn("sha256:00", 597, "2026-01-01T00:00:00+00:00")
    assert to_dict(TemperatureCalibrator(10, 1.5), source) == {
        "format": 1,
        "id": "temperature-2bc117f64130",
        "kind": "temperature",
        "n_classes": 10,
        "parameters": {"temperature": 1.5},
        "fitted_on": {"digest": "sha256:00", "n": 597, "created_at": "2026-01-01T00:00:00+00:00"},
    }
    assert SMART["parameters"]["second_stage"] is None


def test_class_names_are_part_of_the_document_and_of_the_id():
    plain = TemperatureCalibrator(3, 1.5)
    named = plain.with_class_names(["cat", "dog", "bird"])
    document = json.loads(dumps_calibrator(named))
    assert document["class_names"] == ["cat", "dog", "bird"]
    assert "class_names" not in to_dict(plain)
    assert from_dict(document) == named
    # printf '%s' '{"class_names":["cat","dog","bird"],"kind":…}' | sha256sum
    assert document["id"] == "temperature-ae93cdc9e44a"
    others = [named.with_class_names(names) for names in (["dog", "cat", "bird"], ["a", "b", "c"])]
    assert len({calibrator.id for calibrator in (plain, named, *others)}) == 4
    # The names 0, 1, 2 say no more than the order of the columns; in another order they do.
    assert plain.with_class_names(["0", "1", "2"]).id == plain.id
    assert plain.with_class_names(["1", "0", "2"]).id != plain.id
    assert named.with_class_names(None) == plain


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_temperatures_survive_bit_for_bit(value):
    data = dumps_calibrator(TemperatureCalibrator(2, value))
    assert loads_calibrator(data).value == value


def test_provenance_is_read_back():
    source = FittedOn("sha256:00", 3, "2026-01-01T00:00:00+00:00")
    document = json.loads(dumps_calibrator(IdentityCalibrator(2), source))
    assert read_fitted_on(document) == source
    assert read_fitted_on(to_dict(IdentityCalibrator(2))) is None


def test_the_gaps_of_the_set_are_read_back_and_are_not_in_the_id():
    logits = np.random.default_rng(0).normal(size=(305, 3)).astype(np.float32)
    labels, weights = np.zeros(305, dtype=np.int64), np.repeat([1.0, 0.0], [300, 5])
    source = FittedOn.of(CalibrationSet(logits, labels, weights), "2026-01-01T00:00:00+00:00")
    document = json.loads(dumps_calibrator(IdentityCalibrator(3), source))
    assert document["id"] == to_dict(IdentityCalibrator(3))["id"]
    assert (document["fitted_on"]["n"], document["fitted_on"]["gap_counts"]) == (305, [30] * 10)
    read = read_fitted_on(document)
    assert read is not None
    assert read.gaps is not None
    assert np.array_equal(read.gaps.counts(np.float64(logit_gap(logits[:300]))), [30] * 10)
    assert read.to_dict() == document["fitted_on"]
    loads_calibrator(json.dumps(document))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "calibrator must be an object, got list"),
        (changed(SMART, format=2), "calibrator format must be 1"),
        (changed(SMART, format=True), "calibrator format must be 1"),
        (changed(SMART, kind="magic"), "calibrator kind 'magic' is unknown, expected one of"),
        (
            changed(SMART, kind="smart-mlp-authors"),
            "calibrator kind 'smart-mlp-authors' is unknown, expected one of",
        ),
        (changed(SMART, kind=None), "calibrator kind NoneType is unknown"),
        (changed(SMART, extra=1), "calibrator has the unknown key 'extra'"),
        ({k: v for k, v in SMART.items() if k != "id"}, "must have the key 'id'"),
        (changed(SMART, n_classes=1), "n_classes must be an integer of at least 2"),
        (changed(SMART, n_classes="3"), "n_classes must be an integer of at least 2"),
        (changed(SMART, id="smart-000000000000"), "the document was altered"),
        (changed(SMART, class_names=["a", "b", "c"]), "the document was altered"),
        (changed(SMART, class_names=["a", "b"]), "class_names must name 3 classes, got 2: a, b"),
        (changed(SMART, class_names=["a", "b", "a"]), "a occurs twice"),
        (changed(SMART, class_names=["a", "b", 3]), "class_names must be a list of texts"),
        (changed(SMART, class_names=None), "class_names must be a list of texts"),
        (changed(SMART, parameters=None), "parameters must be an object"),
        (changed(SMART, fitted_on=3), "fitted_on must be an object or null"),
        (changed(SMART, fitted_on={"digest": "x"}), "fitted_on must have the key"),
        (with_gaps(gap_edges=[1.0, 1.0]), "gap_edges must ascend"),
        (with_gaps(gap_edges=[1.0]), "gap_counts must be positive integers, one more than"),
        (with_gaps(gap_counts=[1, 0, 1]), "gap_counts must be positive integers"),
        (with_gaps(gap_counts=[1, 1.5, 1]), "gap_counts must be positive integers"),
        (with_gaps(gap_counts=["1", 1, 1]), "gap_counts must be a number, got str"),
        (changed(SMART, fitted_on={**SOURCE, "gap_edges": []}), "must have the key 'gap_counts'"),
        (changed(SMART, fitted_on={**SOURCE, "gaps": []}), "has the unknown key 'gaps'"),
        (with_parameters(second_stage=3), "second_stage must be null or an object"),
        (with_parameters(second_stage={"knots": [0.0]}), "must have the key 'values'"),
        (with_parameters(second_stage={"knots": [], "values": []}), "at least 2"),
        (with_parameters(second_stage={"knots": [0.0, 1.0], "values": [0.0]}), "as many values"),
        (with_parameters(second_stage={"knots": [1.0, 0.0], "values": [0.0, 1.0]}), "knots must"),
        (with_parameters(second_stage={"knots": [0.0, 1.0], "values": [1.0, 1.0]}), "values must"),
        (with_parameters(edges=[2.0, 1.0]), "edges must be positive and increasing"),
        (with_parameters(edges=[0.0, 1.0]), "edges must be positive and increasing"),
        (with_parameters(edges=[1.0]), "log_slopes must have 2 numbers for 1 edges, got 3"),
        (with_parameters(edges="12"), "edges must be a list, got str"),
        (with_parameters(log_slopes=[0.0, 1.0, 1e9]), "log_slopes must lie within"),
        (with_parameters(log_slopes=[0.0, 1.0, float("nan")]), "log_slopes must be finite"),
        (with_parameters(log_slopes=[0.0, 1.0, True]), "log_slopes must be a number, got bool"),
        (with_parameters(uniform_weight=1.0), "uniform_weight must lie"),
        (with_parameters(uniform_weight=-0.1), "uniform_weight must lie"),
        (with_parameters(uniform_weight=10**400), "uniform_weight must be finite"),
    ],
)
def test_documents_that_do_not_follow_the_format_are_refused(document, message):
    with pytest.raises(InvalidDocument, match=message):
        from_dict(document)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"", b"[" * 100_000, '{"format": NaN}'])
def test_what_is_not_json_is_refused(data):
    with pytest.raises(InvalidDocument, match="calibrator must be JSON"):
        loads_calibrator(data)


@pytest.mark.parametrize("value", [0.0, -1.0, "1", None])
def test_temperatures_are_positive_numbers(value):
    document = changed(to_dict(TemperatureCalibrator(2, 1.0)), parameters={"temperature": value})
    with pytest.raises(InvalidDocument, match=r"parameters\.temperature must"):
        from_dict(document)
