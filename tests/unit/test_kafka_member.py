"""A second process with our instance id is known by what aiokafka says of it, and by nothing else."""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownMemberIdError, for_code

from streams.errors import DuplicateMemberError
from streams.kafka.agents import CONSUMED, KafkaConsumer
from streams.kafka.connection import full_name
from streams.kafka.member import fenced, make_member
from streams.settings import Settings
from streams.values import Topic

FENCED = for_code(82)()
WRAPPED = KafkaError(repr(FENCED))
"""How it comes from a heartbeat, a join or a commit: as a text."""


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (FENCED, True),
        (WRAPPED, True),
        (UnknownMemberIdError(), False),
        (KafkaError(repr(UnknownMemberIdError())), False),
        (None, False),
    ],
)
def test_fenced_is_who_was_thrown_out_by_a_second_process(error, found):
    assert fenced(error) is found


async def never():
    await asyncio.Event().wait()


async def ends(error=None):
    if error is not None:
        raise error


async def member(coordination, waiting=None):
    """A member whose coordination has come that far."""
    made = make_member(Settings(instance_id="w-0"), CONSUMED, asyncio.get_running_loop())
    task = asyncio.create_task(coordination) if coordination is not None else None
    await asyncio.sleep(0)
    coordinator = SimpleNamespace(_coordination_task=task, _pending_exception=waiting)
    made._consumer = SimpleNamespace(_thread=SimpleNamespace(_consumer=SimpleNamespace(_coordinator=coordinator)))
    return made, task


@pytest.mark.parametrize(
    ("coordination", "waiting", "expected"),
    [
        (None, None, None),
        (never(), None, None),
        (never(), WRAPPED, WRAPPED),  # held back until records are asked for
        (never(), UnknownMemberIdError(), None),  # aiokafka joins again by itself
        (ends(WRAPPED), None, WRAPPED),
        (ends(), None, None),  # without a word: the watchdog's case
    ],
)
async def test_what_ended_the_coordination_is_told_before_records_are_asked_for(coordination, waiting, expected):
    made, task = await member(coordination, waiting)
    assert made.coordinator_error() is expected
    if task is not None:
        task.cancel()


async def test_a_cancelled_coordination_has_no_error_and_is_dead():
    made, task = await member(never())
    assert made.coordinator_alive()
    task.cancel()
    await asyncio.wait([task])
    assert not made.coordinator_alive()
    assert made.coordinator_error() is None


async def test_the_duplicate_is_named_with_the_setting_that_names_it():
    consumer = KafkaConsumer(Settings(instance_id="w-0"))
    error = consumer._ended(WRAPPED, "ended")
    assert isinstance(error, DuplicateMemberError)
    assert "COLDSTREAM_INSTANCE_ID='w-0'" in str(error)
    assert not isinstance(consumer._ended(UnknownMemberIdError(), "ended"), DuplicateMemberError)


async def test_partitions_of_topics_that_are_not_read_are_left_alone() -> None:
    settings, seen = Settings(), []

    class Intake:
        async def assigned(self, owned: dict[str, frozenset[int]]) -> None:
            seen.append(owned)

    consumer = KafkaConsumer(settings, (Topic.EVENTS,))
    consumer._intake = Intake()
    mine, other = full_name(settings, Topic.EVENTS), full_name(settings, Topic.ITEMS)
    await consumer._assigned(
        SimpleNamespace(consumer_generation_id=1), {TopicPartition(mine, 2), TopicPartition(other, 5)}
    )
    assert seen == [{"events": frozenset({2})}]
    assert consumer._counts == {Topic.EVENTS: 3}
