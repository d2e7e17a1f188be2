"""Alerts and recorded series as Prometheus rules, and their stories as promtool's unit tests."""

from __future__ import annotations

from typing import Any, Final

import yaml

from grafana.alerts import ALERTS, WINDOWS, Alert, Case, recorded
from grafana.service import LATE_SHARE

RULES_FILE: Final = "coldstream.yml"
TESTS_FILE: Final = "coldstream_test.yml"
RUNBOOK: Final = "docs/runbook.md"
"""Where the runbook is; `python -m grafana --runbook URL` writes rules for a place that people can click on."""


def anchor(name: str) -> str:
    """The anchor that Markdown renderers give to a heading of one word."""
    return name.lower()


def render_rules(runbook: str = RUNBOOK) -> str:
    """The rules as YAML text."""
    recordings = [{"record": recorded(window), "expr": LATE_SHARE.ask(window=window)} for window in WINDOWS]
    groups = [
        {"name": "coldstream-recorded", "rules": recordings},
        {"name": "coldstream-alerts", "rules": [_rule(alert, runbook) for alert in ALERTS]},
    ]
    return _dump({"groups": groups})


def render_tests() -> str:
    """For each alert the story in which it fires and the one in which it doesn't."""
    tests = [
        _test(alert, case, fires=fires)
        for alert in ALERTS
        for case, fires in ((alert.fires, True), *((case, True) for case in alert.also), (alert.quiet, False))
    ]
    tests.append(_recorded_test())
    return _dump({"rule_files": [RULES_FILE], "evaluation_interval": "1m", "tests": tests})


def _rule(alert: Alert, runbook: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": _annotations(alert, runbook),
    }


def _annotations(alert: Alert, runbook: str) -> dict[str, str]:
    return {
        "summary": alert.summary,
        "description": alert.meaning,
        "runbook_url": f"{runbook}#{anchor(alert.name)}",
    }


def _test(alert: Alert, case: Case, *, fires: bool) -> dict[str, Any]:
    expected = {
        "exp_labels": {"severity": alert.severity, **case.labels},
        "exp_annotations": _annotations(alert, RUNBOOK),
    }
    return {
        "name": f"{alert.name} {'fires' if fires else 'stays quiet'}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series],
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": alert.name, "exp_alerts": [expected] if fires else []},
        ],
    }


def _recorded_test() -> dict[str, Any]:
    """A thirtieth of the events is late for six hours, none after: each window tells it for as long as it reaches back."""
    name = "coldstream_event_to_recommendation_seconds"
    expected = {"6h": dict.fromkeys(WINDOWS, 0.0333), "9h": {"2h": 0.0, "6h": 0.0167},
                "12h": {"6h": 0.0, "1d": 0.0167}, "30h": {**dict.fromkeys(WINDOWS, 0.0), "3d": 0.0067}}  # fmt: skip
    return {
        "name": "the recorded shares",
        "interval": "1m",
        "input_series": [
            {"series": f'{name}_bucket{{le="0.1"}}', "values": "0+29x360 10470+30x1440"},
            {"series": f"{name}_count", "values": "0+30x1801"},
        ],
        "promql_expr_test": [
            {
                "expr": f"round({recorded(window)}, 0.0001)",
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": value}],
            }
            for at, shares in expected.items()
            for window, value in shares.items()
        ],
    }


def _dump(document: dict[str, Any]) -> str:
    head = "# Written by `python -m grafana`: change grafana/*.py, not this file.\n"
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=118)
