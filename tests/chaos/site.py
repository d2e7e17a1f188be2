"""An installation on a real broker: topics of its own, workers as processes, and what can be known from outside."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.index.open import open_index
from streams.kafka.connection import full_name, group_name
from streams.kafka.follower import Follower
from streams.kafka.topics import TopicAdmin, wanted_topics
from streams.ports import Collection, Point
from streams.settings import Settings
from streams.values import Record, Topic, UserState
from tests.simulation.broker import CONSUMED
from tests.simulation.lists import Lists, compare_dead
from tests.simulation.oracle import (
    ExpectedItem,
    Placed,
    compare_items,
    compare_statistics,
    compare_users,
    expect,
)
from tests.simulation.story import Sent
from tests.support.worker_process import free_port, get
from tests.support.worker_process import settings as to_environment

WORKER: Final = Path(__file__).with_name("worker.py")
ROOT: Final = Path(__file__).parents[2]
HISTORY_SIZE: Final = 50
NUMBER: Final = "number"
"""Header by which a record is found again in its topic."""
DIMENSION: Final = 64

_STATE: Final = msgspec.json.Decoder(UserState)


def say(text: str) -> None:
    """Progress, on stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")


@dataclass(slots=True)
class Life:
    """One worker process."""

    instance: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path
    begun_at: float = field(default_factory=time.monotonic)

    def is_ready(self) -> bool:
        return get(f"http://{self.environment['COLDSTREAM_HTTP']}/readyz", 2.0)[0] == 200

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        self.process.kill()
        self.process.wait()

    async def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; returns its exit status (-9: it did not obey)."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 a process has no event
            await asyncio.sleep(0.05)
        if self.process.poll() is None:
            self.kill()
        return int(self.process.returncode)

    async def ready(self, seconds: float = 90.0) -> float:
        """Wait until /readyz says 200; returns the seconds since its start."""
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(self.is_ready):
            if self.process.poll() is not None:
                raise AssertionError(f"{self.instance} ended: {self.log.read_text()[-1500:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.instance} is not ready: {self.log.read_text()[-1500:]}")
            await asyncio.sleep(0.1)
        return time.monotonic() - self.begun_at


