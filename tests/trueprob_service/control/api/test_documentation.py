"""The OpenAPI document of the control routes, the Prefer header, and readiness."""

from __future__ import annotations

import pytest

from tests.trueprob_service.control.harness import World
from trueprob_service.control.api.documentation import wait_seconds

ROUTES = {
    "/v1/audit": {"get"},
    "/v1/models": {"get"},
    "/v1/models/{model}": {"delete", "get", "put"},
    "/v1/models/{model}/alarms": {"get"},
    "/v1/models/{model}/alarms/{alarm}/acknowledge": {"post"},
    "/v1/models/{model}/calibration": {"get"},
    "/v1/models/{model}/calibration-sets": {"get", "post"},
    "/v1/models/{model}/calibration-sets/{digest}": {"delete", "get"},
    "/v1/models/{model}/calibration-sets/{name}/rows": {"post"},
    "/v1/models/{model}/calibrators": {"get"},
    "/v1/models/{model}/calibrators/{calibrator}": {"get"},
    "/v1/models/{model}/calibrators/{calibrator}/promote": {"post"},
    "/v1/models/{model}/fits": {"get", "post"},
    "/v1/models/{model}/fits/{fit}": {"delete", "get"},
    "/v1/models/{model}/labels": {"post"},
    "/v1/models/{model}/promotions": {"get"},
    "/v1/models/{model}/rollback": {"post"},
    "/v1/models/{model}/shadow": {"delete", "get", "put"},
}


def test_every_route_is_described_with_its_errors(shared_world: World) -> None:
    document = shared_world.app.openapi()
    assert {path: set(verbs) for path, verbs in document["paths"].items()} == ROUTES
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            where = f"{verb} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert operation["tags"], where
            errors = {s: r for s, r in operation["responses"].items() if int(s) >= 400}
            assert "503" in errors, where
            for response in errors.values():
                assert set(response["content"]) == {"application/problem+json"}, where
            for parameter in operation.get("parameters", []):
                assert parameter["description"], f"{where}: {parameter['name']}"


def test_bodies_are_described(shared_world: World) -> None:
    paths = shared_world.app.openapi()["paths"]
    upload = paths["/v1/models/{model}/calibration-sets"]["post"]["requestBody"]["content"]
    assert set(upload) == {
        "application/x-npz",
        "application/octet-stream",
        "application/zip",
        "application/json",
        "text/csv",
        "multipart/form-data",
    }
    labels = paths["/v1/models/{model}/labels"]["post"]["requestBody"]["content"]
    of_receipts, of_ids, of_pairs, of_rows = labels["application/json"]["schema"]["anyOf"]
    assert set(of_receipts["properties"]) == {"prediction_ids", "labels"}
    assert set(of_ids["properties"]) == {"ids", "labels"}
    assert set(of_pairs["properties"]["labels"]["items"]["properties"]) == {"id", "label"}
    row = of_rows["properties"]["rows"]["items"]
    assert set(row["properties"]) == {"id", "logits", "label", "group"}


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None),
        ("", None),
        ("respond-async", None),
        ("wait=30", 30.0),
        ("respond-async, wait=5", 5.0),
        ('Wait = "7"', 7.0),
        ("wait=9999", 60.0),
        ("wait=soon", None),
        ("await=3", None),
    ],
)
def test_prefer_is_read_as_rfc_7240_says(prefer: str | None, seconds: float | None) -> None:
    assert wait_seconds(prefer) == seconds


def test_readiness_and_routes_before_and_after(sqlite_world: World) -> None:
    assert sqlite_world.plane.ready() == {
        "status": "ok",
        "database": "ok",
        "files": "ok",
        "unavailable": 0,
    }
    sqlite_world.plane.close()
    assert sqlite_world.call("GET", "/v1/models").status_code == 503
    assert sqlite_world.plane.label_statistics().pairs == ()
