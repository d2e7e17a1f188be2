"""Stalls are found, holds are not taken for stalls."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.errors import FatalError
from streams.kafka import watchdog
from streams.kafka.watchdog import Sign, Watchdog

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


async def watch(worker, seconds=2 * STALL_SECONDS):
    dog = Watchdog(
        STALL_SECONDS, worker, progress=worker.progress, waiting=lambda: worker.waiting, hold=lambda: worker.held
    )
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
        ({"received"}, {"answer": 5, "pending": 5}),  # the buffer is full: the flow is asked instead
    ],
)
async def test_rest_and_holds_are_no_stalls(still, state):
    worker = Living()
    worker.still = still
    vars(worker).update(state)
    with pytest.raises(TimeoutError):
        await watch(worker, 1.5 * STALL_SECONDS)


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
