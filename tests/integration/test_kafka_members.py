"""Members as processes: killed, stopped, twice (DELIVERY section 2)."""

import asyncio
import signal
import time

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.kafka.agents import KafkaConsumer
from streams.kafka.connection import client_options, full_name, group_name
from tests.support.kafka import SECONDS, Member, eventually, producing


def static(settings, name):
    return msgspec.structs.replace(settings, instance_id=name)


class Nobody:
    """An intake that takes note of nothing."""

    async def revoked(self):
        pass

    async def assigned(self, partitions):
        pass


async def committed(settings, topic, partition, offset):
    """Wait until the group has committed that far."""
    client = AIOKafkaAdminClient(**client_options(settings))
    await client.start()
    place = TopicPartition(full_name(settings, topic), partition)
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                found = (await client.list_consumer_group_offsets(group_name(settings))).get(place)
                if found is not None and found.offset >= offset:
                    return
                await asyncio.sleep(0.1)
    finally:
        await client.close()


async def test_after_kill_9_a_static_member_is_back_at_once_and_gets_what_was_not_acknowledged(settings):
    settings = static(settings, "one")
    async with producing(settings) as send:
        for number in range(10):
            await send("events", {"number": number}, key="k", partition=2)
        async with Member(settings, acknowledge="4") as member:
            await eventually(lambda: len(member.of("put")) == 10)
            await committed(settings, "events", partition=2, offset=4)
            member.process.send_signal(signal.SIGKILL)
            await member.process.wait()
        begun = time.monotonic()
        async with Member(settings) as successor:
            await eventually(lambda: len(successor.of("put")) >= 6)
            assert time.monotonic() - begun < settings.session_timeout_seconds + 6  # imports take most of it here
    assert [line["offset"] for line in successor.of("put")] == [4, 5, 6, 7, 8, 9]


async def test_sigterm_commits_and_ends_with_status_0(settings):
    async with producing(settings) as send:
        async with Member(settings) as member:
            await send("events", {}, key="k", partition=0)
            await eventually(lambda: member.of("put"))
            member.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                assert await member.process.wait() == 0
        await send("events", {}, key="k", partition=0)
        async with Member(settings) as successor:
            await eventually(lambda: successor.of("put"))
    assert [line["offset"] for line in successor.of("put")] == [1]


async def test_who_waits_for_a_killed_members_session_ends_at_once_when_told_to_and_the_next_one_gets_in(
    apache_kafka, settings
):
    async with Member(settings) as member:
        await eventually(lambda: member.of("assigned"))
        member.process.send_signal(signal.SIGKILL)
        await member.process.wait()
    consumer = KafkaConsumer(settings)
    starting = asyncio.create_task(consumer.start(Nobody()))
    await asyncio.sleep(1.5)
    assert consumer.moving()
    assert not starting.done()
    begun = time.monotonic()
    starting.cancel()
    await asyncio.wait([starting])
    assert time.monotonic() - begun < 2
    async with Member(settings) as successor:
        await eventually(lambda: successor.of("assigned"), 2 * settings.session_timeout_seconds + SECONDS)


async def test_a_second_process_with_one_instance_id_is_found(apache_kafka, settings):
    settings = static(settings, "twin")
    async with Member(settings) as first, Member(settings) as second:
        await eventually(lambda: first.of("failed") or second.of("failed"), 40)
        failed = first if first.of("failed") else second
        assert failed.of("failed")[0]["failed"] == "DuplicateMemberError"
        assert await failed.process.wait() == 1
