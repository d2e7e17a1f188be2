"""Worker, load and a real Prometheus: every question of a dashboard or a rule is answered, and series stay few.

Grafana itself is in no registry that is reached here, so it was not started; what it would ask is asked by hand.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from grafana.alerts import ALERTS
from grafana.dashboards import DASHBOARDS
from tests.support.worker_process import ROOT, free_port, get, run, settings, worker

LARGEST_SERIES = 2000
LOAD_SECONDS = 25.0
USERS, ITEMS = 400, 400
PREFIX = "observed."
VARIABLES = {"$instance": ".+", "$__rate_interval": "30s", "$__range": "5m"}
ARMS = (
    '{"plain": {"share": 0.5}, "bold": {"share": 0.5, "diversity": 0.8, "floor_new": 0.1, "weights": {"popular": 0.5}}}'
)
SAMPLED = 1
WORDS = ("red", "blue", "bicycle", "tent", "novel", "cheese", "lamp", "garden", "winter", "jazz")


@dataclass(frozen=True)
class Scene:
    prometheus: str
    worker: str
    environment: dict[str, str]
    log: Path
    spans: list[Any]
    """What the collector was sent so far."""
    lists: dict[str, tuple[dict[str, Any], dict[str, bytes]]]
    """By trace id of the event: the list that answered it, and its headers."""

    def ask(self, expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        status, body = get(f"{self.prometheus}/api/v1/query?{query}", seconds=20)
        answer = json.loads(body)
        assert status == 200, f"{expression}: {answer}"
        return answer["data"]["result"]

    def series(self) -> list[str]:
        status, body = get(f"{self.worker}/metrics")
        assert status == 200
        return [line for line in body.decode().splitlines() if line and not line.startswith("#")]


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """What takes spans as OTLP over HTTP: its address, and the spans."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in group.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()


