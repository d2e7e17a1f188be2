"""What differs on the topics, and when a topic was made anew."""

import pytest

from streams.kafka.connection import member_name
from streams.kafka.topics import FoundTopic, find_differences, wanted_topics
from streams.settings import Settings
from streams.values import Topic

WANTED = wanted_topics(Settings(), 4)


def as_wanted(**changes):
    found = {topic.name: FoundTopic(topic.partitions, dict(topic.configuration)) for topic in WANTED}
    for name, (partitions, configuration) in changes.items():
        there = found[Topic(name.replace("_", "-"))]
        merged = {**there.configuration, **configuration}
        found[Topic(name.replace("_", "-"))] = FoundTopic(partitions or there.partitions, merged)
    return found


def differing(found):
    return {(difference.topic, difference.what) for difference in find_differences(WANTED, found)}


def test_what_is_as_wanted_differs_in_nothing():
    assert differing(as_wanted()) == set()


def test_missing_topics_are_named():
    found = as_wanted()
    del found[Topic.SIGNALS]
    assert differing(found) == {("signals", "exists")}


def test_partition_counts_are_free_but_users_must_live_in_one_place():
    more = {name: (8, {}) for name in ("events", "users", "refreshes")}
    assert differing(as_wanted(**more)) == set()
    assert differing(as_wanted(events=(8, {}), users=(8, {}))) == {("refreshes", "partitions")}
    assert differing(as_wanted(lessons=(2, {}))) == {("lessons", "partitions")}


def test_markers_and_tombstones_must_outlive_what_could_bring_a_user_back():
    assert differing(as_wanted(events=(0, {"retention.ms": "-1"}))) == {
        ("users", "delete.retention.ms"), ("recommendations", "delete.retention.ms"),
    }  # fmt: skip
    assert differing(as_wanted(users=(0, {"delete.retention.ms": "86400000"}))) == {("users", "delete.retention.ms")}
    assert differing(as_wanted(events=(0, {"retention.ms": "3600000"}))) == set()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("users", "cleanup.policy", "delete"),
        ("events", "message.timestamp.type", "CreateTime"),
        ("dead_letters", "max.message.bytes", "1048588"),
    ],
)
def test_configurations_that_break_a_promise_differ(name, key, value):
    assert differing(as_wanted(**{name: (0, {key: value})})) == {(name.replace("_", "-"), key)}


def test_larger_dead_letters_and_deleting_old_lists_are_the_operators_choice():
    assert differing(as_wanted(dead_letters=(0, {"max.message.bytes": "9999999"}))) == set()
    assert differing(as_wanted(recommendations=(0, {"cleanup.policy": "compact,delete"}))) == set()


def test_the_instance_id_tells_topic_sets_apart():
    settings = Settings(instance_id="w-0")
    whole, less = member_name(settings, tuple(Topic)), member_name(settings, (Topic.EVENTS,))
    assert whole.startswith("w-0-")
    assert less.startswith("w-0-")
    assert whole != less
    assert whole == member_name(settings, reversed(tuple(Topic)))
    assert whole != member_name(Settings(instance_id="w-0", topic_prefix="x-"), tuple(Topic))
    assert member_name(Settings(), tuple(Topic)) is None