class Site:
    """Topics under a prefix, an index, and the workers on them."""

    def __init__(self, kafka: str, folder: Path, prefix: str, *, index: str | None = None, **others: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.kafka = kafka
        self.index = index or f"edge:{folder / 'index'}"
        self._others = {
            "topic_prefix": prefix, "session_timeout_seconds": "6", "record_bytes": "2048", "log_level": "INFO",
            "fan_out_users": "5", **others
        }  # fmt: skip
        self.settings = Settings(
            kafka=kafka, topic_prefix=prefix, index=self.index, group=others.get("group", "coldstream")
        )
        self.lives: list[Life] = []
        self.partitions = 4
        self.dimension = DIMENSION
        self.workers_kafka = kafka
        """Where workers look for the broker: a proxy, perhaps."""
        self.calm_at = math.inf
        """From when on lists are made in peace, with all known."""

    async def create(self) -> None:
        async with TopicAdmin(self.settings) as admin:
            await admin.create(wanted_topics(self.settings, self.partitions))

    def start(self, instance: str = "w0", **others: str) -> Life:
        """A worker; an empty instance is a dynamic member."""
        chosen = {**self._others, "instance_id": instance, "index": self.index, **others}
        environment = to_environment(self.workers_kafka, self.folder, **chosen)
        environment["COLDSTREAM_HTTP"] = f"127.0.0.1:{free_port()}"
        environment |= {
            "PYTHONPATH": str(ROOT),
            "CHAOS_FOLDER": str(self.folder),
            "CHAOS_DIMENSION": str(self.dimension),
        }
        log = self.folder / f"{instance or 'dynamic'}-{len(self.lives)}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, str(WORKER), "worker"], env=environment, cwd=ROOT, stdout=out, stderr=out
            )
        life = Life(instance, environment, process, log)
        self.lives.append(life)
        return life

    def run(self, *arguments: str, dimension: int) -> subprocess.Popen[bytes]:
        """Another command of the program, with the chaotic encoder."""
        environment = to_environment(self.kafka, self.folder, **{**self._others, "index": self.index})
        environment |= {"PYTHONPATH": str(ROOT), "CHAOS_FOLDER": str(self.folder), "CHAOS_DIMENSION": str(dimension)}
        with (self.folder / "commands.log").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, str(WORKER), *arguments], env=environment, cwd=ROOT, stdout=out, stderr=out
            )

    def end(self) -> None:
        """No process of ours is left."""
        for life in self.lives:
            if life.process.poll() is None:
                life.process.send_signal(signal.SIGCONT)
                life.kill()

    @property
    def living(self) -> list[Life]:
        """Workers that run."""
        return [life for life in self.lives if life.process.poll() is None]

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka, enable_idempotence=True, linger_ms=2, max_request_size=4_000_000,
            request_timeout_ms=120_000,
        )  # fmt: skip
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def publish(self, script: Sequence[Sent], per_second: float) -> None:
        """All records, each on its partition, at a rate."""
        async with self.producer() as producer:
            begun, futures = time.monotonic(), []
            for place, sent in enumerate(script):
                ahead = place / per_second - (time.monotonic() - begun)
                if ahead > 0:
                    await asyncio.sleep(ahead)
                futures.append(
                    await producer.send(
                        full_name(self.settings, sent.topic), sent.value, key=sent.key, partition=sent.partition,
                        headers=[*sent.headers, (NUMBER, str(sent.number).encode())],
                    )
                )  # fmt: skip
            await asyncio.gather(*futures)

    # -- what can be seen from outside

    async def lag(self) -> int:
        """Records of the group's topics that are not committed yet."""
        group = group_name(self.settings)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka)
        try:
            await admin.start()
            await consumer.start()
            async with TopicAdmin(self.settings) as topics:
                found = await topics.describe()
            places = [
                TopicPartition(full_name(self.settings, topic), number)
                for topic in CONSUMED
                for number in range(found[topic].partitions)
            ]
            ends = await consumer.end_offsets(places)
            committed = await admin.list_consumer_group_offsets(group)
            done = {place: committed[place].offset if place in committed else 0 for place in places}
            return sum(max(0, end - max(0, done[place])) for place, end in ends.items())
        finally:
            await consumer.stop()
            await admin.close()

    async def drain(self, seconds: float = 240.0) -> None:
        """Until the group has done everything, twice in a row."""
        deadline = time.monotonic() + seconds
        quiet = 0
        lag: object = None
        while quiet < 2:
            try:
                lag = await self.lag()
            except (KafkaError, OSError) as error:
                lag = error
            quiet = quiet + 1 if lag == 0 else 0
            if time.monotonic() > deadline:
                raise AssertionError(f"not drained within {seconds:.0f} s: lag {lag}")
            if not self.living:
                raise AssertionError(f"no worker lives: {self.lives[-1].log.read_text()[-1500:]}")
            await asyncio.sleep(1.0)

    async def read(self, *topics: Topic) -> list[Record]:
        """Topics from their beginning to their end."""
        records: list[Record] = []
        async with Follower(self.settings, topics, from_start=True) as follower:
            async for some in follower.read_whole():
                records += some
        return records

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[list[float]]:
        """When lists arrive from now on, by the monotonic clock."""
        heard: list[float] = []
        consumer = AIOKafkaConsumer(
            full_name(self.settings, Topic.RECOMMENDATIONS), bootstrap_servers=self.kafka, fetch_max_wait_ms=20
        )

        async def hear() -> None:
            async for _ in consumer:
                heard.append(time.monotonic())  # noqa: PERF401  each when it comes

        await consumer.start()
        await consumer.seek_to_end()
        hearing = asyncio.create_task(hear())
        try:
            yield heard
        finally:
            hearing.cancel()
            await consumer.stop()

    async def points(self, users: Sequence[str]) -> dict[Collection, dict[str, Point]]:
        """All that the index holds; erased ones have no name there, so that all users are to be named. With an embedded
        index the worker must have ended.
        """
        index = open_index(self.settings)
        await index.open(self.dimension, f"hashing-{self.dimension}")
        try:
            found: dict[Collection, dict[str, Point]] = {}
            for collection in Collection:
                held = found[collection] = {}
                cursor: str | None = None
                while True:
                    page = await index.scan(collection, cursor=cursor, vectors=True)
                    held.update((point.key, point) for point in page.points)
                    cursor = page.cursor
                    if cursor is None:
                        break
            named = await index.read(Collection.USERS, list(users), vectors=True)
            found[Collection.USERS].pop("", None)
            found[Collection.USERS].update((user, point) for user, point in zip(users, named, strict=True) if point)
            return found
        finally:
            await index.close()

    async def judge(self, script: Sequence[Sent]) -> tuple[list[str], dict[Collection, dict[str, Point]]]:
        """What is wrong with the state and the lists, by the oracle."""
        by_number = {sent.number: sent for sent in script}
        placed = []
        for record in await self.read(Topic.ITEMS, Topic.USERS, Topic.EVENTS):
            sent = by_number[int(record.header(NUMBER) or b"-1")]
            placed.append(Placed(replace(sent, partition=record.partition, time=record.time), record.offset))
        wrong = [] if len(placed) >= len(script) else [f"{len(placed)} of {len(script)} records are in the topics"]
        expected = expect(placed, HISTORY_SIZE, 10_000)
        points = await self.points(list(expected.users))
        wrong += compare_users(expected.users, points[Collection.USERS])
        wrong += compare_items(expected.items, points[Collection.ITEMS])
        wrong += compare_statistics(expected.statistics, points[Collection.STATISTICS])
        wrong += compare_dead(expected, await self.read(Topic.DEAD_LETTERS))
        wrong += await self._judge_lists(
            expected.named,
            {user: want.marker for user, want in expected.users.items()},
            {user for user, want in expected.users.items() if not want.loud},
            points,
            expected.items,
        )
        return wrong, points

    async def _judge_lists(
        self, wanted: dict[str, str], markers: dict[str, bool], quiet: set[str],
        points: dict[Collection, dict[str, Point]], items: dict[str, ExpectedItem],
    ) -> list[str]:  # fmt: skip
        """`quiet`: users who may have come back without a list."""
        lists = Lists()
        for record in await self.read(Topic.RECOMMENDATIONS):
            lists.hear(record)
        wrong = lists.wrong + lists.lost(wanted) + lists.untimely(items, self.calm_at)
        for user, marker in markers.items():
            if marker or user in lists.last:
                wrong += lists.last_of(user, marker=None if user in quiet and not marker else marker)
            version, value = lists.last.get(user, (0, None))
            state = _STATE.decode(points[Collection.USERS][user].body)
            if value is not None and version == state.version:
                barred = {one.item_id for one in state.exclusions} | set(
                    state.profile.blocked_items if state.profile else ()
                )
                shown_barred = barred & {place.item_id for place in value.items}
                if shown_barred:
                    wrong.append(f"the last list of {user} holds what is excluded: {shown_barred}")
        return wrong


