"""The alerts: what fires when, and a story in which it does and one in which it does not.

An alert fires where every test of any of its groups holds for `hold`. `page` wakes somebody; `ticket` waits for the
morning. What to do then stands in docs/runbook.md under the alert's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from grafana import catalogue, recommendations, service
from grafana.service import OBJECTIVE

WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""Windows over which the share of late events is recorded."""


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison: `query` has data always, `sign limit` decides."""

    query: str
    sign: str
    limit: float

    @property
    def expression(self) -> str:
        """The PromQL of the comparison."""
        return f"{self.query} {self.sign} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Case:
    """A story for promtool: series with their values (its notation), and when to look."""

    series: tuple[tuple[str, str], ...]
    at: str
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that the alert is expected to carry beside its severity."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert with the story in which it fires and the one in which it doesn't; a second one for another group."""

    name: str
    severity: str
    hold: str
    any_of: tuple[tuple[Test, ...], ...]
    summary: str
    meaning: str
    fires: Case
    quiet: Case
    also: tuple[Case, ...] = ()
    """Further stories in which it fires: each of `any_of` has one."""

    @property
    def expression(self) -> str:
        """The PromQL of the whole condition."""
        groups = [" and ".join(test.expression for test in group) for group in self.any_of]
        return groups[0] if len(groups) == 1 else " or ".join(f"({group})" for group in groups)

    @property
    def queries(self) -> tuple[str, ...]:
        """What it asks, without the comparisons."""
        return tuple(test.query for group in self.any_of for test in group)


def recorded(window: str) -> str:
    """Name of the recorded share of late events over a window."""
    return f"coldstream:late_share:ratio_rate{window}"


def burn(factor: float, long: str, short: str) -> tuple[Test, ...]:
    """The budget is spent `factor` times too fast over a long window, and still is over a short one."""
    limit = factor * (1 - OBJECTIVE)
    return (Test(recorded(long), ">", limit), Test(recorded(short), ">", limit))


def _events(on_time: str, all_: str) -> tuple[tuple[str, str], ...]:
    name = "coldstream_event_to_recommendation_seconds"
    labels = 'job="coldstream", instance="a"'
    return (
        (f'{name}_bucket{{le="0.1", {labels}}}', on_time),
        (f"{name}_count{{{labels}}}", all_),
    )


def _one(series: str, values: str, at: str, **labels: str) -> Case:
    return Case(((series, values),), at, labels)


def _choices(arm: str, found: str, missed: str) -> tuple[tuple[str, str], ...]:
    labels = f'list="coldstream", strategy="personal", item="warm", arm="{arm}"'
    name = "coldstream_hits_total"
    return ((f'{name}{{{labels}, hit="yes"}}', found), (f'{name}{{{labels}, hit="no"}}', missed))


_ARMS: Final = recommendations.ARM_HITS.ask(window="1d")
_BEST: Final = f"max({_ARMS})"

