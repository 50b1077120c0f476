import json
import re
from itertools import combinations
from typing import Any

from tests.monitoring.monitoring_files import MONITORING, dashboard, load_yaml, panels
from trueprob.drift.live_verdict import LEADS, VerdictState
from trueprob_service.metrics.exposition import VERDICT_VALUES


def test_every_panel_says_in_plain_words_what_it_shows() -> None:
    for panel in panels():
        assert panel["title"], panel["id"]
        assert len(panel["description"]) > 40, panel["title"]
        assert panel["description"].endswith("."), panel["title"]


def test_ids_and_titles_are_unique() -> None:
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)


def test_panels_lie_side_by_side() -> None:
    cells = [
        {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        for at in (panel["gridPos"] for panel in dashboard()["panels"])
    ]
    assert all(max(x for x, _ in each) < 24 for each in cells)
    assert not any(a & b for a, b in combinations(cells, 2))


def test_calibration_comes_first() -> None:
    rows = [panel for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows[0]["title"] == "Is it calibrated?"
    assert rows[0]["gridPos"]["y"] == 0


def test_one_data_source_is_used_and_it_is_the_provisioned_one() -> None:
    document = dashboard()
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == chosen, panel["title"]
        assert all(target["datasource"] == chosen for target in panel["targets"]), panel["title"]
    assert all(each["datasource"] == chosen for each in document["annotations"]["list"])
    variables = {each["name"]: each for each in document["templating"]["list"]}
    (source,) = load_yaml(
        MONITORING / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    )["datasources"]
    assert variables["datasource"]["current"] == {"text": source["name"], "value": source["uid"]}
    assert source["type"] == variables["datasource"]["query"] == "prometheus"
    assert source["isDefault"]


def test_only_declared_variables_are_used() -> None:
    document = dashboard()
    declared = {each["name"] for each in document["templating"]["list"]}
    assert {"model", "version", "calibrator"} <= declared
    used = set(re.findall(r"\$\{?(\w+)", str(document["panels"]) + str(document["annotations"])))
    assert used - {"__rate_interval"} <= declared


def verdict_texts(panel: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Value → text and colour of the panel's value mappings."""
    field = panel["fieldConfig"]
    properties = field["defaults"] | {
        each["id"]: each["value"]
        for override in field["overrides"]
        for each in override["properties"]
    }
    options = properties["mappings"][0]["options"]
    return {value: (shown["text"], shown["color"]) for value, shown in options.items()}


def test_the_first_tile_and_the_table_of_models_state_the_verdict_in_its_words() -> None:
    colours = {
        VerdictState.WITHIN_TOLERANCE: "green",
        VerdictState.UNKNOWN: "blue",
        VerdictState.CHANGED_LATELY: "orange",
        VerdictState.OFF: "red",
    }
    expected = {
        str(number): (LEADS[state], colours[state]) for state, number in VERDICT_VALUES.items()
    }
    first, (table,) = panels()[0], [each for each in panels() if each["title"] == "All models"]
    for panel in (first, table):
        assert "trueprob_verdict" in panel["targets"][0]["expr"]
        assert verdict_texts(panel) == expected
    assert first["fieldConfig"]["defaults"]["noValue"] == "no live pair"


def test_no_other_tile_is_green() -> None:
    others = [panel for panel in panels()[1:] if panel["type"] == "stat"]
    assert others
    assert [each["title"] for each in others if "green" in json.dumps(each)] == []
