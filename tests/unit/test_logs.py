"""Log lines for people and machines, and spans that continue the trace of the record that a list answers."""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys

import pytest

from streams.errors import ConfigurationError, PoisonError
from streams.flow.decoded import bury
from streams.logs import Few, JsonFormatter, Silence, TextFormatter, Tracer, log_list, open_tracer
from streams.settings import Settings
from streams.values import Record, Topic
from tests.support.http_service import make_list
from tests.support.service import Service

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = b"00-1bf7651916cd43dd8448eb211c80319d-c7ad6b7169203332-01"


def written(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_a_refused_record_is_named_by_place_and_ids_but_not_by_user(caplog):
    value = b'{"event_id": "e7", "user_id": "ann", "item_id": "tea", "recommendation_id": "r1", "type": "kiss"}'
    bury(Record(Topic.EVENTS, 3, 17, 0.0, b"ann", value), PoisonError("schema", "a sentence"), 0.0)
    bury(Record(Topic.EVENTS, 3, 18, 0.0, b"ann", b"{not json"), PoisonError("encoding", "another"), 0.0)
    first, second = written(caplog)
    assert first["message"] == "a record is refused: schema"
    assert first["level"] == "warning"
    assert (first["topic"], first["partition"], first["offset"]) == ("events", 3, 17)
    assert (first["event_id"], first["recommendation_id"]) == ("e7", "r1")
    assert "event_id" not in second
    assert "ann" not in json.dumps([first, second])


def test_a_list_has_a_line_for_who_looks_closely(caplog):
    with caplog.at_level(logging.INFO):
        log_list(make_list("ann", ["tea"]), 0.0123)
    assert not caplog.records
    with caplog.at_level(logging.DEBUG):
        log_list(make_list("ann", ["tea"]), 0.0123)
    (line,) = written(caplog)
    assert (line["recommendation_id"], line["strategy"], line["seconds"]) == ("r", "popular", 0.0123)


def test_people_see_the_fields_too():
    record = logging.LogRecord("x", logging.WARNING, "", 1, "a record is refused: %s", ("schema",), None)
    record.fields = {"event_id": "e\n7"}
    assert TextFormatter().format(record).endswith("x: a record is refused: schema event_id='e\\n7'")


def test_a_flood_of_lines_is_one():
    few = Few(2)

    def passes(at: float) -> str | None:
        record = logging.LogRecord("x", logging.WARNING, "", 1, "refused: %s", ("schema",), None)
        record.created = at
        return record.getMessage() if few.filter(record) else None

    assert [passes(10.0 + number / 10) is not None for number in range(5)] == [True, True, False, False, False]
    assert passes(11.0) == "refused: schema (3 more like this were not written)"
    assert passes(11.1) == "refused: schema"


async def sent_headers(service: Service) -> dict[str, bytes]:
    """Headers of the last list."""
    return dict(next(one for one in reversed(service.publisher.sent) if one.topic is Topic.RECOMMENDATIONS).headers)


async def test_without_traces_the_context_of_a_record_goes_with_its_list() -> None:
    service = await Service().open()
    await service.feed(service.log.item("tea", "green tea"))
    await service.feed(service.log.event("e1", "ann", "like", "tea", headers={"traceparent": PARENT}))
    assert (await sent_headers(service))["traceparent"] == PARENT
    await service.feed(service.log.event("e2", "ann", "like", "tea"))
    assert set(await sent_headers(service)) == {"version"}


async def test_a_list_that_an_item_caused_goes_on_with_the_items_trace() -> None:
    service = await Service().open()
    await service.feed(*(service.log.item(f"i{number}", f"steel tool number {number}") for number in range(12)))
    await service.feed(service.log.user("ann", "green tea"))
    await service.feed(service.log.item("new", "green tea", headers={"traceparent": PARENT}))
    await service.settle()
    assert service.lists()[-1]["trigger"]["kind"] == "item"
    assert (await sent_headers(service))["traceparent"] == PARENT
    await service.feed(service.log.item("new", None, headers={"traceparent": OTHER}))
    await service.settle()
    assert "new" not in [one["item_id"] for one in service.lists()[-1]["items"]]
    assert (await sent_headers(service))["traceparent"] == OTHER, "one that leaves, too"


async def test_a_span_continues_the_trace_and_is_named_in_the_list() -> None:
    from dataclasses import replace

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = Tracer(provider)
    service = await Service().open()
    service.setting = replace(service.setting, hooks=replace(service.setting.hooks, trace=tracer.begin))
    service._make_worker()
    await service.feed(service.log.item("tea", "green tea"))
    await service.feed(
        service.log.event("e1", "ann", "view", "tea", headers={"traceparent": OTHER}),
        service.log.event("e2", "ann", "like", "tea", headers={"traceparent": PARENT, "tracestate": b"a=b"}),
    )
    headers = await sent_headers(service)
    assert not exporter.get_finished_spans()
    tracer.finish(service.reports[-1])
    (span,) = [one for one in exporter.get_finished_spans() if one.name == "recommend"]
    stages = [one for one in exporter.get_finished_spans() if one.name != "recommend"]
    context = span.get_span_context()
    assert headers["traceparent"].decode() == f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
    assert f"{context.trace_id:032x}" == PARENT.decode().split("-")[1], "the trace goes on"
    assert headers["tracestate"] == b"a=b"
    assert f"{span.parent.span_id:016x}" == PARENT.decode().split("-")[2]
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == OTHER.decode().split("-")[1]
    (value,) = service.lists()
    assert span.attributes["coldstream.recommendation_id"] == value["recommendation_id"]
    assert span.attributes["coldstream.event_id"] == "e2"
    assert "ann" not in str(dict(span.attributes))
    assert {"rank", "persist", "emit"} <= {stage.name for stage in stages}
    assert all(stage.parent.span_id == context.span_id for stage in stages)
    assert all(one.start_time <= two.start_time for one, two in itertools.pairwise(stages))
    await service.feed(service.log.event("e3", "ann", "like", "tea"))
    tracer.abandon("rebalance")
    last = exporter.get_finished_spans()[-1]
    assert (last.status.status_code.name, last.status.description) == ("ERROR", "rebalance")
    assert last.parent is None, "a record without a context begins a trace"


def test_nothing_of_opentelemetry_is_loaded_where_it_is_not_asked_for():
    assert isinstance(open_tracer(Settings()), Silence)
    script = "import streams.app, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_traces_without_the_extra_are_refused_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'coldstream\[otel\]'"):
        open_tracer(Settings(traces=True))
