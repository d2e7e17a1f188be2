from __future__ import annotations

import pytest

from streams.demo.tally import POPULAR_SECONDS, RecentlyPopular, Tally, is_positive, likes_from
from streams.values import Strategy, TriggerKind
from streams.wire import Recommendation, RecommendationReason, RecommendationTrigger, RecommendedItem

DAY = 86_400.0


def event(identity, user, item, *, at=0.0, kind="click", **fields):
    return {"event_id": identity, "user_id": user, "item_id": item, "type": kind, "timestamp": at, **fields}


def make_list(user, items, *, trigger="x", conflated=(), version=1, kind=TriggerKind.EVENT):
    reason = RecommendationReason("popular", "")
    trigger = RecommendationTrigger(kind, trigger, "")
    return Recommendation(
        "r", user, version, "", trigger, tuple(conflated), Strategy.POPULAR, "enc", "prior",
        tuple(RecommendedItem(item, rank, 0.0, {}, reason) for rank, item in enumerate(items, start=1)),
    )  # fmt: skip


def catalogue(*ids):
    return [{"item_id": identity, "title": identity} for identity in ids]


def test_events_are_answered_by_trigger_and_by_conflation_and_the_rest_is_lost():
    tally = Tally()
    for number in range(4):
        tally.publish_event(event(f"e{number}", "u", "a"), 10.0 + number)
    tally.receive_list(make_list("u", [], trigger="e2", conflated=("e0", "e1")), 13.5)
    assert tally.lost == 1
    assert sorted(tally.latencies) == [1.5, 2.5, 3.5]
    tally.receive_list(make_list("u", [], trigger="e2"), 99.0)
    assert len(tally.latencies) == 3
    assert tally.summary()["lost"] == 1
    assert tally.summary()["recommendations"] == 2
    assert tally.seconds == 3.5


def test_a_refused_event_is_not_lost_and_a_repeated_one_is_answered_once():
    tally = Tally()
    for identity in ("bad", "twice"):
        tally.publish_event(event(identity, "u", "a"), 0.0)
    tally.receive_list(make_list("u", [], trigger="twice"), 1.0)
    tally.publish_event(event("twice", "u", "a"), 2.0)
    tally.receive_dead_letter("bad")
    tally.receive_dead_letter(None)
    assert (tally.lost, tally.dead_letters) == (0, 2)


def test_a_hit_is_an_item_of_the_list_as_it_stood_when_the_event_came():
    tally = Tally()
    tally.publish_items(catalogue("a", "b", "c"))
    tally.publish_event(event("1", "u", "a"), 0.0)  # no list yet: no step
    assert tally.steps == 0
    tally.receive_list(make_list("u", ["b"]), 0.1)
    tally.publish_event(event("2", "u", "b"), 0.2)
    assert (tally.steps, tally.hits) == (1, 1)
    tally.publish_event(event("3", "u", "c"), 0.3)
    tally.receive_list(make_list("u", ["c"], version=2), 0.4)  # too late for c
    assert (tally.steps, tally.hits) == (2, 1)


def test_what_is_no_step():
    tally = Tally()
    tally.publish_items(catalogue("a", "b"))
    tally.receive_list(make_list("u", ["a", "b"]), 0.0)
    tally.publish_event(event("1", "u", "a", kind="rating", value=3.0), 0.0)  # not liked
    tally.publish_event(event("2", "u", "a"), 0.0)  # met before
    tally.publish_event(event("3", "u", "unknown"), 0.0)  # not in the catalogue
    tally.publish_event({"event_id": "4", "user_id": "u", "type": "search", "query": "q", "timestamp": 0}, 0.0)
    tally.publish_event(event("5", "u", "b", kind="dislike"), 0.0)
    assert tally.steps == 0
    assert tally.summary()["hit_rate@10"] is None


def test_an_older_version_never_replaces_a_later_list():
    tally = Tally()
    tally.publish_items(catalogue("a", "b"))
    tally.receive_list(make_list("u", ["a"], version=7), 0.0)
    tally.receive_list(make_list("u", ["b"], version=6), 0.1)
    tally.publish_event(event("1", "u", "a"), 0.2)
    assert tally.hits == 1


def test_popularity_is_of_the_same_steps_as_fresh_as_can_be_and_without_what_was_met():
    tally = Tally()
    tally.publish_items(catalogue("a", "b"))
    tally.publish_event(event("1", "v", "b"), 0.0)
    tally.receive_list(make_list("u", []), 0.0)
    tally.publish_event(event("2", "u", "b"), 0.0)
    assert (tally.steps, tally.hits, tally.popular_hits) == (1, 0, 1)
    assert tally.summary()["hit_rate@10_recent_popular"] == 1.0


def test_recent_popularity_counts_fourteen_days():
    popular = RecentlyPopular()
    popular.add_items([f"i{number}" for number in range(3000)])
    for item, at in (("i2999", 0.0), ("i5", DAY), ("i5", 2 * DAY), ("i7", 2 * DAY)):
        popular.count(item, at)
    assert popular.best(3 * DAY, [])[:3] == ["i5", "i7", "i2999"]
    assert popular.best(3 * DAY, ["i5"])[:2] == ["i7", "i2999"]
    assert popular.best(1.5 * DAY + POPULAR_SECONDS, [])[:3] == ["i5", "i7", "i0"]
    assert len(popular.best(99 * DAY, [])) == 10
    assert RecentlyPopular().best(0.0, []) == []


def test_late_items_and_who_got_them_first():
    tally = Tally()
    tally.publish_items(catalogue("old"))
    tally.publish_items(catalogue("new"), late_at=100.0)
    tally.receive_list(make_list("u", ["old", "new"], kind=TriggerKind.ITEM), 100.8)
    tally.receive_list(make_list("v", ["new"]), 101.0)
    (arrival,) = tally.arrivals.values()
    assert (arrival.item_id, arrival.user_id, arrival.rank, arrival.by_itself) == ("new", "u", 2, True)
    assert arrival.seconds == pytest.approx(0.8)
    assert tally.summary()["items"] == 2


def test_which_ratings_are_positive():
    assert likes_from([{"type": "rating", "value": 5.0}, {"type": "rating", "value": 1}]) == 4.0
    assert likes_from([{"type": "rating", "value": 1.0}, {"type": "rating", "value": 0}]) == 1.0
    assert likes_from([{"type": "click"}]) == 4.0
    assert is_positive({"type": "rating", "value": 4, "item_id": "a"}, 4.0)
    assert not is_positive({"type": "skip", "item_id": "a"}, 4.0)


def test_the_summary_has_the_keys_of_the_contract_in_order():
    assert list(Tally().summary()) == [
        "items", "events", "recommendations", "dead_letters", "lost", "seconds", "event_to_recommendation_ms",
        "events_per_second", "encoder", "hit_rate@10", "hit_rate@10_recent_popular",
    ]  # fmt: skip
