"""What the benchmarks share: Apache Kafka, a worker as a real process, a load that keeps its times, a reader of lists.

A load sends each event at the moment that was planned for it, whatever became of the events before: a latency counts from
the planned moment to the list's delivery here, so that a stall shows in every event that it delayed (no coordinated
omission). All times are this machine's wall clock.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import platform
import random
import re
import secrets
import shutil
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.kafka.topics import TopicAdmin, wanted_topics
from streams.settings import Settings
from tests.support.kafka import ApacheKafka
from tests.support.worker_process import settings as environment_of
from tests.support.worker_process import worker

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
TICK_SECONDS: Final = 0.002
_SAMPLE: Final = re.compile(rb"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """The arguments that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(text or "").split("\n", 1)[0])
    made.add_argument("--json", action="store_true", help="one line of JSON")
    made.add_argument("--items", type=int, default=10_000)
    made.add_argument("--users", type=int, default=1_000)
    return made


def show(found: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures, and on which machine they were found."""
    found = {**found, "machine": machine()}
    print(json.dumps(found) if as_json else json.dumps(found, indent=2))


def machine() -> str:
    """Processor, cores and Python."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"


def real_items(count: int) -> list[dict[str, Any]]:
    """Values of `items` with real texts: the groceries of ../shared/data; beyond them their texts in new pairs."""
    with gzip.open(DATA / "complete-journey-grocery" / "items.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [{name: value for name, value in json.loads(line).items() if value is not None} for line in lines]
    draw = random.Random(7)
    draw.shuffle(found)
    made = found[:count]
    while len(made) < count:
        first, second = draw.choice(found), draw.choice(found)
        made.append({**first, "item_id": f"x{len(made)}", "title": f"{first['title']} {second['title']}"})
    return made


def made_event(number: int, draw: random.Random, items: Sequence[dict[str, Any]], users: int) -> dict[str, Any]:
    """An event: any user, items by a long tail (Zipf-like), types as in a shop."""
    place = min(int(draw.paretovariate(0.9)) - 1, len(items) - 1)
    kind = draw.choices(("view", "click", "cart", "purchase"), (60, 25, 8, 7))[0]
    return {
        "event_id": f"e{number}", "user_id": f"u{draw.randrange(users)}", "type": kind,
        "item_id": items[place]["item_id"], "timestamp": time.time(),
    }  # fmt: skip


@dataclass(slots=True)
class Deliveries:
    """When each event was answered: by the list that names it first."""

    at: dict[str, float] = field(default_factory=dict)
    lists: int = 0
    with_item: dict[str, float] = field(default_factory=dict)
    """When an item first stood in a list."""
    watched: frozenset[str] = frozenset()


class Rig:
    """A cluster, a worker and a client."""

    def __init__(self, kafka: str, folder: Path, **others: str) -> None:
        self.folder = folder
        self.pid = 0
        """The worker's."""
        prefix = f"b{secrets.token_hex(4)}-"
        self.settings = Settings(kafka=kafka, topic_prefix=prefix)
        self.environment = environment_of(kafka, folder, topic_prefix=prefix, **others)
        self.deliveries = Deliveries()
        self.producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=0, max_batch_size=262_144)
        self._reader: asyncio.Task[None] | None = None

    def name(self, topic: str) -> str:
        """The topic's name on the cluster."""
        return f"{self.settings.topic_prefix}{topic}"

    async def create(self, partitions: int = 4) -> None:
        """Topics and client."""
        async with TopicAdmin(self.settings) as admin:
            await admin.create(wanted_topics(self.settings, partitions))
        await self.producer.start()
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Stop the client."""
        if self._reader is not None:
            self._reader.cancel()
        await self.producer.stop()

    async def send(self, topic: str, key: str, value: dict[str, Any], *, quiet: bool = False) -> asyncio.Future[Any]:
        """Hand a record to the producer; the future ends when the broker has it."""
        headers = [("quiet", b"1")] if quiet else []
        raw = json.dumps(value).encode()
        future: asyncio.Future[Any] = await self.producer.send(self.name(topic), raw, key=key.encode(), headers=headers)
        return future

    async def import_items(self, items: Sequence[dict[str, Any]], *, quiet: bool = True) -> float:
        """Publish a catalogue and wait until the worker holds it; returns the seconds that took."""
        before = self.done(await asyncio.to_thread(self.metrics), "items")
        began = time.monotonic()
        for item in items:
            await self.send("items", item["item_id"], item, quiet=quiet)
        await self.producer.flush()
        await self.taken("items", before + len(items))
        return time.monotonic() - began

    async def taken(self, topic: str, records: float, seconds: float = 900.0) -> None:
        """Wait until the worker has done so many records of a topic: they are durable and acknowledged."""
        deadline = time.monotonic() + seconds
        while self.done(await asyncio.to_thread(self.metrics), topic) < records:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the records of {topic} were not done in {seconds} s")
            await asyncio.sleep(0.05)

    @staticmethod
    def done(samples: Sequence[tuple[str, dict[str, str], float]], topic: str) -> float:
        """Records of a topic that the worker has done."""
        return sum(
            value for name, labels, value in samples
            if name == "coldstream_records_total" and labels["topic"] == topic
        )  # fmt: skip

    def metrics(self, http: str = "") -> list[tuple[str, dict[str, str], float]]:
        """All samples of /metrics of the worker at `http` (host:port); without one, of the rig's own."""
        address = f"http://{http or self.environment['COLDSTREAM_HTTP']}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read()
        return [
            (name.decode(), dict(re.findall(r'(\w+)="([^"]*)"', labels.decode())), float(value))
            for name, labels, value in _SAMPLE.findall(text)
        ]

    async def load(
        self, rate: float, seconds: float, make: Callable[[int], dict[str, Any]], first: int = 0
    ) -> dict[str, float]:
        """Send `rate` events a second, each at its moment; returns the planned moment of each event id."""
        planned: dict[str, float] = {}
        begun, sent, number_of_all = time.time(), 0, int(rate * seconds)
        while sent < number_of_all:
            due = int((time.time() - begun) * rate) + 1
            while sent < min(due, number_of_all):
                event = make(first + sent)
                planned[event["event_id"]] = begun + sent / rate
                await self.send("events", event["user_id"], event)
                sent += 1
            await asyncio.sleep(TICK_SECONDS)
        await self.producer.flush()
        return planned

    async def answered(self, planned: dict[str, float], seconds: float = 120.0) -> list[float]:
        """Milliseconds from each event's planned moment to its list, sorted; waits for the last."""
        deadline = time.monotonic() + seconds
        while any(event not in self.deliveries.at for event in planned):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        missing = sum(event not in self.deliveries.at for event in planned)
        if missing:
            raise TimeoutError(f"{missing} of {len(planned)} events were not answered in {seconds} s")
        return sorted(1000 * (self.deliveries.at[event] - at) for event, at in planned.items())

    def cpu_seconds(self) -> float:
        """CPU that the worker has taken since its start."""
        return sum(value for name, _, value in self.metrics() if name == "process_cpu_seconds_total")

    def stages(self, before: Sequence[tuple[str, dict[str, str], float]]) -> dict[str, float]:
        """Milliseconds a batch by stage since `before`."""
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        for sign, samples in ((-1, before), (1, self.metrics())):
            for name, labels, value in samples:
                if name == "coldstream_stage_seconds_sum":
                    sums[labels["stage"]] = sums.get(labels["stage"], 0.0) + sign * value
                if name == "coldstream_stage_seconds_count":
                    counts[labels["stage"]] = counts.get(labels["stage"], 0.0) + sign * value
        return {stage: round(1000 * sums[stage] / counts[stage], 3) for stage in sums if counts.get(stage)}

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            self.name("recommendations"), bootstrap_servers=self.settings.kafka, auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )  # fmt: skip
        await consumer.start()
        try:
            async for message in consumer:
                now = time.time()
                if message.value is None:
                    continue
                value = json.loads(message.value)
                self.deliveries.lists += 1
                for name in (value["trigger"]["id"], *value["conflated"]):
                    self.deliveries.at.setdefault(name, now)
                for item in value["items"] if self.deliveries.watched else ():
                    if item["item_id"] in self.deliveries.watched:
                        self.deliveries.with_item.setdefault(item["item_id"], now)
        finally:
            await consumer.stop()


def percentiles(sorted_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, p99.9 and the greatest of sorted milliseconds."""

    def at(share: float) -> float:
        return round(sorted_ms[min(len(sorted_ms) - 1, int(share * len(sorted_ms)))], 2)

    return {"p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "p99_9_ms": at(0.999), "max_ms": at(1.0)}


@contextmanager
def cluster() -> Iterator[tuple[str, Path]]:
    """One Apache Kafka broker and a folder, both gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="coldstream-benchmark-"))
    try:
        with ApacheKafka(folder / "kafka") as kafka:  # type: ignore[no-untyped-call]
            yield kafka.servers, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def rig(kafka: str, folder: Path, *, partitions: int = 4, **others: str) -> AsyncIterator[Rig]:
    """Topics, a ready worker on them and a client."""
    made = Rig(kafka, folder / secrets.token_hex(4), **others)
    made.folder.mkdir()
    await made.create(partitions)
    try:
        with worker(made.environment, made.folder / "worker.log") as process:
            made.pid = process.pid
            yield made
    finally:
        await made.close()
