"""Workers on the embedded broker, which forgets no member of a group by itself and keeps nothing when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from streams.kafka.broker import EmbeddedBroker
from streams.kafka.connection import describe_group
from streams.settings import Settings
from tests.support import worker_process
from tests.support.kafka import Member, create_topics, eventually, producing

PROGRAM = """
import sys
import streams.app
import streams.kafka.agents
import streams.kafka.watchdog
from encoder.hashing import HashingEncoder
from streams.commands.main import main
streams.app.open_encoder = lambda settings: HashingEncoder(64)
if sys.argv.pop(1) == "without-eviction":
    async def nobody(settings):
        pass
    streams.kafka.agents.evict_members = nobody
    streams.kafka.watchdog.settle_seconds = lambda settings: 0.0
main()
"""
"""The worker with an encoder that starts at once; without eviction it is not let in after a member was killed."""
BACK_SECONDS = 15.0
"""From a successor's start until it is ready; 2 to 3 on two cores, more on a busy machine."""
ENDED_SECONDS = 3.0
"""From a signal until the process has ended; about one on two cores."""


@pytest.fixture
def broker():
    embedded = EmbeddedBroker()
    try:
        yield embedded, embedded.start()
    finally:
        embedded.stop()


@pytest.fixture
async def embedded(broker):
    made = Settings(kafka=broker[1], kafka_embedded=True, session_timeout_seconds=6)
    await create_topics(made)
    return made


def environment(settings: Settings, folder: Path, **others: str) -> dict[str, str]:
    return worker_process.settings(settings.kafka, folder, kafka_embedded="true", **others)


@contextlib.contextmanager
def spawn(environment: dict[str, str], log: Path, how: str = "as-it-is"):
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, how, "worker"], env=environment, cwd=worker_process.ROOT,
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def kill_at_work(settings: Settings, environment: dict[str, str], log: Path) -> None:
    """A worker that is killed while it reads a flood."""
    with spawn(environment, log) as process:
        await asyncio.to_thread(worker_process.await_ready, environment, log, process)
        async with producing(settings) as send:
            for number in range(300):
                event = {
                    "event_id": f"e{number}", "user_id": f"u{number % 20}", "item_id": "i", "type": "click",
                    "timestamp": time.time(),
                }  # fmt: skip
                await send("events", event, key=event["user_id"])
        process.kill()
        process.wait()


async def test_after_kill_9_the_next_worker_is_ready_soon_and_so_is_the_one_after_it(embedded, tmp_path):
    around, log = environment(embedded, tmp_path), tmp_path / "log"
    await kill_at_work(embedded, around, log)
    for _ in range(2):
        with spawn(around, log) as successor:
            await asyncio.to_thread(worker_process.await_ready, around, log, successor, BACK_SECONDS)
            assert len((await describe_group(embedded)).members) == 1


async def test_who_waits_for_its_group_says_so_and_obeys_a_signal(embedded, tmp_path):
    around, log = environment(embedded, tmp_path), tmp_path / "log"
    await kill_at_work(embedded, around, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        with spawn(around, log, "without-eviction") as waiting:
            address = f"http://{around['COLDSTREAM_HTTP']}/readyz"
            await eventually(lambda address=address: b"waiting for the group" in worker_process.get(address)[1])
            await asyncio.sleep(1.0)
            begun = time.monotonic()
            waiting.send_signal(number)
            assert await asyncio.to_thread(waiting.wait, 20) == 0, log.read_text()[-2000:]
            assert time.monotonic() - begun < ENDED_SECONDS


async def test_who_is_not_let_into_its_group_ends_within_a_stall_and_says_why(embedded, tmp_path):
    around, log = environment(embedded, tmp_path, stall_seconds="6"), tmp_path / "log"
    await kill_at_work(embedded, around, log)
    with spawn(around, log, "without-eviction") as waiting:
        assert await asyncio.to_thread(waiting.wait, 30) == 1
    said = log.read_text().splitlines()[-1]
    assert "the group coldstream has not let this worker in for 6 s" in said
    assert "start this worker again" in said


async def test_a_member_that_lives_comes_back_after_another_has_put_it_out(embedded):
    async with Member(embedded) as first, producing(embedded) as send:
        await eventually(lambda: first.of("assigned"))
        async with Member(embedded) as second:
            await eventually(lambda: second.of("assigned") and len(first.of("assigned")) > 1)
            await asyncio.sleep(1.0)
            for number in range(8):
                await send("events", {"number": number}, key=f"k{number}", partition=number % 4)
            await eventually(
                lambda: {line["partition"] for line in [*first.of("put"), *second.of("put")]} == {0, 1, 2, 3}
            )
            assert not first.of("failed") + second.of("failed")
            assert len((await describe_group(embedded)).members) == 2


async def test_a_broker_that_was_restarted_empty_is_named(broker, embedded, tmp_path):
    around, log = environment(embedded, tmp_path), tmp_path / "log"
    with spawn(around, log) as process:
        await asyncio.to_thread(worker_process.await_ready, around, log, process)
        port = int(embedded.kafka.rpartition(":")[2])
        broker[0].stop()
        await asyncio.sleep(0.5)
        broker[0].start(port)
        assert await asyncio.to_thread(process.wait, 30) == 1
    said = log.read_text().splitlines()[-1]
    assert "the broker has lost" in said
    assert "`coldstream topics create`" in said


async def test_a_group_that_nobody_is_in_has_no_members(embedded):
    assert (await describe_group(msgspec.structs.replace(embedded, group="nobody"))).members == ()