ALERTS: Final = (
    Alert(
        "ColdstreamFreshnessBurnsFast", "page", "2m", (burn(14.4, "1h", "5m"), burn(6, "6h", "30m")),
        "So many lists come late that the month's error budget will be gone within days",
        "The share of events whose list came later than 100 ms is at least 14.4 times (over an hour) or 6 times "
        "(over six hours) what the objective allows, and still is.",
        Case(_events("0+8x90", "0+10x90"), "70m"),
        Case(_events("0+999x90", "0+1000x90"), "70m"),
        (Case(_events("0+92x420", "0+100x420"), "6h30m"),),
    ),
    Alert(
        "ColdstreamFreshnessBurnsSlowly", "ticket", "15m", (burn(3, "1d", "2h"), burn(1, "3d", "6h")),
        "More lists come late than the objective allows, for hours",
        "The error budget is spent faster than the days pass, too slowly to wake anybody.",
        Case(_events("0+96x200", "0+100x200"), "3h"),
        Case(_events("0+995x200", "0+1000x200"), "3h"),
        (Case(_events("0+98x300", "0+100x300"), "5h"),),
    ),
    Alert(
        "ColdstreamLagGrows", "page", "10m",
        ((Test("sum by (topic) (coldstream_lag_records)", ">", 1000),
          Test("sum by (topic) (deriv(coldstream_lag_records[10m]))", ">", 0)),),
        "Records wait longer and longer",
        "More than 1,000 records of a topic are not acknowledged, and their number has grown for ten minutes.",
        _one('coldstream_lag_records{topic="events", partition="0"}', "0+200x40", "30m", topic="events"),
        _one('coldstream_lag_records{topic="events", partition="0"}', "5000-100x40", "30m"),
    ),
    Alert(
        "ColdstreamDeadLetters", "ticket", "10m", ((Test(service.DEAD_SHARE.ask(), ">", 0.01),),),
        "More than one record in a hundred is refused",
        "Records are buried on `dead-letters` since they can't be applied; headers carry reason and error of each.",
        Case((('coldstream_dead_letters_total{reason="schema"}', "0+5x30"),
              ('coldstream_records_total{topic="events"}', "0+100x30")), "20m"),
        Case((('coldstream_dead_letters_total{reason="schema"}', "0+0x30"),
              ('coldstream_records_total{topic="events"}', "0+100x30")), "20m"),
    ),
    Alert(
        "ColdstreamWorkerStuck", "page", "1m",
        ((Test("max by (instance) (coldstream_seconds_since_progress)", ">", 30),
          Test("max by (instance) (coldstream_holding)", "<", 1)),),
        "A worker has records and finishes no batch",
        "Records wait, no batch was finished for half a minute, and the worker does not say that it waits for a "
        "neighbour. Its own watchdog ends it after COLDSTREAM_STALL_SECONDS.",
        Case((('coldstream_seconds_since_progress{instance="a"}', "0+15x20"),
              ('coldstream_holding{instance="a", cause="index"}', "0x20")), "10m", {"instance": "a"}),
        Case((('coldstream_seconds_since_progress{instance="a"}', "0+15x20"),
              ('coldstream_holding{instance="a", cause="index"}', "1x20")), "10m"),
    ),
    Alert(
        "ColdstreamHolding", "page", "2m", ((Test("max by (cause) (coldstream_holding)", ">", 0.5),),),
        "Workers wait for a neighbour that is away or refuses",
        "The batch in hand is tried again with backoff; nothing is acknowledged, nothing is lost, no list is made.",
        _one('coldstream_holding{instance="a", cause="index"}', "1x10", "5m", cause="index"),
        _one('coldstream_holding{instance="a", cause="index"}', "1 1 0x10", "5m"),
    ),
    Alert(
        "ColdstreamHoldsOften", "ticket", "5m",
        ((Test("sum by (cause) (increase(coldstream_holds_total[30m]))", ">", 10),),),
        "A neighbour fails again and again, each time briefly",
        "More than ten holds in half an hour; each was survived.",
        _one('coldstream_holds_total{cause="index"}', "0+1x60", "50m", cause="index"),
        _one('coldstream_holds_total{cause="index"}', "0+0x60", "50m"),
    ),
    Alert(
        "ColdstreamNoEvents", "ticket", "10m",
        ((Test('sum(increase(coldstream_records_total{topic="events"}[30m]))', "<", 1),),),
        "No event at all for half an hour",
        "Workers run, and nothing comes in: mostly the producer, sometimes the subscription.",
        _one('coldstream_records_total{topic="events"}', "7x90", "60m"),
        _one('coldstream_records_total{topic="events"}', "0+7x90", "60m"),
    ),
    Alert(
        "ColdstreamNotReady", "page", "5m", ((Test("min by (instance) (coldstream_ready)", "<", 1),),),
        "A worker is up and not ready",
        "/readyz answers 503: no partitions, no living coordinator, index or encoder not ready, or lag unknown.",
        _one('coldstream_ready{instance="a"}', "0x20", "10m", instance="a"),
        _one('coldstream_ready{instance="a"}', "0 0 1x20", "10m"),
    ),
    Alert(
        "ColdstreamDown", "page", "2m", ((Test('up{job="coldstream"}', "<", 1),),),
        "Prometheus reaches a worker no more",
        "The process is gone, or its port is closed to Prometheus.",
        _one('up{job="coldstream", instance="a"}', "0x10", "5m", job="coldstream", instance="a"),
        _one('up{job="coldstream", instance="a"}', "1x10", "5m"),
    ),
    Alert(
        "ColdstreamEncoderOnCpu", "ticket", "10m",
        ((Test("max by (instance) (coldstream_encoder_fallback)", ">", 0.5),),),
        "The encoder runs on the CPU of a machine that has a GPU",
        "CUDA was there to be used and the worker fell back to the CPU: right answers, later.",
        _one('coldstream_encoder_fallback{instance="a"}', "1x30", "20m", instance="a"),
        _one('coldstream_encoder_fallback{instance="a"}', "0x30", "20m"),
    ),
    Alert(
        "ColdstreamEncoderDrifts", "ticket", "10m",
        ((Test("min by (instance) (coldstream_encoder_agreement)", "<", catalogue.AGREED),),),
        "The encoder computes other vectors than it was proved with",
        "The golden texts' vectors differ from those of the bundle's maker by more than the bundle allows. A worker "
        "refuses to start like that, so it began since.",
        _one('coldstream_encoder_agreement{instance="a"}', "0.99 0.99 0.9x30", "25m", instance="a"),
        _one('coldstream_encoder_agreement{instance="a"}', "0.99x30", "25m"),
    ),
    Alert(
        "ColdstreamWorseThanPopular", "ticket", "1h",
        ((Test(recommendations.LEAD.ask(window="6h"), "<", 0),
          Test('sum(increase(coldstream_choices_total{list="coldstream"}[6h]))', ">", 200)),),
        "What is simply popular would have been chosen more often than what was recommended",
        "Over six hours and more than 200 first choices, lists held fewer of them than a list of what is popular.",
        Case((('coldstream_choices_total{list="coldstream", place="1", user="known"}', "0+1x500"),
              ('coldstream_choices_total{list="coldstream", place="none", user="known"}', "0+9x500"),
              ('coldstream_choices_total{list="popular", place="2", user="known"}', "0+3x500"),
              ('coldstream_choices_total{list="popular", place="none", user="known"}', "0+7x500")), "5h"),
        Case((('coldstream_choices_total{list="coldstream", place="1", user="known"}', "0+3x500"),
              ('coldstream_choices_total{list="coldstream", place="none", user="known"}', "0+7x500"),
              ('coldstream_choices_total{list="popular", place="2", user="known"}', "0+1x500"),
              ('coldstream_choices_total{list="popular", place="none", user="known"}', "0+9x500")), "5h"),
    ),
    Alert(
        "ColdstreamArmLoses", "ticket", "1h",
        ((Test(f"({_BEST}) - on () group_right () ({_ARMS})", ">", 0.05),
          Test('sum by (arm) (increase(coldstream_hits_total{list="coldstream", arm!=""}[1d]))', ">", 500)),),
        "An arm of the trial finds far fewer choices than the best one",
        "Over a day and more than 500 first choices of its users, an arm's hit rate is five points below that of the "
        "best arm: its users pay for the trial.",
        Case((*_choices("plain", "0+3x1000", "0+7x1000"), *_choices("bold", "0+1x1000", "0+9x1000")), "12h",
             {"arm": "bold"}),
        Case((*_choices("plain", "0+3x1000", "0+7x1000"), *_choices("bold", "0+3x1000", "0+7x1000")), "12h"),
    ),
    Alert(
        "ColdstreamTwoWriters", "ticket", "30m", ((Test("sum(rate(coldstream_lost_writes_total[15m]))", ">", 0.1),),),
        "Two workers write the same users",
        "Conditional writes lose to another process all the time. Each is applied again, so nothing is lost or "
        "doubled, but one worker is to own all of a user.",
        _one("coldstream_lost_writes_total", "0+30x60", "55m"),
        _one("coldstream_lost_writes_total", "0+1x60", "55m"),
    ),
    Alert(
        "ColdstreamMisrouted", "ticket", "30m",
        ((Test("sum(rate(coldstream_misrouted_total[15m]))"
               ' / sum(rate(coldstream_records_total{topic=~"events|users"}[15m]))', ">", 0.05),),),
        "Records of one user come on several partitions",
        "Producers hash keys differently: Java and aiokafka use murmur2, librdkafka CRC32 unless told otherwise.",
        Case((("coldstream_misrouted_total", "0+20x60"),
              ('coldstream_records_total{topic="events"}', "0+100x60")), "55m"),
        Case((("coldstream_misrouted_total", "0+1x60"),
              ('coldstream_records_total{topic="events"}', "0+100x60")), "55m"),
    ),
    Alert(
        "ColdstreamPaused", "ticket", "0m",
        ((Test('sum(increase(coldstream_abandoned_batches_total{why="age"}[15m]))', ">", 0),),),
        "A worker stood still for longer than half the session timeout",
        "It gave up the batch in hand, as somebody else may own it by now. Nothing is lost.",
        _one('coldstream_abandoned_batches_total{why="age"}', "0 0 0 1x20", "10m"),
        _one('coldstream_abandoned_batches_total{why="age"}', "0x20", "10m"),
    ),
)  # fmt: skip
