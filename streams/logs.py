"""What a worker tells of what it does: log lines on stderr, and spans for OpenTelemetry where that is asked for.

Text for people, one JSON object a line for machines. Never a secret, never a user's text: of a record only where it lies
and the ids of event and list.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from streams.errors import ConfigurationError
from streams.flow.parts import CONTEXT, pass_on
from streams.flow.report import BatchReport
from streams.settings import Settings
from streams.values import Record, TriggerKind
from streams.wire import Recommendation, to_rfc3339

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

QUIET: Final = ("faust", "aiokafka", "mode", "asyncio", "aiohttp")
"""Libraries of which only warnings are of interest to an operator."""
REFUSALS: Final = "streams.flow.decoded"
"""The logger that has a line for each dead letter."""
MOST_REFUSALS_PER_SECOND: Final = 20
KAFKA: Final = (
    "aiokafka",
    *(f"aiokafka.{name}" for name in ("conn", "consumer.fetcher", "consumer.group_coordinator", "producer.sender")),
)
"""Loggers that say the same thing ten times a second while a broker is away."""
MOST_OF_KAFKA_PER_SECOND: Final = 2
NANOSECONDS: Final = 1_000_000_000

log = logging.getLogger("coldstream.lists")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, error; and what was given as `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "at": to_rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        line.update(_fields(record))
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextFormatter(logging.Formatter):
    """A line for people; what was given as `fields` stands behind it as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """The line without a traceback."""
        fields = "".join(f" {name}={value!r}" for name, value in _fields(record).items())
        return super().formatMessage(record) + fields


class Few(logging.Filter):
    """Lets so many lines pass each second, and says then how many it has held back: a flood of bad records is one."""

    def __init__(self, per_second: int) -> None:
        super().__init__()
        self._per_second = per_second
        self._second = 0
        self._passed = 0
        self._held = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if int(record.created) != self._second:
            self._second, self._passed = int(record.created), 0
        self._passed += 1
        if self._passed > self._per_second:
            self._held += 1
            return False
        if self._held:
            record.msg = f"{record.msg} ({self._held} more like this were not written)"
            self._held = 0
        return True


def set_up_logging(settings: Settings) -> None:
    """One handler on the root, at the settings' level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger(REFUSALS).filters[:] = [Few(MOST_REFUSALS_PER_SECOND)]
    for name in KAFKA:
        logging.getLogger(name).filters[:] = [Few(MOST_OF_KAFKA_PER_SECOND)]


def log_list(value: Recommendation, seconds: float | None) -> None:
    """A list was delivered, so long after the record that it answers; a line with COLDSTREAM_LOG_LEVEL=DEBUG only."""
    if log.isEnabledFor(logging.DEBUG):
        fields = {
            "recommendation_id": value.recommendation_id, **_named(value), "strategy": value.strategy.value,
            "arm": value.arm, "ranker": value.ranker, "seconds": None if seconds is None else round(seconds, 4),
        }  # fmt: skip
        log.debug("list sent", extra={"fields": fields})


class Tracer:
    """A span for each list: from the record that it answers to its delivery, with the stages of its batch below it.

    The span continues the trace that the record's headers name, is linked to those of the other records that the list
    answers, and is named in the list's own headers (W3C Trace Context). Where to and how many: OpenTelemetry's own
    variables, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER before all. All calls come from one event loop.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("coldstream")
        self._propagator = TraceContextTextMapPropagator()
        self._open: list[Span] = []

    def begin(self, records: Sequence[Record], value: Recommendation) -> tuple[tuple[str, bytes], ...]:
        """A list is about to be sent that answers `records`: the headers that go with it."""
        from opentelemetry import trace

        contexts = [self._propagator.extract(_carrier(record)) for record in records]
        named = [trace.get_current_span(context).get_span_context() for context in contexts]
        latest = next((place for place in reversed(range(len(named))) if named[place].is_valid), len(named) - 1)
        span = self._tracer.start_span(
            "recommend",
            contexts[latest] if contexts else None,
            kind=trace.SpanKind.CONSUMER,
            start_time=int(records[latest].time * NANOSECONDS) if records else None,
            links=[trace.Link(one) for place, one in enumerate(named) if one.is_valid and place != latest],
            attributes={
                "messaging.system": "kafka", "coldstream.recommendation_id": value.recommendation_id,
                **{f"coldstream.{name}": text for name, text in _named(value).items()},
                "coldstream.strategy": value.strategy.value, "coldstream.arm": value.arm,
                "coldstream.ranker": value.ranker, "coldstream.conflated": len(value.conflated),
            },
        )  # fmt: skip
        self._open.append(span)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        return tuple((name, text.encode()) for name, text in carrier.items())

    def finish(self, report: BatchReport) -> None:
        """The batch of the open spans is acknowledged."""
        from opentelemetry import trace

        now = time.time_ns()
        for span in self._open:
            if span.is_recording():
                at = now - int(sum(report.stages.values()) * NANOSECONDS)
                for stage, seconds in report.stages.items():
                    child = self._tracer.start_span(stage, trace.set_span_in_context(span), start_time=at)
                    at += int(seconds * NANOSECONDS)
                    child.end(at)
            span.end(now)
        self._open.clear()

    def abandon(self, why: str) -> None:
        """The batch of the open spans was given up; what is sent for its records later has spans of its own."""
        from opentelemetry import trace

        for span in self._open:
            span.set_status(trace.Status(trace.StatusCode.ERROR, why))
            span.end()
        self._open.clear()


class Silence:
    """What stands for a `Tracer` where no traces are asked for: the trace context of a record goes with its list."""

    def begin(self, records: Sequence[Record], value: Recommendation) -> tuple[tuple[str, bytes], ...]:
        """The headers of the list."""
        return pass_on(records, value)

    def finish(self, report: BatchReport) -> None:
        """Nothing."""

    def abandon(self, why: str) -> None:
        """Nothing."""


def open_tracer(settings: Settings) -> Tracer | Silence:
    """The tracer of the settings. Raises `ConfigurationError` where OpenTelemetry is asked for and not installed."""
    if not settings.traces:
        return Silence()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "COLDSTREAM_TRACES needs OpenTelemetry: pip install 'coldstream[otel]', or set it to false"
        ) from error
    resource = Resource.create({"service.name": "coldstream", "service.instance.id": settings.instance_id})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _named(value: Recommendation) -> dict[str, str]:
    """The event that a list answers, if it is one."""
    return {"event_id": value.trigger.id} if value.trigger.kind is TriggerKind.EVENT else {}


def _carrier(record: Record) -> dict[str, str]:
    return {name: value.decode("ascii", "replace") for name, value in record.headers if name in CONTEXT}
