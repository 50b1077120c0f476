import json
import subprocess
from pathlib import Path

import pytest

from tests.integration_requirements import require_program
from tests.monitoring.monitoring_files import ALERTS, MONITORING, RULES, load_yaml, rules_of

YAML_FILES = sorted(MONITORING.rglob("*.yml"))
JSON_FILES = sorted(MONITORING.rglob("*.json"))
UNIT_TESTS = sorted(Path(__file__).parent.glob("*_test.yml"))


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_program("promtool"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert load_yaml(path)


@pytest.mark.parametrize("path", JSON_FILES, ids=lambda path: path.name)
def test_json_parses(path: Path) -> None:
    assert json.loads(path.read_text("utf-8"))


@pytest.mark.integration
def test_promtool_accepts_the_configuration() -> None:
    check = promtool("check", "config", MONITORING / "prometheus.yml")
    assert check.returncode == 0, check.stdout + check.stderr
    assert "2 rule files found" in check.stdout


@pytest.mark.integration
@pytest.mark.parametrize("path", [RULES, ALERTS], ids=lambda path: path.name)
def test_promtool_accepts_the_rules(path: Path) -> None:
    check = promtool("check", "rules", path)
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.integration
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.name)
def test_rules_and_alerts_give_the_expected_numbers(path: Path) -> None:
    check = promtool("test", "rules", path)
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_alert_is_shown_to_fire_and_not_to_fire() -> None:
    cases = [
        (case["alertname"], bool(case["exp_alerts"]))
        for test in load_yaml(Path(__file__).parent / "alerts_test.yml")["tests"]
        for case in test["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in rules_of(ALERTS)}
    assert {name for name, fires in cases if fires} == names
    assert {name for name, fires in cases if not fires} == names


@pytest.mark.parametrize("rule", rules_of(ALERTS), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    text = rule["annotations"]["summary"] + rule["annotations"]["description"]
    assert "$value" in text or "| value" in text
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{str(rule['alert']).lower()}"


def test_prometheus_scrapes_the_service_every_15_seconds() -> None:
    configuration = load_yaml(MONITORING / "prometheus.yml")
    assert configuration["rule_files"] == [RULES.name, ALERTS.name]
    scrape = configuration["scrape_configs"][0]
    assert scrape["job_name"] == "trueprob"
    assert scrape["static_configs"] == [{"targets": ["service:8000"]}]
    assert configuration["global"]["scrape_interval"] == "15s"
