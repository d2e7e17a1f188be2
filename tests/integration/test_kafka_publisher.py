"""The publisher on a real broker, and while it is away."""

import asyncio
import time

import pytest

from streams.errors import BrokerUnavailableError, FatalError
from streams.kafka import publisher as publisher_module
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.follower import Follower, ModelReader
from streams.kafka.publisher import KafkaPublisher, largest_message_bytes
from streams.settings import Settings
from streams.values import Message, Topic
from tests.support.kafka import consume, create_topics, eventually


@pytest.fixture
async def publisher(settings):
    made = KafkaPublisher(settings)
    await made.start()
    await made.load_partitions([Topic.EVENTS, Topic.SIGNALS, Topic.LESSONS])
    yield made
    await made.stop()


async def test_messages_arrive_in_order_where_they_were_sent(settings, publisher):
    messages = [
        *(Message(Topic.EVENTS, b"u1", b"%d" % number, (("quiet", b"1"),)) for number in range(300)),
        *(Message(Topic.EVENTS, b"u1", b"there", partition=number) for number in range(4)),
        Message(Topic.EVENTS, None, b"no key"),
        Message(Topic.EVENTS, None, None),
    ]
    await publisher.send(messages)
    records = await consume(settings, Topic.EVENTS, lambda records: len(records) == len(messages))
    numbered = [record for record in records if record.key == b"u1" and record.value != b"there"]
    assert [record.value for record in numbered] == [b"%d" % number for number in range(300)]
    # murmur2 of "u1", as the Java client computes it: 0x7fffffff & murmur2 % 4
    assert {record.partition for record in numbered} == {0}
    assert {record.header("quiet") for record in numbered} == {b"1"}
    assert sorted(record.partition for record in records if record.value == b"there") == [0, 1, 2, 3]
    assert [record.value for record in records if record.key is None] in ([b"no key", b""], [b"", b"no key"])
    assert publisher.partitions(Topic.EVENTS) == 4
    assert publisher.partitions(Topic.LESSONS) == 1
    await publisher.send([])


async def test_the_largest_dead_letter_fits_and_anything_larger_is_a_defect(settings, publisher):
    await publisher.send([Message(Topic.DEAD_LETTERS, b"k", b"x" * (largest_message_bytes(settings) - 500))])
    with pytest.raises(FatalError, match="size"):
        await publisher.send([Message(Topic.DEAD_LETTERS, b"k", b"x" * largest_message_bytes(settings))])
    await publisher.send([Message(Topic.DEAD_LETTERS, b"k", b"still works")])


async def test_a_refused_message_leaves_a_publisher_that_works(apache_kafka, settings, publisher):
    with pytest.raises(FatalError, match="size"):  # within the producer's limit, beyond the topic's
        await publisher.send([Message(Topic.EVENTS, b"k", b"x" * 1_060_000)])
    await publisher.send([Message(Topic.EVENTS, b"k", b"after")])
    records = await consume(settings, Topic.EVENTS, lambda records: records)
    assert [record.value for record in records] == [b"after"]


async def test_a_missing_topic_is_said(apache_kafka, settings, publisher, monkeypatch):  # the embedded broker makes it
    monkeypatch.setattr(publisher_module, "METADATA_SECONDS", 0.5)
    with pytest.raises(FatalError, match="topics create"):
        await publisher.load_partitions(["nothing-of-this-name"])
    with pytest.raises(FatalError, match="topics create"):
        publisher.partitions("nothing-of-this-name")


