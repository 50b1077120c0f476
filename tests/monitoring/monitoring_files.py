"""What the monitoring files hold, for the tests that look into them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from trueprob_service.metrics.catalogue import METRICS

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "service" / "monitoring"
RULES = MONITORING / "rules.yml"
ALERTS = MONITORING / "alerts.yml"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "trueprob.json"
METRICS_PAGE = ROOT / "docs" / "metrics.md"
OPERATIONS_PAGE = ROOT / "docs" / "operations.md"

_PARTS_OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
_NAME = re.compile(r"\btrueprob[_:][a-z0-9_:]+")


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rules_of(path: Path) -> list[dict[str, Any]]:
    return [rule for group in load_yaml(path)["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document = json.loads(DASHBOARD.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something: rows are headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def with_variables(expression: str, *, window: str = "24h") -> str:
    """An expression of the dashboard with "All" selected, as Grafana would send it."""
    values = {"model": ".+", "version": ".+", "calibrator": ".+", "window": window}
    values["__rate_interval"] = "1m"
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Where a query stands and the query: panels with both windows, variables, annotations."""
    for panel in panels():
        for target in panel["targets"]:
            where = f"{panel['title']} {target['refId']}"
            for window in ("1h", "24h"):
                yield f"{where} {window}", with_variables(target["expr"], window=window)
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert found is not None, variable["name"]
            query = f"count by ({found[2]}) ({with_variables(found[1])})"
            yield f"variable {variable['name']}", query
    for annotation in dashboard()["annotations"]["list"]:
        yield f"annotation {annotation['name']}", with_variables(annotation["expr"])


def documented_queries() -> list[str]:
    """Every example of docs/metrics.md and docs/operations.md."""
    text = METRICS_PAGE.read_text("utf-8") + OPERATIONS_PAGE.read_text("utf-8")
    return re.findall(r"```promql\n(.*?)```", text, flags=re.DOTALL)


def metric_of(name: str) -> str:
    """The metric that a series belongs to, without prefix: of a histogram's parts, the histogram.

    A recording rule is its own.
    """
    short = name.removeprefix("trueprob_")
    whole = _PARTS_OF_A_HISTOGRAM.sub("", short)
    is_part = whole in METRICS and METRICS[whole].kind == "histogram"
    return whole if is_part else short


def names_in(text: str) -> set[str]:
    """Metrics and recording rules named in an expression or in a text with templates."""
    return {metric_of(name) for name in _NAME.findall(text)}
