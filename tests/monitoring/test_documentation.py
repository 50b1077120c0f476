import re

from tests.monitoring.monitoring_files import (
    ALERTS,
    METRICS_PAGE,
    OPERATIONS_PAGE,
    RULES,
    dashboard_queries,
    documented_queries,
    metric_of,
    names_in,
    panels,
    rules_of,
)
from trueprob_service.metrics.catalogue import METRICS


def table_rows(prefix: str) -> list[list[str]]:
    rows = []
    for line in METRICS_PAGE.read_text("utf-8").splitlines():
        if line.startswith(f"| `{prefix}"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append([cell.strip() for cell in cells])
    return rows


DOCUMENTED = {row[0].strip("`"): row[1:] for row in table_rows("trueprob_")}
DOCUMENTED_RULES = {
    name for row in table_rows("trueprob:") for name in re.findall("`(.+?)`", row[0])
}


def test_every_metric_is_documented_once_as_it_is_declared() -> None:
    assert len(table_rows("trueprob_")) == len(DOCUMENTED)
    documented = {
        name.removeprefix("trueprob_"): (
            kind,
            () if labels == "–" else tuple(labels.split(", ")),
            owner,
        )
        for name, (kind, labels, _unit, owner, _meaning) in DOCUMENTED.items()
    }
    declared = {
        name: (metric.kind, metric.labels, metric.owner) for name, metric in METRICS.items()
    }
    assert documented == declared


def test_every_metric_has_a_unit_and_a_sentence() -> None:
    for name, (_kind, _labels, unit, _owner, meaning) in DOCUMENTED.items():
        assert unit, name
        assert meaning.endswith("."), name


def test_every_recording_rule_is_documented() -> None:
    assert {rule["record"] for rule in rules_of(RULES)} == DOCUMENTED_RULES


def used_names() -> dict[str, set[str]]:
    """Where names are used, and which."""
    used = {f"rule {rule['record']}": names_in(rule["expr"]) for rule in rules_of(RULES)}
    for rule in rules_of(ALERTS):
        texts = (rule["expr"], *rule["annotations"].values())
        used[f"alert {rule['alert']}"] = set().union(*map(names_in, texts))
    used |= {where: names_in(query) for where, query in dashboard_queries()}
    used |= {query: names_in(query) for query in documented_queries()}
    return used


def test_only_documented_names_are_used() -> None:
    known = {metric_of(name) for name in DOCUMENTED} | DOCUMENTED_RULES
    unknown = {where: names - known for where, names in used_names().items() if names - known}
    assert unknown == {}


def test_every_metric_can_be_seen_on_the_dashboard() -> None:
    rules = {rule["record"]: names_in(rule["expr"]) for rule in rules_of(RULES)}
    seen = set().union(*(names_in(query) for _, query in dashboard_queries()))
    while more := set().union(*(rules.get(name, set()) for name in seen)) - seen:
        seen |= more
    assert set(METRICS) - seen == set()


def test_queries_over_time_leave_the_retired_pairs_out() -> None:
    """Their sum rises when a pair is added to it, not when rows are answered."""
    expressions = [rule["expr"] for rule in rules_of(ALERTS) + rules_of(RULES)]
    expressions += [query for _, query in dashboard_queries()] + documented_queries()
    selected = [
        (rest, expression)
        for expression in expressions
        for rest in re.findall(r"trueprob_predictions_total(\S*)", expression)
    ]
    assert len(selected) > 3
    assert [each for each in selected if 'calibrator!="retired"' not in each[0]] == []


def test_what_needs_full_detail_says_so() -> None:
    made_of = {rule["record"]: names_in(rule["expr"]) for rule in rules_of(RULES)}

    def needs_full(names: set[str]) -> bool:
        return any(
            needs_full(made_of[name]) if name in made_of else METRICS[name].full_only
            for name in names & (METRICS.keys() | made_of.keys())
        )

    for rule in rules_of(ALERTS):
        texts = (rule["expr"], *rule["annotations"].values())
        assert not needs_full(set().union(*map(names_in, texts))), rule["alert"]
    assert all(needs_full({name}) for name in made_of)
    for panel in panels():
        names = (names_in(target["expr"].replace("$window", "24h")) for target in panel["targets"])
        says = "Needs TRUEPROB_METRICS_DETAIL=full" in panel["description"]
        assert says == needs_full(set().union(*names)), panel["title"]


def test_every_alert_has_its_section() -> None:
    sections = re.findall(r"^### (\w+)$", OPERATIONS_PAGE.read_text("utf-8"), flags=re.MULTILINE)
    assert {rule["alert"] for rule in rules_of(ALERTS)} <= set(sections)


def test_settings_and_outcomes_named_on_the_pages_exist() -> None:
    from trueprob_service.metrics.catalogue import LABEL_OUTCOMES
    from trueprob_service.settings import Settings

    text = METRICS_PAGE.read_text("utf-8") + OPERATIONS_PAGE.read_text("utf-8")
    named = {name.lower() for name in re.findall(r"TRUEPROB_([A-Z_]+[A-Z])", text)}
    assert named <= set(Settings.model_fields)
    assert ", ".join(LABEL_OUTCOMES) in DOCUMENTED["trueprob_labels_total"][-1]
