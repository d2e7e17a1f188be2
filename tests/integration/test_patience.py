"""An idle consumer does not spin on a broker that answers empty fetches at once, and ends where none answers at all."""

from __future__ import annotations

import asyncio
import time

from aiokafka.consumer.fetcher import Fetcher

from streams.kafka.broker import EmbeddedBroker
from streams.kafka.follower import Follower
from streams.kafka.publisher import KafkaPublisher
from streams.kafka.topics import TopicAdmin, wanted_topics
from streams.settings import Settings
from streams.values import Message, Topic


async def test_an_idle_consumer_asks_seldom_and_hears_soon(monkeypatch):
    broker = EmbeddedBroker()
    settings = Settings(kafka=broker.start(), kafka_embedded=True)
    try:
        async with TopicAdmin(settings) as admin:
            await admin.create(wanted_topics(settings))
        asked = 0
        fetch = Fetcher._proc_fetch_request

        async def count(self, *arguments):
            nonlocal asked
            asked += 1
            return await fetch(self, *arguments)

        monkeypatch.setattr(Fetcher, "_proc_fetch_request", count)
        publisher = KafkaPublisher(settings, idempotent=False)
        await publisher.start()
        async with Follower(settings, [Topic.RECOMMENDATIONS], from_start=True) as follower:
            started = time.monotonic()
            while time.monotonic() < started + 1.0:
                assert await follower.read(0.2) == []
            assert asked <= 150
            await publisher.send([Message(Topic.RECOMMENDATIONS, b"u", b"{}")])
            sent = time.monotonic()
            records = await follower.read(2.0)
            assert [record.key for record in records] == [b"u"]
            assert time.monotonic() - sent < 0.5
        await publisher.stop()
    finally:
        broker.stop()


async def test_a_consumer_whose_broker_is_gone_closes_without_an_error():
    """Aiokafka's close raised `CancelledError` out of its own wait between two fetches that fail."""
    broker = EmbeddedBroker()
    settings = Settings(kafka=broker.start(), kafka_embedded=True)
    try:
        async with TopicAdmin(settings) as admin:
            await admin.create(wanted_topics(settings))
        followers = [Follower(settings, [Topic.RECOMMENDATIONS], from_start=True) for _ in range(5)]
        for follower in followers:
            await follower.__aenter__()
        broker.stop()
        for follower in followers:
            await asyncio.sleep(0.15)
            async with asyncio.timeout(5):
                await follower.__aexit__(None, None, None)
    finally:
        broker.stop()
