"""The consumer on a real broker: what is handed in, in which order, and what is acknowledged (DELIVERY section 2)."""

import asyncio
import json

import pytest

from streams.errors import ConfigurationError
from streams.kafka.agents import CONSUMED, KafkaConsumer
from streams.kafka.member import make_member
from streams.kafka.topics import COMPACTED
from streams.settings import Settings
from streams.values import CO_PARTITIONED, Topic
from tests.support.kafka import eventually, producing


class Intake:
    """Takes what comes; acknowledges at once unless told otherwise."""

    def __init__(self, settings, acknowledges=lambda _record: True):
        self.consumer = KafkaConsumer(settings)
        self.acknowledges = acknowledges
        self.records = []
        self.owned = {}
        self.revocations = []
        self.blocked = set()

    async def __aenter__(self):
        await self.consumer.start(self)
        await eventually(lambda: self.owned)
        return self

    async def __aexit__(self, *_):
        await self.consumer.stop()

    async def put(self, record):
        while record.topic in self.blocked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.records.append(record)
        if self.acknowledges(record):
            self.consumer.acknowledge([record])

    async def revoked(self):
        self.revocations.append(self.consumer.interrupted())
        self.owned = {}

    async def assigned(self, partitions):
        self.owned = dict(partitions)


GARBAGE = [
    (b"key", b"\xff\xfe not UTF-8"),
    (b"\xff", b"{}"),
    (None, b"{}"),
    (b"key", None),
    (b"", b""),
    (b"key", b"[" * 20_000),
    (b"key", b"x" * 900_000),
    (b"key", b"\x00"),
]


def garbage_for(topic):
    """Apache Kafka itself refuses a null key on a compacted topic."""
    return [pair for pair in GARBAGE if pair[0] is not None or topic not in COMPACTED]


async def test_garbage_on_every_topic_arrives_untouched_and_kills_no_agent(kafka, settings):
    second = "quiet" if kafka.apache else "loud"  # of headers with the same key the embedded broker keeps the last
    headers = [("quiet", b"1"), (second, b"\xff")]
    async with Intake(settings) as intake, producing(settings) as send:
        expected = {topic: [*garbage_for(topic), (b"k", b'{"good": 1}')] for topic in CONSUMED}
        for topic in CONSUMED:
            for key, value in expected[topic]:
                await send(topic, value, key=key, partition=0, headers=headers)
        await eventually(lambda: len(intake.records) == sum(map(len, expected.values())))
        for topic in CONSUMED:
            records = [record for record in intake.records if record.topic is topic]
            assert [(record.key, record.value) for record in records] == expected[topic]
            assert [record.offset for record in records] == list(range(len(expected[topic])))
            assert records[0].headers == tuple(headers)
            assert records[0].time == pytest.approx(records[-1].time, abs=60)
            assert records[0].time > 1.7e9
        assert not intake.consumer.failed.done()
        assert set(intake.consumer.lag().values()) == {0}
        assert (intake.consumer.pending, intake.consumer.acknowledged) == (0, len(intake.records))


async def test_what_was_not_acknowledged_comes_again_and_in_order(settings):
    async with producing(settings) as send:
        for number in range(10):
            await send("events", {"number": number}, key="k", partition=1)
        async with Intake(settings, lambda record: record.offset < 4) as intake:
            await eventually(lambda: len(intake.records) == 10)
            assert intake.consumer.pending == 6
            await eventually(lambda: (intake.consumer.lag() or {}).get((Topic.EVENTS, 1)) == 6)
            assert intake.consumer.ends()["events", 1] == 10
        async with Intake(settings) as successor:
            await eventually(lambda: len(successor.records) == 6)
            await send("events", {"number": 10}, key="k", partition=1)
            await eventually(lambda: len(successor.records) == 7)
    assert [json.loads(record.value)["number"] for record in successor.records] == [4, 5, 6, 7, 8, 9, 10]


async def test_what_was_fetched_while_partitions_moved_comes_again_where_nothing_is_committed_yet(settings):
    async with Intake(settings, lambda _record: False) as intake, producing(settings) as send:
        for number in range(5):
            await send("signals", {"number": number}, key="k", partition=0)
        await eventually(lambda: len(intake.records) == 5)
        consumer = intake.consumer._member._member_consumer
        await consumer.perform_seek()
        consumer._read_offset.clear()  # as at a rebalance: what was read is with nobody now
        await consumer.perform_seek()
        await eventually(lambda: len(intake.records) == 10)
    assert [record.offset for record in intake.records] == [0, 1, 2, 3, 4] * 2


async def test_a_flood_of_items_does_not_hold_up_events(settings):
    async with Intake(settings) as intake, producing(settings) as send:
        intake.blocked.add(Topic.ITEMS)
        for part in range(15):
            await asyncio.gather(*(send("items", b"x" * 20_000, key=f"i{part}-{number}") for number in range(100)))
        await send("events", {"now": True}, key="u")
        await eventually(lambda: any(record.topic is Topic.EVENTS for record in intake.records), 5)
        assert not any(record.topic is Topic.ITEMS for record in intake.records)
        intake.blocked.clear()
        await eventually(lambda: len(intake.records) == 1501)


@pytest.mark.usefixtures("apache_kafka")  # on the embedded broker the second puts the first out, which comes back
async def test_members_share_partitions_and_one_owns_all_of_a_user(settings):
    async with Intake(settings, lambda _record: False) as first, producing(settings) as send:
        await send("events", {"held": True}, key="k", partition=0)
        await eventually(lambda: first.records)
        async with Intake(settings) as second:
            await eventually(lambda: "rebalance" in first.revocations[1:] and first.owned and second.owned)
            await eventually(lambda: first.consumer.interrupted() is None)
            first.consumer.acknowledge(first.records[:1])  # revoked meanwhile: ignored, it comes again
            assert first.consumer.acknowledged == 0
            for topic in CONSUMED:
                mine, theirs = first.owned[topic], second.owned[topic]
                assert not mine & theirs
                assert mine | theirs == ({0} if topic is Topic.LESSONS else {0, 1, 2, 3})
            for intake in (first, second):
                assert len({intake.owned[topic] for topic in CO_PARTITIONED}) == 1, "users are split"
                assert intake.owned[Topic.EVENTS]
            await eventually(
                lambda: len(first.records) + len(second.records) >= 2
            )  # once more for each further rebalance


async def test_stopping_is_said_and_ends_soon(settings):
    async with Intake(settings) as intake:
        assert intake.consumer.interrupted() is None
        async with asyncio.timeout(5):
            await intake.consumer.stop()
        assert intake.consumer.interrupted() == "stop"
        await intake.consumer.stop()
    assert not intake.consumer.failed.done()


async def test_the_python_stream_iterator_is_refused(monkeypatch):
    monkeypatch.setattr("faust.streams._CStreamIterator", None)
    with pytest.raises(ConfigurationError, match="loses events"):
        make_member(Settings(), CONSUMED, asyncio.get_running_loop())