def essence(points: dict[Collection, dict[str, Point]]) -> dict[str, Any]:
    """What must be the same after any run of one log: all but versions, write ids, times of arrival, lists.

    And which record created an item: one that breaks the encoder does so, or not, by what else is in its batch.
    """
    dropped = {"version", "write_id", "list_ids", "first_seen", "created"}
    return {
        f"{collection.value}/{key}": _strip(json.loads(point.body), dropped)
        for collection, held in points.items()
        for key, point in held.items()
    }


def _strip(body: dict[str, Any], dropped: set[str]) -> dict[str, Any]:
    kept = {name: value for name, value in body.items() if name not in dropped}
    for name in ("source", "profile_source", "erased_source"):
        if kept.get(name):
            kept[name] = kept[name][:2]
    kept.pop("erased_at", None)
    applied = kept.get("applied", {})
    if any(isinstance(places, dict) for places in applied.values()):
        kept["applied"] = {
            topic: {number: last[0] for number, last in places.items()}
            for topic, places in applied.items()
            if topic != Topic.REFRESHES.value
        }
    return kept


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Points that are not the same."""
    return [
        f"{key} differs from the undisturbed run: {_first_difference(one.get(key), other.get(key))}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]


def _first_difference(one: Any, other: Any) -> str:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return f"{str(one)[:200]} instead of {str(other)[:200]}"
    name = next(name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name))
    return f"{name}: {str(one.get(name))[:300]} instead of {str(other.get(name))[:300]}"


def memory_bytes(life: Life) -> int:
    """Resident memory of a worker (Linux)."""
    pages = int((Path("/proc") / str(life.process.pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
