"""The OpenAPI document: what it says of all routes, and that the service is as it says."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration_requirements import require_module
from tests.running_service import ROOT, running_service
from tests.trueprob_service.application import application
from trueprob_service.edge.access import SCOPES
from trueprob_service.edge.keys import new_key
from trueprob_service.openapi_document import SCHEME, operations

OPEN = {"/metrics", "/v2/health/live", "/v2/health/ready"}
PROBLEM = "application/problem+json"


def document(tmp_path: Path, key: str = "", **settings: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"}

    async def scenario() -> dict[str, Any]:
        async with application(tmp_path / "state", **settings) as client:
            first = (await client.get("/openapi.json", headers=headers)).json()
            assert first == (await client.get("/openapi.json", headers=headers)).json()
            found: dict[str, Any] = first
            return found

    return asyncio.run(scenario())


def keys(folder: Path) -> tuple[str, Path]:
    """A key that may do everything, and the file that the service reads."""
    key, line = new_key("someone", SCOPES)
    file = folder / "keys.jsonl"
    file.write_text(line)
    return key, file


@pytest.mark.parametrize("everywhere", [True, False])
def test_with_keys_every_route_says_whether_it_needs_one(everywhere: bool, tmp_path: Path) -> None:
    key, file = keys(tmp_path)
    found = document(tmp_path, key, api_keys_file=file, require_key_everywhere=everywhere)
    assert found["components"]["securitySchemes"][SCHEME]["scheme"] == "bearer"
    for method, path, operation in operations(found):
        needed = everywhere or path not in OPEN
        assert operation.get("security") == ([{SCHEME: []}] if needed else None), path
        assert ("401" in operation["responses"]) == needed, (method, path)
        assert ("403" in operation["responses"]) == (needed or method != "GET"), (method, path)


def test_without_keys_no_route_needs_one(tmp_path: Path) -> None:
    found = document(tmp_path)
    assert SCHEME in found["components"]["securitySchemes"]
    for _, path, operation in operations(found):
        assert "security" not in operation
        assert "401" not in operation["responses"], path


def test_errors_before_a_route_are_in_its_description(tmp_path: Path) -> None:
    for method, path, operation in operations(document(tmp_path)):
        expected = {"421", *(() if method == "GET" else ("403",))}
        if "requestBody" in operation:
            expected |= {"400", "413", "415"}
        assert expected <= set(operation["responses"]), (method, path)
        for status, response in operation["responses"].items():
            if int(status) >= 400 and path not in OPEN:
                assert set(response["content"]) == {PROBLEM}, (method, path, status)


def test_parameters_are_never_null_and_if_match_is_required(tmp_path: Path) -> None:
    required = set()
    for method, path, operation in operations(document(tmp_path)):
        assert not [name for name in operation if name.startswith("x-")]
        for parameter in operation.get("parameters", ()):
            assert {"type": "null"} not in parameter["schema"].get("anyOf", ()), path
            if parameter["name"] == "If-Match":
                assert parameter["schema"]["pattern"] == '^"?[0-9]{1,18}"?$'
                required |= {(method, path)} if parameter["required"] else set()
    model = "/v1/models/{model}"
    assert required == {
        ("DELETE", model),
        ("POST", f"{model}/calibrators/{{calibrator}}/promote"),
        ("POST", f"{model}/rollback"),
    }


def test_if_match_is_refused_where_it_would_be_ignored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with application(tmp_path) as client:
            declared = {"class_names": ["a", "b"]}
            answer = await client.put("/v1/models/new", json=declared, headers={"if-match": '"1"'})
            assert (answer.status_code, "If-Match" in answer.json()["detail"]) == (422, True)
            assert (await client.get("/v1/models/new")).status_code == 404

    asyncio.run(scenario())


@pytest.mark.parametrize("version", [2**31, 2**63, 10**30])
def test_versions_beyond_those_of_the_database_are_refused(version: int, tmp_path: Path) -> None:
    model = "/v1/models/digits"

    async def scenario() -> None:
        async with application(tmp_path) as client:
            body = {"rows": [{"id": "a", "logits": [0.0] * 10, "label": 1}]}
            answers = [
                await client.get(f"{model}/calibrators?version={version}"),
                await client.get(f"{model}/calibrators/identity-0?version={version}"),
                await client.post(f"{model}/labels?version={version}", json=body),
                await client.post(f"{model}/calibration-sets?version={version}", content=b"x"),
                await client.post(f"{model}/calibration-sets/a/rows?version={version}"),
                await client.post(
                    f"{model}/fits", json={"source": "refit-window", "version": version}
                ),
                await client.put(
                    model, json={"live_version": version}, headers={"if-match": '"1"'}
                ),
                await client.post(
                    f"{model}/probabilities?version={version}", json={"logits": [[0.0] * 10]}
                ),
            ]
            assert [answer.status_code for answer in answers] == [422] * len(answers)
            assert all("version" in answer.json()["detail"] for answer in answers)

    asyncio.run(scenario())


@pytest.mark.integration
@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    require_module("schemathesis")
    key, file = keys(tmp_path)
    shutil.copytree(ROOT / "models", tmp_path / "models")
    command = [
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
        "run", "URL", "--header", f"Authorization: Bearer {key}", "--checks", "all",
        "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "3", "--seed", "1",
        "--continue-on-failure", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    flags = ("--api-keys-file", str(file))
    with running_service(tmp_path / "state", tmp_path / "models", *flags) as service:
        command[command.index("URL")] = f"{service.url}/openapi.json"
        allowed = {"authorization": f"Bearer {key}"}
        described = service.client.get("/openapi.json", headers=allowed).json()
        count = sum(1 for _ in operations(described))
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False,
            env={**os.environ, "PYTHONWARNINGS": ""},
        )  # fmt: skip
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert f"Tested: {count}" in found.stdout
    assert "No issues found" in found.stdout
