"""`arms`: intervals against published values, and the command against a real HTTP port and a stand-in for Prometheus."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from streams.commands import main
from streams.commands.arms import Trial, count, difference
from streams.flow.report import BatchReport, Made
from tests.unit.commands.test_asking import running

PUBLISHED = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
"""Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3."""
PUBLISHED_DIFFERENCES = [
    ((56, 70), (48, 80), 0.0524, 0.3339),
    ((9, 10), (3, 10), 0.1705, 0.8090),
    ((10, 10), (0, 20), 0.6791, 1.0),
]
"""Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10."""


@pytest.mark.parametrize(("successes", "tries", "low", "high"), PUBLISHED)
def test_intervals_are_those_that_were_published(successes, tries, low, high):
    assert Trial(successes, tries).interval() == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("one", "other", "low", "high"), PUBLISHED_DIFFERENCES)
def test_differences_are_those_that_were_published(one, other, low, high):
    assert difference(Trial(*one), Trial(*other))[1:] == pytest.approx((low, high), abs=5e-5)


def test_nothing_tried_says_nothing():
    assert Trial(0, 0).rate == 0
    assert Trial(0, 0).interval() == (0.0, 1.0)


def test_samples_are_summed_over_what_arms_are_not_told_apart_by():
    outcomes = "coldstream_list_outcomes_total"
    samples = {
        outcomes: [
            ({"arm": "a", "outcome": "sent", "strategy": "popular"}, 60.0),
            ({"arm": "a", "outcome": "sent", "strategy": "personal"}, 40.0),
            ({"arm": "a", "outcome": "clicked", "strategy": "personal"}, 10.0),
        ]
    }
    assert count(samples)["a"]["click_rate"] == Trial(10, 100)


def observed(site) -> None:
    """A worker that has counted a trial: 400 lists each, and many more clicks on those of the bold arm."""
    for arm, clicked, hits in (("plain", 40, 30), ("bold", 80, 32)):
        report = BatchReport()
        made = Made("personal", arm, "learned")
        report.list_outcomes = {("sent", made): 400, ("clicked", made): clicked, ("converted", made): 5}
        report.hits = {
            ("coldstream", "personal", arm, "warm", "yes"): hits,
            ("coldstream", "personal", arm, "warm", "no"): 100 - hits,
            ("popular", "personal", arm, "warm", "no"): 100,
        }
        site.server._metrics.observe(report)


ARMS = '{"plain": {"share": 0.5}, "bold": {"share": 0.5}}'


def test_the_command_asks_the_worker(monkeypatch, capsys):
    monkeypatch.setenv("COLDSTREAM_ARMS", ARMS)
    with running(monkeypatch) as site:
        observed(site)
        assert main.run(["arms", "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        answer = json.loads(line)
        assert [arm["arm"] for arm in answer["arms"]] == ["plain", "bold"], "in the settings' order"
        assert answer["arms"][0]["click_rate"]["rate"] == 0.1
        (compared,) = answer["differences"]
        assert compared["click_rate"]["difference"] == pytest.approx(0.1)
        assert compared["click_rate"]["beyond_chance"]
        assert not compared["hit_rate"]["beyond_chance"]
        assert main.run(["arms", "--against", "bold"]) == 0
        said = capsys.readouterr().out
    assert "-10.00%" in said
    assert "Wilson" in said


def test_a_worker_without_lists_and_an_unknown_arm_are_told(monkeypatch, capsys):
    with running(monkeypatch) as site:
        assert main.run(["arms"]) == 1
        assert "no list yet" in capsys.readouterr().err
        observed(site)
        assert main.run(["arms", "--against", "brave"]) == 1
        assert "there are: bold, plain" in capsys.readouterr().err


@pytest.fixture
def prometheus() -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "hits" in self.path:
                result = []
            elif "nonsense" in self.path:
                self.send_error(400)
                return
            else:
                assert "%5B7d%5D" in self.path
                result = [{"metric": {"arm": "a", "outcome": "sent"}, "value": [0, "200"]},
                          {"metric": {"arm": "a", "outcome": "clicked"}, "value": [0, "20"]}]  # fmt: skip
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_command_asks_a_prometheus(prometheus, capsys):
    assert main.run(["arms", "--prometheus", prometheus, "--window", "7d", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["arms"][0]["click_rate"]["rate"] == 0.1
    assert answer["differences"] == []
    assert main.run(["arms", "--prometheus", prometheus, "--window", "nonsense"]) == 1
    assert "is the window 'nonsense' right?" in capsys.readouterr().err
    assert main.run(["arms", "--prometheus", "file:///etc/passwd"]) == 2