async def load(kafka: str, prefix: str, seconds: float) -> dict[str, tuple[dict[str, Any], dict[str, bytes]]]:
    """Everything that a metric counts: items, profiles, events of all kinds, repetitions, refusals, erasures.

    Every third event is done to an item of the last list of its user, and names it, as a shop's page would. Every tenth
    belongs to a trace. Returns the lists, with their headers, that go on with one, by the trace's id.
    """
    chance = random.Random(7)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=2)
    consumer = AIOKafkaConsumer(f"{prefix}recommendations", bootstrap_servers=kafka, group_id=None)
    await producer.start()
    await consumer.start()
    lists: dict[str, dict[str, Any]] = {}
    traced: dict[str, tuple[dict[str, Any], dict[str, bytes]]] = {}

    async def read() -> None:
        for messages in (await consumer.getmany()).values():
            for found in messages:
                if found.value:
                    one, headers = json.loads(found.value), dict(found.headers)
                    lists[one["user_id"]] = one
                    _, trace, _, flags = headers["traceparent"].decode().split("-")
                    if int(flags, 16) & SAMPLED:
                        traced[trace] = one, headers

    async def send(topic: str, key: str, value: dict[str, Any] | bytes | None, trace: str = "") -> None:
        body = json.dumps(value).encode() if isinstance(value, dict) else value
        headers = [("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())] if trace else []
        await producer.send(prefix + topic, body, key.encode(), headers=headers)

    def item(number: int) -> dict[str, Any]:
        title = " ".join(chance.sample(WORDS, 3))
        return {
            "item_id": f"i{number}",
            "title": f"{title} {number}",
            "categories": [chance.choice(WORDS)],
            "price": 5.0,
        }

    try:
        for number in range(ITEMS):
            await send("items", f"i{number}", item(number))
        for number in range(USERS // 4):
            await send("users", f"u{number}", {"user_id": f"u{number}", "profile": " ".join(chance.sample(WORDS, 2))})
        await producer.flush()
        deadline = time.monotonic() + seconds
        step = 0
        while time.monotonic() < deadline:
            step += 1
            user = f"u{chance.randrange(USERS)}"
            kind = chance.choice(("view", "click", "like", "purchase", "rating", "search"))
            event: dict[str, Any] = {
                "event_id": f"e{step}",
                "user_id": user,
                "type": kind,
                "timestamp": time.time(),
            }
            event |= {"query": chance.choice(WORDS)} if kind == "search" else {"item_id": f"i{chance.randrange(ITEMS)}"}
            event |= {"value": float(chance.randrange(1, 6))} if kind == "rating" else {}
            await read()
            if step % 3 == 0 and "item_id" in event and user in lists:
                shown = lists[user]
                place = min(int(chance.expovariate(0.4)), len(shown["items"]) - 1)
                event |= {"recommendation_id": shown["recommendation_id"], "item_id": shown["items"][place]["item_id"]}
            elif step % 20 == 0:
                event |= {"recommendation_id": "a list of last year"}
            await send("events", user, event, f"{step:032x}" if step % 10 == 0 else "")
            if step % 50 == 0:
                await send("events", user, event)  # a duplicate
                await send("events", user, event | {"event_id": f"bad{step}", "type": "stare"})
                await send("events", user, b"{not json")
                await send("items", f"i{ITEMS + step}", item(ITEMS + step))
                other = (
                    f"u{chance.randrange(USERS)}"  # what comes with an event of the same user is one list, the event's
                )
                await send("users", other, {"user_id": other, "profile": " ".join(chance.sample(WORDS, 2))})
            if step % 300 == 0:
                await send("users", user, None)
                await send("items", f"i{step % ITEMS}", None)
            await asyncio.sleep(0.005)
        await producer.flush()
        await asyncio.sleep(1.0)
        await read()
        return traced
    finally:
        await consumer.stop()
        await producer.stop()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, kafka: Any) -> Iterator[Scene]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("scene")
    environment = settings(
        kafka.servers, folder, flush_seconds="0.5", topic_prefix=PREFIX, arms=ARMS, traces="true", log_format="json",
        log_level="DEBUG", floor_provider="categories",
    )  # fmt: skip
    created = run(environment, "topics", "create")
    assert created.returncode == 0, created.stderr
    address = environment["COLDSTREAM_HTTP"]
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "grafana" / "rules" / "coldstream.yml")],
        "scrape_configs": [{"job_name": "coldstream", "static_configs": [{"targets": [address]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    port = free_port()
    with (
        collector() as (otlp, spans),
        worker(environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp, "OTEL_BSP_SCHEDULE_DELAY": "500",
                              "OTEL_TRACES_SAMPLER": "parentbased_always_off"}, folder / "worker.log"),
        (folder / "prometheus.log").open("wb") as log,
    ):  # fmt: skip
        prometheus = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log,
        )  # fmt: skip
        try:
            lists = asyncio.run(load(kafka.servers, PREFIX, LOAD_SECONDS))
            for path in (
                "/recommendations/u1",
                "/items/i1/similar",
                "/recommendations/nobody?query=red",
                "/healthz",
            ):
                assert get(f"http://{address}{path}")[0] == 200
            time.sleep(3)
            yield Scene(
                f"http://127.0.0.1:{port}", f"http://{address}", environment, folder / "worker.log", spans, lists
            )
        finally:
            prometheus.terminate()
            prometheus.wait(20)


def panels() -> Iterator[Any]:
    for name in DASHBOARDS:
        board = json.loads((ROOT / "grafana" / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield pytest.param(target["expr"], id=f"{name}: {panel['title']} {target['refId']}")


@pytest.mark.parametrize("expression", list(panels()))
def test_every_panel_has_data(scene: Scene, expression: str) -> None:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    found = scene.ask(expression)
    assert found, f"no data: {expression}"
    assert any(result["value"][1] != "NaN" for result in found), f"nothing but NaN: {expression}"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_rule_asks_for_what_there_is(scene: Scene, alert: Any) -> None:
    for query in alert.queries:
        assert scene.ask(query), f"no data: {query}"


def test_prometheus_runs_the_rules_without_an_error(scene: Scene) -> None:
    groups = json.loads(get(f"{scene.prometheus}/api/v1/rules")[1])["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} >= {alert.name for alert in ALERTS}
    assert all(rule["health"] == "ok" for rule in rules), [rule for rule in rules if rule["health"] != "ok"]


def test_no_alert_wakes_anybody_over_a_healthy_worker(scene: Scene) -> None:
    alerts = json.loads(get(f"{scene.prometheus}/api/v1/alerts")[1])["data"]["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert not firing & {alert.name for alert in ALERTS if alert.severity == "page"}


def test_series_are_few_and_name_nobody(scene: Scene) -> None:
    series = scene.series()
    assert len(series) <= LARGEST_SERIES
    values = {value for line in series for value in re.findall(r'="([^"]*)"', line)}
    assert not {value for value in values if re.fullmatch(r"[uie]\d+", value)}


def test_events_are_joined_with_the_lists_they_name(scene: Scene) -> None:
    found = {one["metric"]["found"]: float(one["value"][1])
             for one in scene.ask("sum by (found) (coldstream_attributed_events_total)")}  # fmt: skip
    assert found["listed"] > 20
    assert found["listed"] > found.get("elsewhere", 0)
    assert found["forgotten"] > 0


@pytest.mark.parametrize("asked", [(), ("--prometheus",)], ids=["worker", "prometheus"])
def test_arms_are_compared_by_command(scene: Scene, asked: tuple[str, ...]) -> None:
    options = (*asked, scene.prometheus, "--window", "5m") if asked else ()
    ran = run(scene.environment, "arms", *options, "--json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert [arm["arm"] for arm in answer["arms"]] == ["plain", "bold"]
    for arm in answer["arms"]:
        assert arm["click_rate"]["tries"] > 50
        assert 0 < arm["click_rate"]["low"] < arm["click_rate"]["rate"] < arm["click_rate"]["high"] < 1
    (compared,) = answer["differences"]
    assert compared["click_rate"]["low"] < compared["click_rate"]["difference"] < compared["click_rate"]["high"]


def test_a_list_goes_on_with_the_trace_of_its_event_through_kafka(scene: Scene) -> None:
    spans = {span.trace_id.hex(): span for span in scene.spans if span.name == "recommend"}
    assert len(scene.lists) > 50
    for trace, (recommendation, headers) in scene.lists.items():
        span = spans[trace]
        attributes = {one.key: one.value.string_value for one in span.attributes}
        assert attributes["coldstream.recommendation_id"] == recommendation["recommendation_id"]
        assert headers["traceparent"].decode().split("-")[1:3] == [trace, span.span_id.hex()]
        assert span.parent_span_id.hex() == "b7ad6b7169203331"
        assert recommendation["trigger"]["kind"] != "event" or attributes["coldstream.event_id"]
        assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9


def test_log_lines_are_json_and_name_events_and_lists(scene: Scene) -> None:
    lines = [json.loads(line) for line in scene.log.read_text(encoding="utf-8").splitlines()]
    sent = {line["recommendation_id"]: line for line in lines if line["message"] == "list sent"}
    for recommendation, _ in scene.lists.values():
        line = sent[recommendation["recommendation_id"]]
        assert line["arm"] == recommendation["arm"]
        if recommendation["trigger"]["kind"] == "event":
            assert line["event_id"] == recommendation["trigger"]["id"]
    refused = [line for line in lines if line["message"].startswith("a record is refused: schema")]
    assert refused
    assert all(line["event_id"].startswith("bad") and line["topic"] == "events" for line in refused)
