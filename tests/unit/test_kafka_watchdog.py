"""Stalls are found, holds are not taken for stalls."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.errors import BrokerUnavailableError, FatalError
from streams.kafka import watchdog
from streams.kafka.connection import Group
from streams.kafka.watchdog import Sign, Watchdog, await_group
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
STALL_SECONDS = 0.48
LATE_SECONDS = 0.4
"""How much later a busy machine may be."""


class Living:
    """A worker whose parts all move, until something is set."""

    def __init__(self):
        self.still = set()
        self.pending = 0
        self.held = None
        self.waiting = 0
        self.answer = 0
        self.moves = False

    def _count(self, name):
        return 0 if name in self.still else time.monotonic_ns()

    received = property(lambda self: self._count("received"))
    acknowledged = property(lambda self: self._count("acknowledged"))
    polls = property(lambda self: self._count("polls"))
    turns = property(lambda self: self._count("turns"))

    def progress(self):
        return self._count("progress")

    def coordinator_alive(self):
        return "coordinator" not in self.still

    def moving(self):
        return self.moves

    async def answers(self, seconds):
        return self.answer is not None

    async def behind(self, seconds):
        if "turns" in self.still or self.answer is None:
            await asyncio.sleep(seconds)
            return None
        return self.answer


@pytest.fixture(autouse=True)
def killed(monkeypatch):
    calls = []
    monkeypatch.setattr(watchdog, "kill_after", calls.append)
    monkeypatch.setattr(Watchdog, "_guard_loop", lambda *_: None)  # it would end the tests on a busy machine
    return calls


async def watch(worker, seconds=2 * STALL_SECONDS, group_seconds=0.0):
    dog = Watchdog(
        STALL_SECONDS, worker, progress=worker.progress, waiting=lambda: worker.waiting, hold=lambda: worker.held,
        group_seconds=group_seconds,
    )  # fmt: skip
    async with asyncio.timeout(seconds):
        await dog.run()


@pytest.mark.parametrize(
    ("still", "state", "message"),
    [
        ({"polls"}, {}, "stopped asking"),
        ({"coordinator"}, {}, "group is dead"),
        ({"received"}, {"answer": 3}, "does not deliver"),
        ({"progress", "acknowledged"}, {"pending": 1}, "no progress"),
        ({"progress", "acknowledged"}, {"waiting": 1}, "no progress"),
        (
            {"turns", "polls", "received"},
            {},
            "thread that speaks to Kafka",
        ),  # which the broker's silence must not excuse
        ({"turns", "polls", "received"}, {"held": "index"}, "thread that speaks to Kafka"),
        ({"polls", "received"}, {"moves": True}, "was given no partitions for .* restart this worker"),
    ],
)
async def test_what_stands_still_without_a_cause_ends_the_worker(still, state, message, killed):
    worker = Living()
    worker.still = still
    vars(worker).update(state)
    begun = time.monotonic()
    with pytest.raises(FatalError, match=message):
        await watch(worker)
    assert killed == [pytest.approx(STALL_SECONDS / 6)]
    assert time.monotonic() - begun + killed[0] < STALL_SECONDS + LATE_SECONDS


@pytest.mark.parametrize(
    ("still", "state"),
    [
        (set(), {}),
        ({"received", "progress", "acknowledged"}, {}),  # nobody does anything
        ({"progress", "acknowledged"}, {"pending": 1, "held": "index"}),
        ({"progress"}, {"pending": 1}),  # a long batch of signals, acknowledged by and by
        ({"polls", "received"}, {"answer": None}),  # the broker is away
        ({"polls", "received"}, {"answer": None, "moves": True}),
        ({"received"}, {"answer": 5, "pending": 5}),  # the buffer is full: the flow is asked instead
    ],
)
async def test_rest_and_holds_are_no_stalls(still, state):
    worker = Living()
    worker.still = still
    vars(worker).update(state)
    with pytest.raises(TimeoutError):
        await watch(worker, 1.5 * STALL_SECONDS)


async def test_a_group_may_take_as_long_as_its_own_rules_say():
    worker = Living()
    worker.still, worker.moves = {"polls", "received"}, True
    with pytest.raises(TimeoutError):
        await watch(worker, 1.5 * STALL_SECONDS, group_seconds=60)


async def never():
    await asyncio.Event().wait()


async def fails(error):
    raise error


@pytest.fixture
def describe(monkeypatch):
    """What the coordinator says of the group, or raises; counts how often it is asked."""
    said = [Group("PreparingRebalance", ("one", "two"))]
    asked = []

    async def describe_group(settings):
        asked.append(settings.group)
        if isinstance(said[-1], Exception):
            raise said[-1]
        return said[-1]

    monkeypatch.setattr(watchdog, "describe_group", describe_group)
    monkeypatch.setattr(watchdog, "settle_seconds", lambda settings: STALL_SECONDS)
    return said, asked


async def join(joining, error=lambda: None, seconds=4 * STALL_SECONDS, **chosen):
    task = asyncio.create_task(joining)
    try:
        async with asyncio.timeout(seconds):
            return await await_group(task, error, Settings(stall_seconds=STALL_SECONDS, **chosen))
    finally:
        task.cancel()


@pytest.mark.parametrize(
    ("embedded", "remedy"), [(True, "start this worker again, which puts it out"), (False, "kafka-consumer-groups.sh")]
)
async def test_a_group_that_lets_nobody_in_ends_the_worker_and_says_what_to_do(describe, embedded, remedy):
    begun = time.monotonic()
    with pytest.raises(
        FatalError, match=r"coldstream has not let this worker in .*PreparingRebalance, with 2 members"
    ) as found:
        await join(never(), kafka_embedded=embedded)
    assert remedy in str(found.value)
    assert STALL_SECONDS <= time.monotonic() - begun < STALL_SECONDS + LATE_SECONDS


async def test_a_group_is_waited_for_as_long_as_its_own_rules_say(describe, monkeypatch):
    monkeypatch.setattr(watchdog, "settle_seconds", lambda settings: 60.0)
    with pytest.raises(TimeoutError):
        await join(never(), seconds=2 * STALL_SECONDS)


async def test_a_broker_that_is_away_is_waited_for_at_the_start_too(describe):
    said, asked = describe
    said.append(BrokerUnavailableError("away"))
    with pytest.raises(TimeoutError):
        await join(never())
    assert len(asked) > 1


async def test_what_keeps_a_worker_out_for_good_is_told_at_once(describe):
    refused = ConnectionError("refused")
    assert await join(fails(refused)) is refused
    assert await join(never(), error=lambda: refused) is refused
    assert await join(asyncio.sleep(0)) is None
    assert not describe[1]


def test_a_process_that_was_stopped_and_continued_is_no_stall():
    sign = Sign("x")
    assert sign.look(1, excused=False, seconds=5) == 0
    assert sign.look(1, excused=False, seconds=5) == 5
    assert sign.look(2, excused=False, seconds=5) == 0
    assert sign.look(2, excused=True, seconds=5) == 0


BLOCKED = """
import asyncio, time
from tests.unit.test_kafka_watchdog import Living
from streams.kafka.watchdog import Watchdog

async def main():
    worker = Living()
    dog = Watchdog(1.0, worker, progress=worker.progress, waiting=lambda: 0, hold=lambda: None)
    running = asyncio.create_task(dog.run())
    await asyncio.sleep(0.3)
    time.sleep(60)

asyncio.run(main())
"""


def test_a_loop_that_does_not_turn_ends_the_process():
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 1
    assert "does not turn" in ended.stderr
    assert "most recent call first" in ended.stderr
    assert time.monotonic() - begun < 40
