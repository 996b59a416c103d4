"""The files for Prometheus and Grafana: they can be parsed, and name the metrics that the code sends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from modalflow.executor.reporting.metrics import BUDGET_USED, METRICS, PREFIX, RPC, Metric, Metrics, Result
from modalflow.reasons import Cause
from modalflow.relay.host.counts import METRICS as RELAY_METRICS

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/modalflow.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
CASES = Path(__file__).with_name("alerts_test.yaml")
MAPPINGS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus/statsd-mapping.yaml").read_text())["mappings"]

#: Labels that Prometheus and Airflow add to those of a metric's tag.
OTHER_LABELS = {"le", "team_name", "__name__"}

TABLE: tuple[Metric, ...] = (*METRICS, *(Metric(f"relay.{name}", kind, text) for name, kind, text in RELAY_METRICS))


def series(metric: Metric) -> set[str]:
    """Return the names of a metric in Prometheus: by statsd_exporter, and from OpenTelemetry."""
    plain = f"airflow_{PREFIX}_" + metric.name.removesuffix(".<budget>").replace(".", "_")
    if metric.kind == "counter":
        return {f"{plain}_total"}
    # The exporter makes seconds of a timer; Airflow sends OpenTelemetry milliseconds, in a native histogram.
    return {plain} if metric.kind == "gauge" else {f"{plain}_seconds_bucket", f"{plain}_milliseconds"}


def labels(metric: Metric) -> set[str]:
    """Return the labels of a metric."""
    own = {"rpc", "result"} if metric.name == RPC else {"budget"} if BUDGET_USED in metric.name else {metric.tag}
    return (own - {""}) | OTHER_LABELS


#: Every name → its labels.
LABELS = {name: labels(metric) for metric in TABLE for name in series(metric)}


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Return the queries of all panels."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def parsed(query: str) -> promql_parser.Expr:
    """Return a query as a tree; Grafana's own variable for a range counts as five minutes."""
    return promql_parser.parse(query.replace("$__rate_interval", "5m"))


def selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of each series in a query, with its matchers."""
    found: list[Any] = []
    promql_parser.walk(parsed(query), found.append)
    for node in found:
        node = getattr(node, "vector_selector", node)
        if isinstance(node, promql_parser.VectorSelector):
            matchers = {matcher.name: matcher.value for matcher in node.matchers.matchers}
            yield node.name or matchers.pop("__name__").removesuffix(".*"), matchers


ALL = [pytest.param(rule["expr"], id=rule["alert"]) for rule in alert_rules()] + [
    pytest.param(query, id=query[:60]) for query in queries()
]


@pytest.mark.parametrize("query", ALL)
def test_a_query_names_metrics_and_labels_of_the_code(query: str) -> None:
    """A renamed metric or tag fails here, instead of leaving a panel empty or an alert silent."""
    found = list(selectors(query))
    assert found
    for name, matchers in found:
        assert name in LABELS
        assert set(matchers) <= LABELS[name]
    grouped = {label for match in re.finditer(r"\bby \(([^)]*)\)", query) for label in match[1].split(", ")}
    assert grouped <= set.union(*(LABELS[name] for name, _ in found))


def test_values_of_labels_are_those_of_the_code() -> None:
    """An alert about a result that no call can have would never fire."""
    known = {"result": {result.value for result in Result}, "cause": {cause.value for cause in Cause}}
    for query in (param.values[0] for param in ALL):
        for _, matchers in selectors(str(query)):
            for label in known.keys() & matchers.keys():
                assert set(matchers[label].split("|")) <= known[label]


def test_the_dashboard_shows_every_metric() -> None:
    """A new metric without a panel fails here."""
    shown = {name for query in queries() for name, _ in selectors(query)}
    assert {metric.name for metric in TABLE if not series(metric) <= shown} == set()


def test_panels_and_alerts_are_complete() -> None:
    """Panels do not overlap and have distinct ids, and each alert has a severity and two texts."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for rule in alert_rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
    assert len({rule["alert"] for rule in alert_rules()}) == len(alert_rules())


class Statsd:
    """Stands for statsd_exporter: applies the first mapping that matches, as far as the file uses them."""

    def __init__(self) -> None:
        self.got: dict[str, dict[str, str]] = {}

    def receive(self, stat: str, *_: object, **__: object) -> None:
        mapping = next(mapping for mapping in MAPPINGS if re.search(mapping["match"], f"airflow.{stat}"))
        if mapping.get("action") == "drop":
            return
        match = re.search(mapping["match"], f"airflow.{stat}")
        assert match is not None
        name, own = mapping["name"], dict(mapping.get("labels", {}))
        for number, text in enumerate(match.groups(), 1):
            name = name.replace(f"${{{number}}}", text).replace(f"${number}", text)
            own = {label: value.replace(f"${number}", text) for label, value in own.items()}
        self.got[name + ("_bucket" if mapping.get("observer_type") else "")] = own

    incr = gauge = timing = receive


def test_the_mapping_of_statsd_leads_to_the_same_names() -> None:
    """All that the executor and a relay send has its name and labels in Prometheus after the mapping."""
    statsd = Statsd()
    metrics = Metrics(lambda: statsd)
    tags = {"lost": "out-of-memory", "run_again": "container-lost", "over_budget": "hold"}
    for metric in METRICS:
        if metric.kind == "timer":
            metrics.time(metric.name, 1.0)
        elif metric.kind == "counter" and metric.name != RPC:
            metrics.counts[".".join(filter(None, (metric.name, tags.get(metric.name))))] += 1
    metrics.rpc("FunctionMap", None)
    gauges = [metric.name.replace("<budget>", "dag.etl.day") for metric in METRICS if metric.kind == "gauge"]
    metrics.send(dict.fromkeys(gauges, 1.0))
    for name, _, _ in RELAY_METRICS:
        statsd.receive(f"{PREFIX}.relay.{name}")
    assert set(statsd.got) == {name for name in LABELS if not name.endswith("_milliseconds")}
    assert {name: set(own) for name, own in statsd.got.items()} == {
        name: LABELS[name] - OTHER_LABELS for name in statsd.got
    }
    assert statsd.got["airflow_modal_executor_budget_used"] == {"budget": "dag.etl.day"}
    assert statsd.got["airflow_modal_executor_rpc_total"] == {"rpc": "FunctionMap", "result": "ok"}


def promtool(*arguments: str | Path) -> None:
    """Run promtool, and expect that it accepts what it reads."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not on PATH (Debian's package prometheus)")
    checked = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "what", [("check", DEPLOY / "prometheus/alerts.yaml"), ("test", CASES)], ids=("syntax", "cases")
)
def test_promtool_accepts_the_alert_rules(what: tuple[str, Path]) -> None:
    """Prometheus' own program reads the rules with their templates, and they fire in the cases and only there."""
    promtool(what[0], "rules", what[1])


def test_every_alert_fires_in_a_case() -> None:
    """A new alert without a case fails here, instead of staying silent when it is needed."""
    tests = [test for case in yaml.safe_load(CASES.read_text())["tests"] for test in case["alert_rule_test"]]
    assert {test["alertname"] for test in tests if test.get("exp_alerts")} == {rule["alert"] for rule in alert_rules()}


def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """Prometheus' own parser reads each query of a panel, with values in place of Grafana's variables."""
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$team", ".*")}
        for number, query in enumerate(queries())
    ]
    assert not [rule for rule in rules if "$" in rule["expr"]]
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)