async def test_a_broker_that_goes_away_is_held_for_and_nothing_is_lost_or_doubled(
    apache_kafka, settings, publisher, monkeypatch
):
    monkeypatch.setattr(publisher_module, "SEND_SECONDS", 1.0)
    await publisher.send([Message(Topic.EVENTS, b"k", b"before")])
    apache_kafka.program.run("stop", "--kill")
    try:
        for number in range(2):
            begun = time.monotonic()
            with pytest.raises(BrokerUnavailableError):
                await publisher.send([Message(Topic.EVENTS, b"k", b"%d" % number)])
            assert time.monotonic() - begun < 4
        assert len(publisher._under_way) == 1, "what waits must not grow with every try"
    finally:
        apache_kafka.program.run("resume")
    monkeypatch.setattr(publisher_module, "SEND_SECONDS", 20.0)
    await publisher.send([Message(Topic.EVENTS, b"k", b"after")])
    records = await consume(settings, Topic.EVENTS, lambda records: len(records) >= 3)
    assert [record.value for record in records] == [b"before", b"0", b"after"]


async def test_a_producer_that_can_send_nothing_more_is_made_anew():
    broker = EmbeddedBroker()
    try:
        address = broker.start()
        settings = Settings(kafka=address)
        await create_topics(settings)
        publisher = KafkaPublisher(settings)
        await publisher.start()
        await publisher.load_partitions([Topic.SIGNALS])
        await publisher.send([Message(Topic.EVENTS, b"k", b"1")])
        broker.stop()
        broker.start(int(address.rpartition(":")[2]))  # it has forgotten the producer: its sequence is out of order now
        await create_topics(settings)
        sending = await publisher.hand_over([Message(Topic.EVENTS, b"k", b"2")])
        for failing in (publisher.send([Message(Topic.EVENTS, b"k", b"of somebody else")]), sending):
            with pytest.raises(BrokerUnavailableError, match="OutOfOrderSequence"):
                await failing  # who handed it over learns of it, whoever has seen the error before
        await publisher.send([Message(Topic.EVENTS, b"k", b"2")])
        records = await consume(settings, Topic.EVENTS, lambda records: records)
        assert [record.value for record in records] == [b"2"]
        assert publisher.partitions(Topic.SIGNALS) == 4, "what the one before it knew"
        await publisher.stop()
    finally:
        broker.stop()


async def test_nobody_there_is_said_at_once(monkeypatch):
    publisher = KafkaPublisher(Settings(kafka="127.0.0.1:1"))
    with pytest.raises(BrokerUnavailableError, match=r"cannot reach Kafka at 127\.0\.0\.1:1"):
        await publisher.start()
    await publisher.stop()
    with pytest.raises(BrokerUnavailableError):
        await publisher.send([Message(Topic.EVENTS, b"k", b"v")])


async def test_the_model_is_read_whole_and_followed(settings, publisher):
    await publisher.send([Message(Topic.MODEL, b"weights", b"%d" % number) for number in range(5)])
    adopted = []

    def adopt(record):
        if record.value == b"2":
            raise ValueError("not a model")
        adopted.append(record.value)

    reader = ModelReader(settings, adopt)
    following = await reader.start()
    assert adopted == [b"0", b"1", b"3", b"4"]
    await publisher.send([Message(Topic.MODEL, b"weights", b"5")])
    await eventually(lambda: adopted[-1] == b"5")
    assert not following.done()
    await asyncio.wait_for(reader.stop(), 5)
    await reader.stop()


async def test_whoever_waits_for_the_follower_learns_of_its_end(settings, publisher, monkeypatch):
    reader = ModelReader(settings, lambda record: None)
    following = await reader.start()
    defect = RuntimeError("a defect")

    async def read(_self, _seconds):
        raise defect

    monkeypatch.setattr(Follower, "read", read)
    with pytest.raises(RuntimeError, match="a defect"):
        await asyncio.wait_for(following, 5)
    await reader.stop()


async def test_who_follows_from_now_on_hears_nothing_of_before(settings, publisher):
    await publisher.send([Message(Topic.EVENTS, b"u%d" % number, b"old") for number in range(8)])
    for number in range(10):
        async with Follower(settings, (Topic.EVENTS, Topic.USERS), from_start=False) as follower:
            await publisher.send([Message(Topic.USERS, b"u", b"%d" % number)])
            heard = []
            async with asyncio.timeout(10):
                while not heard:
                    heard = await follower.read(0.2)
        assert [record.value for record in heard] == [b"%d" % number]
