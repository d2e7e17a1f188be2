"""Dashboards, rules and runbook agree with the code, with Prometheus, and with one another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from grafana.__main__ import ROOT, stale
from grafana.alerts import ALERTS, WINDOWS, recorded
from grafana.dashboards import DASHBOARDS
from grafana.measures import Measure, Query
from grafana.reference import used_by
from grafana.rules import anchor
from streams import metrics

RULES = ROOT / "grafana" / "rules"
MEASURES = [measure for _, rows in DASHBOARDS.values() for row in rows for measure in row.measures]
EXPRESSIONS = [query.ask() for measure in MEASURES for query in measure.queries]
EXPRESSIONS += [query for alert in ALERTS for query in alert.queries]
KNOWN = {measure.name: measure for measure in metrics.MEASURES}
FOREIGN = {"process_resident_memory_bytes", "process_cpu_seconds_total", "up"}


def promtool(*arguments: str) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    ran = subprocess.run([program, *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_what_is_committed_is_what_the_code_says() -> None:
    assert stale() == []


def test_prometheus_accepts_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", "coldstream.yml")


def test_every_alert_fires_in_its_story_and_stays_quiet_in_the_other() -> None:
    stories = yaml.safe_load((RULES / "coldstream_test.yml").read_text(encoding="utf-8"))["tests"]
    told = Counter(
        (case["alertname"], bool(case["exp_alerts"])) for test in stories for case in test.get("alert_rule_test", ())
    )
    for alert in ALERTS:
        assert told[alert.name, True] == len(alert.any_of), "each of its conditions is seen to make it fire"
        assert told[alert.name, False] == 1
    recordings = {case["expr"] for test in stories for case in test.get("promql_expr_test", ())}
    assert recordings == {f"round({recorded(window)}, 0.0001)" for window in WINDOWS}
    assert "SUCCESS" in promtool("test", "rules", "coldstream_test.yml")


def test_a_story_that_lies_is_found(tmp_path: Path) -> None:
    shutil.copy(RULES / "coldstream.yml", tmp_path)
    stories = yaml.safe_load((RULES / "coldstream_test.yml").read_text(encoding="utf-8"))
    stories["tests"] = [test for test in stories["tests"] if test["name"] == "ColdstreamDown fires"]
    stories["tests"][0]["input_series"][0]["values"] = "1x10"
    (tmp_path / "lie.yml").write_text(yaml.safe_dump(stories), encoding="utf-8")
    with pytest.raises(AssertionError, match="ColdstreamDown"):
        promtool("test", "rules", str(tmp_path / "lie.yml"))
    stories = yaml.safe_load((RULES / "coldstream_test.yml").read_text(encoding="utf-8"))
    stories["tests"] = [test for test in stories["tests"] if "promql_expr_test" in test]
    stories["tests"][0]["promql_expr_test"][0]["exp_samples"][0]["value"] = 0.5
    (tmp_path / "lie.yml").write_text(yaml.safe_dump(stories), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"ratio_rate5m"):
        promtool("test", "rules", str(tmp_path / "lie.yml"))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_the_runbook_has_a_section_for_every_alert(alert) -> None:
    rule = next(
        rule
        for group in yaml.safe_load((RULES / "coldstream.yml").read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if rule.get("alert") == alert.name
    )
    path, _, fragment = rule["annotations"]["runbook_url"].partition("#")
    text = (ROOT / path).read_text(encoding="utf-8")
    section = re.search(rf"^### {alert.name}\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"{path} has no section {alert.name}"
    assert fragment == anchor(alert.name)
    assert len(re.findall(r"^\d+\. ", section[1], re.MULTILINE)) >= 2, "a section says what to do, step by step"


def test_links_inside_the_runbook_lead_somewhere() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-")
                for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}  # fmt: skip
    assert not set(re.findall(r"\]\(#([\w-]+)\)", text)) - headings


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_every_measure_says_what_good_looks_like_and_what_to_do(measure: Measure) -> None:
    assert min(len(measure.meaning), len(measure.good), len(measure.otherwise)) > 1
    assert measure.queries
    assert (measure.warn is None) == (measure.bad is None)


def test_measures_have_names_of_their_own() -> None:
    by_name: dict[str, Measure] = {}
    for measure in MEASURES:
        assert by_name.setdefault(measure.name, measure) is measure


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_series_and_label_asked_for_exists(expression: str) -> None:
    if expression.startswith("coldstream:"):
        return  # recorded from a measure that is checked itself
    for series, matchers in re.findall(r"\b((?:coldstream|process)_\w+|up)\b(?:\{([^}]*)\})?", expression):
        name = series if series in KNOWN else re.sub(r"_(bucket|sum|count)$", "", series)
        assert name in KNOWN or name in FOREIGN, f"no such metric: {series}"
        if name in FOREIGN:
            continue
        assert set(re.findall(r"(\w+)\s*=~?", matchers)) <= {*KNOWN[name].labels, "le"}
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            values = KNOWN[name].labels.get(label, value)
            if not isinstance(values, str):
                assert set(value.split("|")) <= set(values), f"{label} of {name} is never {value}"


def test_every_metric_is_looked_at_by_somebody() -> None:
    asked = " ".join(EXPRESSIONS)
    asked += "coldstream_build_info"  # by the variable `instance`
    assert not {name for name in KNOWN if name not in asked}
    assert used_by(next(measure for measure in MEASURES if measure.name == "lag")) == ("coldstream_lag_records",)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_are_classic_and_portable(name: str) -> None:
    board = json.loads((ROOT / "grafana" / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
    assert board.get("id") is None
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "instance"}
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert "**Good:**" in panel["description"]
        assert "**Otherwise:**" in panel["description"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["gridPos"]["w"] >= 4
        assert panel["gridPos"]["h"] <= 8, "two rows are to fit a laptop's screen"
        assert all("$instance" in target["expr"] for target in panel["targets"])
    corners = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(corners)) == len(corners)


def test_a_query_without_matchers_is_clean() -> None:
    assert Query('a{x="1", <where>}[<window>] / b{<where>}').ask(window="1m") == 'a{x="1"}[1m] / b'
    assert Query("b{<where>}").ask(where='i="2"') == 'b{i="2"}'
