"""Files for GitHub, editors and citation parse, and name what exists."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ISSUE_FORMS = ["bug.yml", "feature.yml"]


def parsed(path: str) -> dict[Any, Any]:
    document = yaml.safe_load((ROOT / path).read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def test_the_citation_has_what_the_format_asks_for() -> None:
    citation = parsed("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
    assert citation["license"] == PROJECT["license"]
    assert f"[{citation['version']}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("name", ISSUE_FORMS)
def test_an_issue_form_has_what_the_format_asks_for(name: str) -> None:
    form = parsed(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= set(form)
    identifiers = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(identifiers)) == len(identifiers)
    for part in form["body"]:
        assert part["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert part["attributes"]


def test_the_workflow_runs_the_gate_on_the_oldest_supported_python() -> None:
    workflow = parsed(".github/workflows/gate.yml")
    (job,) = workflow["jobs"].values()
    assert job["runs-on"] == "ubuntu-latest"
    (setup,) = [step for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert PROJECT["requires-python"] == f">={setup['with']['python-version']}"
    (command,) = [step["run"] for step in job["steps"] if "run" in step]
    assert command == ".ci/run"
    assert (ROOT / command).stat().st_mode & 0o100


def test_the_hooks_are_the_tools_of_make_lint() -> None:
    config = parsed(".pre-commit-config.yaml")
    (local,) = config["repos"]
    lint = re.search(r"^lint:.*\n\t(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert lint
    commands = [
        command.replace("$(VENV)", ".venv").removesuffix(" .") for command in lint[1].split(" && ")
    ]
    assert [hook["entry"] for hook in local["hooks"]] == commands
    assert all(hook["language"] == "system" for hook in local["hooks"])


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    releases = re.findall(r"^## (.+)$", text, re.M)
    assert releases[0] == "[Unreleased]"
    assert all(re.match(r"\[\d+\.\d+\.\d+\]", release) for release in releases[1:])
    kinds = set(re.findall(r"^### (.+)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
