from __future__ import annotations

import math
import re
from collections import Counter

from streams.flow.report import BatchReport, Census, Emission, Reach
from streams.metrics import MEASURES, STAGES, Kind, Metrics
from streams.values import Strategy, TriggerKind


def read(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_names_kinds_and_help_follow_the_rules():
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    for measure in MEASURES:
        assert re.fullmatch(r"coldstream_[a-z_]+", measure.name)
        assert measure.name.endswith("_total") == (measure.kind is Kind.COUNTER), measure.name
        assert bool(measure.buckets) == (measure.kind is Kind.HISTOGRAM), measure.name
        assert list(measure.buckets) == sorted(measure.buckets)
        assert measure.help
        assert not measure.help.endswith(".")


def test_a_report_is_counted():
    metrics = Metrics()
    report = BatchReport(
        records=Counter(events=3, items=1),
        outcomes=Counter({("events", "new"): 2, ("events", "after_erasure"): 1}),
        dead_letters=Counter(schema=2),
        emissions=[
            Emission(TriggerKind.EVENT, Strategy.PERSONAL, (0.02, 0.3)),
            Emission(TriggerKind.ITEM, Strategy.PROFILE, (1.2,)),
            Emission(TriggerKind.EVENT, Strategy.PERSONAL, (), "b"),
        ],
        tombstones=1,
        conflated=1,
        embedded_texts=4,
        cached_users=5,
        loaded_users=2,
        list_users=Counter({("sent", "cold"): 3}),
        places=Counter({("new", "b"): 4}),
        first_seconds=[0.2, 7000.0],
        diversities=[("b", 0.45)],
        refreshes_dropped=7,
        stages={"rank": 0.004},
    )
    metrics.observe(report)
    metrics.observe(report)
    seen = read(metrics)
    assert seen["coldstream_batch_records_sum"] == 8
    assert seen['coldstream_records_total{topic="events"}'] == 6
    assert seen['coldstream_outcomes_total{outcome="new",topic="events"}'] == 4
    assert seen['coldstream_after_erasure_total{topic="events"}'] == 2
    assert seen['coldstream_dead_letters_total{reason="schema"}'] == 4
    assert seen['coldstream_recommendations_total{arm="",strategy="personal",trigger="event"}'] == 2
    assert seen['coldstream_recommendations_total{arm="b",strategy="personal",trigger="event"}'] == 2
    assert seen['coldstream_event_to_recommendation_seconds_count{arm=""}'] == 4
    assert seen['coldstream_event_to_recommendation_seconds_bucket{arm="",le="0.1"}'] == 2
    assert seen["coldstream_item_to_recommendation_seconds_sum"] == 2.4
    assert seen['coldstream_stage_seconds_count{stage="rank"}'] == 2
    assert seen['coldstream_user_lookups_total{cache="hit"}'] == 10
    assert seen['coldstream_refreshes_total{outcome="dropped"}'] == 14
    assert seen["coldstream_encoder_batch_texts_sum"] == 8
    assert seen['coldstream_user_lists_total{outcome="sent",user="cold"}'] == 6
    assert seen['coldstream_list_places_total{arm="b",item="new"}'] == 8
    assert seen['coldstream_item_first_recommended_seconds_bucket{le="0.25"}'] == 2
    assert seen['coldstream_item_first_recommended_seconds_bucket{le="3600.0"}'] == 2
    assert seen["coldstream_item_first_recommended_seconds_count"] == 4
    assert seen['coldstream_list_diversity_bucket{arm="b",le="0.5"}'] == 2


def test_a_census_is_shown_by_arm():
    metrics = Metrics()
    metrics.show_census(Census(0.25, 0.0, {"a": Reach(0.5, 0.75, 9.5), "b": Reach(0.0, math.nan, math.nan)}))
    seen = read(metrics)
    assert seen["coldstream_catalogue_cold"] == 0.25
    assert seen['coldstream_catalogue_coverage{arm="a"}'] == 0.5
    assert seen['coldstream_catalogue_gini{arm="a"}'] == 0.75
    assert seen['coldstream_catalogue_novelty_bits{arm="a"}'] == 9.5
    assert math.isnan(seen['coldstream_catalogue_gini{arm="b"}'])


def test_a_record_from_a_clock_that_is_ahead_counts_as_at_once():
    metrics = Metrics()
    metrics.observe(BatchReport(emissions=[Emission(TriggerKind.EVENT, Strategy.POPULAR, (-0.4,))]))
    seen = read(metrics)
    assert seen['coldstream_event_to_recommendation_seconds_sum{arm=""}'] == 0
    assert seen['coldstream_event_to_recommendation_seconds_count{arm=""}'] == 1


def test_holds_and_lag():
    metrics = Metrics()
    metrics.hold("index")
    metrics.show_lag({("events", 0): 5, ("events", 1): 6})
    metrics.show_lag({("events", 1): 7})
    seen = read(metrics)
    assert seen['coldstream_holding{cause="index"}'] == 1
    assert seen['coldstream_lag_records{partition="1",topic="events"}'] == 7
    assert 'coldstream_lag_records{partition="0",topic="events"}' not in seen
    metrics.hold(None)
    seen = read(metrics)
    assert seen['coldstream_holding{cause="index"}'] == 0
    assert seen['coldstream_holds_total{cause="index"}'] == 1


def test_series_with_known_labels_exist_from_the_start_and_are_few():
    seen = read(Metrics())
    assert seen['coldstream_dead_letters_total{reason="time"}'] == 0
    assert all(f'coldstream_stage_seconds_count{{stage="{stage}"}}' in seen for stage in STAGES)
    assert seen['coldstream_event_to_recommendation_seconds_count{arm=""}'] == 0
    trial = read(Metrics({"a": 1, "b": 2}))
    assert trial['coldstream_event_to_recommendation_seconds_count{arm="b"}'] == 0
    assert 'coldstream_event_to_recommendation_seconds_count{arm=""}' not in trial
    assert not any("_created" in name for name in seen)
    assert len(seen) < 600
