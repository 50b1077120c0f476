import re
from itertools import combinations

from tests.monitoring.monitoring_files import MONITORING, dashboard, load_yaml, panels


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
