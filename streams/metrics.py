"""Every Prometheus metric, defined once: name, kind, help, labels with their possible values, buckets.

Dashboards, alerts and docs are generated from `MEASURES`; nothing else names a metric. Label values are bounded: none
is an id of a user or an item. The flow knows nothing of this module; what it did comes as a `BatchReport`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from streams.decide.arms import PARTS
from streams.decide.policy import Protected
from streams.errors import REASONS
from streams.flow.learning import EXPERTS, Insight
from streams.flow.report import BatchReport, Census
from streams.values import EventType, Strategy, Topic, TriggerKind

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter and histogram, which nothing here asks for


class Kind(StrEnum):
    """The kinds of Prometheus metrics that are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


STAGES: Final = ("decode", "load", "apply", "embed", "items", "rank", "signals", "persist", "emit")
"""The stages of a batch, in order. `rank` is retrieval, features, score, re-ranking and reasons."""
PLACES: Final = (*(str(place) for place in range(1, 11)), "none")
CONSUMED: Final = (Topic.ITEMS, Topic.USERS, Topic.EVENTS, Topic.REFRESHES, Topic.SIGNALS, Topic.LESSONS)

SERVICE_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Around the objective of 0.1 s, and far enough to see an outage."""
STAGE_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
HTTP_SECONDS: Final = STAGE_SECONDS[3:]
FIRST_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
"""From at once to a day: what nobody is shown for long is worth to be seen."""
SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

Values = tuple[str, ...] | str
"""A label's possible values, or a sentence about what bounds them."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric. `name` is the series' name on /metrics (of a histogram: without _bucket, _sum, _count)."""

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, Values] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


def _values(words: Iterable[StrEnum]) -> tuple[str, ...]:
    return tuple(word.value for word in words)


_TOPICS: Final = _values(CONSUMED)
_ARMS: Final = "the configured arms; empty without a trial"
_CAUSES: Final = ("index", "broker", "encoder", "other")
_RANKERS: Final = ("prior", "learned")
_STRATEGIES: Final = _values(Strategy)
_ITEM_KINDS: Final = ("cold", "warm")
_USER_KINDS: Final = ("known", "cold")
_LISTS: Final = ("coldstream", "popular")

MEASURES: Final[tuple[Measure, ...]] = (
    Measure("coldstream_build_info", Kind.GAUGE, "1; the release and the Python that run",
            {"version": "one a process", "python": "one a process"}),
    Measure("coldstream_encoder_info", Kind.GAUGE, "1; the encoder in use and where it runs",
            {"encoder": "one a process", "provider": ("cpu", "cuda"), "dimension": "one a process"}),
    Measure("coldstream_encoder_fallback", Kind.GAUGE,
            "1 where the encoder runs on the CPU of a machine that has a GPU"),
    Measure("coldstream_index_info", Kind.GAUGE, "1; the index in use", {"index": ("edge", "qdrant", "exact")}),
    Measure("coldstream_ready", Kind.GAUGE, "1 where /readyz answers 200"),
    Measure("coldstream_event_to_recommendation_seconds", Kind.HISTOGRAM,
            "From an event record's own time to the delivery of the list that answers it", {"arm": _ARMS}, SERVICE_SECONDS),
    Measure("coldstream_user_to_recommendation_seconds", Kind.HISTOGRAM,
            "From a user record's own time to the delivery of the list that answers it", buckets=SERVICE_SECONDS),
    Measure("coldstream_item_to_recommendation_seconds", Kind.HISTOGRAM,
            "From a new item's record time to the delivery of a list that it entered without the user's doing",
            buckets=SERVICE_SECONDS),
    Measure("coldstream_item_first_recommended_seconds", Kind.HISTOGRAM,
            "From a new item's record (or published_at, where that is later) to the first list of this worker that it stood "
            "in, whoever's and why ever; of items that came since the worker started", buckets=FIRST_SECONDS),
    Measure("coldstream_stage_seconds", Kind.HISTOGRAM, "Seconds of a batch spent in a stage", {"stage": STAGES},
            STAGE_SECONDS),
    Measure("coldstream_batch_records", Kind.HISTOGRAM, "Records in a batch", buckets=SIZES),
    Measure("coldstream_encoder_batch_texts", Kind.HISTOGRAM, "Texts embedded in one call", buckets=SIZES),
    Measure("coldstream_records_total", Kind.COUNTER, "Records taken into batches", {"topic": _TOPICS}),
    Measure("coldstream_outcomes_total", Kind.COUNTER, "What records came to: new, redelivery, duplicate, …",
            {"topic": _TOPICS, "outcome": "a dozen words of the flow"}),
    Measure("coldstream_after_erasure_total", Kind.COUNTER, "Records dropped since their user was erased after them",
            {"topic": _TOPICS}),
    Measure("coldstream_dead_letters_total", Kind.COUNTER, "Records refused and buried",
            {"reason": REASONS}),
    Measure("coldstream_recommendations_total", Kind.COUNTER, "Lists delivered, repeated ones included",
            {"trigger": _values(TriggerKind), "strategy": _STRATEGIES, "arm": _ARMS}),
    Measure("coldstream_choices_total", Kind.COUNTER,
            "First positive events of a user with an item, by the place that it had in their last list, or in a list "
            "of what is popular", {"list": _LISTS, "place": PLACES, "user": _USER_KINDS}),
    Measure("coldstream_hits_total", Kind.COUNTER,
            "The same choices by what the user's last list rested on (unknown: it is forgotten), their arm, and whether "
            "the item (cold: nobody had met it) stood in the first ten",
            {"list": _LISTS, "strategy": (*_STRATEGIES, "unknown"), "arm": _ARMS, "item": _ITEM_KINDS,
             "hit": ("yes", "no")}),
    Measure("coldstream_attributed_events_total", Kind.COUNTER,
            "Events that name the list they came from: it is remembered and holds the item (listed), does not hold it "
            "(elsewhere), or is forgotten",
            {"type": _values(EventType), "found": ("listed", "elsewhere", "forgotten")}),
    Measure("coldstream_list_outcomes_total", Kind.COUNTER,
            "Lists by what came of them, on the topic and asked for by HTTP: sent; clicked (an event of any type but "
            "dislike, skip and search names list and item), converted (a purchase, like or good rating does); each list "
            "counts once for each",
            {"outcome": ("sent", "clicked", "converted"), "strategy": _STRATEGIES, "arm": _ARMS, "ranker": _RANKERS}),
    Measure("coldstream_list_ranks_total", Kind.COUNTER,
            "Sum of the places (1 is the first) of each list's first click, or conversion: divided by such lists it is "
            "the mean rank",
            {"outcome": ("clicked", "converted"), "strategy": _STRATEGIES, "arm": _ARMS, "ranker": _RANKERS}),
    Measure("coldstream_list_events_total", Kind.COUNTER,
            "Clicks and conversions that were joined with their list, by the place that the item had in it",
            {"action": ("click", "conversion"), "place": PLACES, "arm": _ARMS, "item": _ITEM_KINDS}),
    Measure("coldstream_user_lists_total", Kind.COUNTER,
            "The lists of coldstream_list_outcomes_total by whether their user had a history (known) or none (cold)",
            {"outcome": ("sent", "clicked", "converted"), "user": _USER_KINDS}),
    Measure("coldstream_list_diversity", Kind.HISTOGRAM,
            "1 - the mean cosine of two items of a list; one list of each batch", {"arm": _ARMS}, SHARES),
    Measure("coldstream_list_places_total", Kind.COUNTER,
            "Places of lists: items that nobody has met (cold), that came within seven days (new), other",
            {"item": ("cold", "new", "other"), "arm": _ARMS}),
    Measure("coldstream_floor_places_total", Kind.COUNTER,
            "Places of lists by group of items that may have an exposure floor (new; of small providers): all of them, those "
            "that the floor promises to the group, those it holds, and those owed that no candidate could take (short)",
            {"group": _values(Protected), "places": ("all", "promised", "held", "short"), "arm": _ARMS}),
    Measure("coldstream_catalogue_coverage", Kind.GAUGE,
            "Share of the recommendable items that stood in a list of this worker within the last hour", {"arm": _ARMS}),
    Measure("coldstream_catalogue_gini", Kind.GAUGE,
            "Gini coefficient of the exposure of the recommendable items in lists of this worker, which fades by half each "
            "hour: 0 all alike, 1 one alone; NaN without lists", {"arm": _ARMS}),
    Measure("coldstream_catalogue_novelty_bits", Kind.GAUGE,
            "Mean of -log2 of a shown item's share of all events, by the same exposure; NaN without lists", {"arm": _ARMS}),
    Measure("coldstream_catalogue_cold", Kind.GAUGE, "Share of the recommendable items that nobody has met yet"),
    Measure("coldstream_catalogue_foreign", Kind.GAUGE,
            "Share of the recommendable items whose vectors another encoder made; of a sample of 2,000"),
    Measure("coldstream_encoder_agreement", Kind.GAUGE,
            "Smallest cosine of the golden texts' vectors with those of the bundle's maker; measured every hour"),
    Measure("coldstream_ranker_weight", Kind.GAUGE,
            "Share of the ranker's weights (absolute, on scaled features) that a part of the score has",
            {"part": PARTS, "user": _USER_KINDS}),
    Measure("coldstream_ranker_share", Kind.GAUGE,
            "Share of an expert in what ranks: the learned weights, the shipped prior, single features taken together",
            {"expert": EXPERTS, "user": _USER_KINDS}),
    Measure("coldstream_ranker_lessons", Kind.GAUGE, "Lessons that the weights in use were learned from"),
    Measure("coldstream_ranker_frozen", Kind.GAUGE, "1 while the ranker learns nothing, by order of an operator"),
    Measure("coldstream_tombstones_total", Kind.COUNTER, "Tombstones sent for erased users"),
    Measure("coldstream_conflated_total", Kind.COUNTER, "Triggers that shared another trigger's list"),
    Measure("coldstream_user_lookups_total", Kind.COUNTER, "Users needed by batches: found in memory (hit) or not",
            {"cache": ("hit", "miss")}),
    Measure("coldstream_signals_total", Kind.COUNTER, "Signals sent to the owners of items' statistics"),
    Measure("coldstream_refreshes_total", Kind.COUNTER,
            "Refreshes of the fan-out: sent, or dropped (over budget, or for somebody unknown)",
            {"outcome": ("sent", "dropped")}),
    Measure("coldstream_lost_writes_total", Kind.COUNTER,
            "Conditional writes that another writer had won; each was applied again"),
    Measure("coldstream_misrouted_total", Kind.COUNTER, "Records of a user on another partition than the user's home"),
    Measure("coldstream_abandoned_batches_total", Kind.COUNTER, "Batches given up unacknowledged",
            {"why": ("rebalance", "stop", "age")}),
    Measure("coldstream_holding", Kind.GAUGE, "1 while the batch in hand waits for a neighbour", {"cause": _CAUSES}),
    Measure("coldstream_holds_total", Kind.COUNTER, "Times a batch began to wait for a neighbour", {"cause": _CAUSES}),
    Measure("coldstream_seconds_since_progress", Kind.GAUGE,
            "Since a batch was last finished while records were waiting; the watchdog ends the process on too many"),
    Measure("coldstream_lag_records", Kind.GAUGE, "Records of an owned partition not acknowledged yet",
            {"topic": _TOPICS, "partition": "the partitions owned"}),
    Measure("coldstream_buffered_records", Kind.GAUGE, "Records in the buffer", {"topic": _TOPICS}),
    Measure("coldstream_known_items", Kind.GAUGE, "Items held in memory for ranking"),
    Measure("coldstream_http_requests_total", Kind.COUNTER, "HTTP requests answered",
            {"route": "the routes of /openapi.json", "status": ("2xx", "3xx", "4xx", "5xx")}),
    Measure("coldstream_http_seconds", Kind.HISTOGRAM, "Seconds to answer an HTTP request",
            {"route": "the routes of /openapi.json"}, HTTP_SECONDS),
)  # fmt: skip

_ANSWER_SECONDS: Final = {
    TriggerKind.EVENT: "coldstream_event_to_recommendation_seconds",
    TriggerKind.USER: "coldstream_user_to_recommendation_seconds",
    TriggerKind.ITEM: "coldstream_item_to_recommendation_seconds",
}


class Metrics:
    """The metrics of one process, in a registry of their own. Not thread-safe beyond what prometheus_client is.

    Series whose label values are known beforehand exist from the start at 0, so that a rate sees the first one.
    """

    def __init__(self, arms: Iterable[str] = ("",)) -> None:
        self._arms = tuple(arms)
        self.registry = CollectorRegistry()
        self._metrics = {measure.name: self._make(measure) for measure in MEASURES}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.gauge("coldstream_build_info", version=version("coldstream"), python=platform.python_version()).set(1)

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter of that name and these label values. Raises `KeyError` for a name that is not in `MEASURES`."""
        metric = self._metrics[name]
        assert isinstance(metric, Counter)
        return metric.labels(**labels) if labels else metric

    def gauge(self, name: str, **labels: str) -> Gauge:
        """The gauge of that name and these label values."""
        metric = self._metrics[name]
        assert isinstance(metric, Gauge)
        return metric.labels(**labels) if labels else metric

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram of that name and these label values."""
        metric = self._metrics[name]
        assert isinstance(metric, Histogram)
        return metric.labels(**labels) if labels else metric

    def render(self) -> bytes:
        """The text that Prometheus reads (exposition format 0.0.4)."""
        return generate_latest(self.registry)

    def observe(self, report: BatchReport) -> None:
        """Count what one batch did. Called once a batch, after its offsets were acknowledged."""
        self.histogram("coldstream_batch_records").observe(report.size)
        for stage, seconds in report.stages.items():
            self.histogram("coldstream_stage_seconds", stage=stage).observe(seconds)
        if report.embedded_texts:
            self.histogram("coldstream_encoder_batch_texts").observe(report.embedded_texts)
        for topic, count in report.records.items():
            self.counter("coldstream_records_total", topic=topic).inc(count)
        for (topic, outcome), count in report.outcomes.items():
            self.counter("coldstream_outcomes_total", topic=topic, outcome=outcome).inc(count)
            if outcome == "after_erasure":
                self.counter("coldstream_after_erasure_total", topic=topic).inc(count)
        for reason, count in report.dead_letters.items():
            self.counter("coldstream_dead_letters_total", reason=reason).inc(count)
        for emission in report.emissions:
            self.counter("coldstream_recommendations_total", trigger=emission.kind.value,
                         strategy=emission.strategy.value, arm=emission.arm).inc()  # fmt: skip
            if emission.kind in _ANSWER_SECONDS:
                labels = {"arm": emission.arm} if emission.kind is TriggerKind.EVENT else {}
                histogram = self.histogram(_ANSWER_SECONDS[emission.kind], **labels)
                for seconds in emission.seconds:
                    histogram.observe(max(seconds, 0.0))  # clocks of two machines may differ by a little
        self._observe_choices(report)
        self.counter("coldstream_tombstones_total").inc(report.tombstones)
        self.counter("coldstream_conflated_total").inc(report.conflated)
        self.counter("coldstream_user_lookups_total", cache="hit").inc(report.cached_users)
        self.counter("coldstream_user_lookups_total", cache="miss").inc(report.loaded_users)
        self.counter("coldstream_signals_total").inc(report.signals)
        self.counter("coldstream_refreshes_total", outcome="sent").inc(report.refreshes_sent)
        self.counter("coldstream_refreshes_total", outcome="dropped").inc(report.refreshes_dropped)
        self.counter("coldstream_lost_writes_total").inc(report.lost_writes)
        self.counter("coldstream_misrouted_total").inc(report.misrouted)

    def _observe_choices(self, report: BatchReport) -> None:
        for (list_, place, user), count in report.choices.items():
            self.counter("coldstream_choices_total", list=list_, place=place, user=user).inc(count)
        for (type_, found), count in report.attributed.items():
            self.counter("coldstream_attributed_events_total", type=type_, found=found).inc(count)
        for (list_, strategy, arm, item, hit), count in report.hits.items():
            self.counter("coldstream_hits_total", list=list_, strategy=strategy, arm=arm, item=item, hit=hit).inc(count)
        self._observe_lists(report)

    def _observe_lists(self, report: BatchReport) -> None:
        for (outcome, made), count in report.list_outcomes.items():
            self.counter("coldstream_list_outcomes_total", outcome=outcome, **made._asdict()).inc(count)
        for (outcome, made), count in report.list_ranks.items():
            self.counter("coldstream_list_ranks_total", outcome=outcome, **made._asdict()).inc(count)
        for (action, place, arm, item), count in report.list_events.items():
            self.counter("coldstream_list_events_total", action=action, place=place, arm=arm, item=item).inc(count)
        for (outcome, user), count in report.list_users.items():
            self.counter("coldstream_user_lists_total", outcome=outcome, user=user).inc(count)
        for (item, arm), count in report.places.items():
            self.counter("coldstream_list_places_total", item=item, arm=arm).inc(count)
        for (group, places, arm), amount in report.floors.items():
            self.counter("coldstream_floor_places_total", group=group, places=places, arm=arm).inc(amount)
        for seconds in report.first_seconds:
            self.histogram("coldstream_item_first_recommended_seconds").observe(seconds)
        for arm, diversity in report.diversities:
            self.histogram("coldstream_list_diversity", arm=arm).observe(diversity)

    def show_census(self, census: Census) -> None:
        """What the catalogue looks like now."""
        for arm, reach in census.reach.items():
            self.gauge("coldstream_catalogue_coverage", arm=arm).set(reach.coverage)
            self.gauge("coldstream_catalogue_gini", arm=arm).set(reach.gini)
            self.gauge("coldstream_catalogue_novelty_bits", arm=arm).set(reach.novelty)
        self.gauge("coldstream_catalogue_cold").set(census.cold)
        self.gauge("coldstream_catalogue_foreign").set(census.foreign)

    def show_ranker(self, insight: Insight) -> None:
        """What ranks now."""
        self.gauge("coldstream_ranker_lessons").set(insight.lessons)
        self.gauge("coldstream_ranker_frozen").set(insight.frozen)
        for user, kind in enumerate(_USER_KINDS):
            for part, share in insight.parts[user].items():
                self.gauge("coldstream_ranker_weight", part=part, user=kind).set(share)
            for expert, share in insight.experts[user].items():
                self.gauge("coldstream_ranker_share", expert=expert, user=kind).set(share)

    def show_lag(self, lag: Mapping[tuple[str, int], int]) -> None:
        """Lag by (topic, partition) of the partitions owned now; those of others disappear."""
        self.gauge("coldstream_lag_records").clear()
        for (topic, partition), records in lag.items():
            self.gauge("coldstream_lag_records", topic=topic, partition=str(partition)).set(records)

    def hold(self, cause: str | None) -> None:
        """The batch in hand began to wait for `cause` (index, broker); None: it goes on."""
        for known in _CAUSES:
            self.gauge("coldstream_holding", cause=known).set(known == cause)
        if cause is not None:
            self.counter("coldstream_holds_total", cause=cause).inc()

    def _make(self, measure: Measure) -> Counter | Gauge | Histogram:
        names = tuple(measure.labels)
        if measure.kind is Kind.HISTOGRAM:
            metric: Counter | Gauge | Histogram = Histogram(
                measure.name, measure.help, names, registry=self.registry, buckets=measure.buckets
            )
        elif measure.kind is Kind.COUNTER:
            metric = Counter(measure.name, measure.help, names, registry=self.registry)
        else:
            metric = Gauge(measure.name, measure.help, names, registry=self.registry)
        if len(names) == 1 and not isinstance(measure.labels[names[0]], str):
            for value in measure.labels[names[0]]:
                metric.labels(value)
        elif names == ("arm",) and measure.kind is not Kind.GAUGE:
            for arm in self._arms:
                metric.labels(arm)
        return metric
