"""A worker's flow in this process: the parts that ship over Qdrant Edge, without a broker, so that its CPU time is told apart.

What a worker sends to itself (signals, lessons, refreshes) comes back with the next step, as Kafka would bring it; upkeep
runs after each. A cost is CPU time of this process, so that other load on the machine changes it little.

Items beyond the real ones have texts and vectors by this generator: item n joins the titles of two real items, drawn with
seed 7; its vector is the unit vector of the sum of theirs (by the shipped student) and normal noise of norm 0.5.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.rig import real_items
from streams import app
from streams.decide.arms import Arms
from streams.decide.statistics import signals_of
from streams.flow.buffer import Buffer
from streams.flow.items import item_to_point
from streams.flow.parts import Hooks, Setting, World
from streams.flow.report import BatchReport
from streams.flow.texts import TextVectors
from streams.flow.users import UserWork, to_point
from streams.flow.worker import Worker
from streams.index import edge
from streams.ports import Clock, Collection, Write
from streams.settings import Settings
from streams.values import EventType, Interaction, ItemRecord, Message, Record, Topic, UserState, Vector
from tests.support.memory import done

T = TypeVar("T")

REAL: Final = 6_000
"""Items whose vectors the student makes."""
NOISE: Final = 0.5
BATCH: Final = 8
"""Records of a turn: at 500 events/s about what waits after a batch."""
ALTERNATIONS: Final = 50
PAST: Final = 100_000
"""Events that the columns have seen before."""
PARTITIONS: Final = 4
RETURNING: Final = (Topic.SIGNALS, Topic.LESSONS, Topic.REFRESHES)
KINDS: Final = (EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE)
WEIGHTS: Final = (60, 25, 8, 7)


class Loop:
    """The broker's place: owns everything, weighs what is sent, and keeps what comes back."""

    def __init__(self) -> None:
        self.sent: Counter[Topic] = Counter()
        """Bytes of keys and values by topic."""
        self.returning: list[Message] = []
        self._next: Counter[tuple[Topic, int]] = Counter()

    async def hand_over(self, messages: Sequence[Message]) -> Awaitable[None]:
        """See the port Publisher."""
        for one in messages:
            self.sent[one.topic] += len(one.key or b"") + len(one.value or b"")
        self.returning += [message for message in messages if message.topic in RETURNING]
        return done()

    async def send(self, messages: Sequence[Message]) -> None:
        """See the port Publisher."""
        await (await self.hand_over(messages))

    def partitions(self, topic: str) -> int:
        """See the port Publisher."""
        return 1 if topic == Topic.LESSONS.value else PARTITIONS

    def interrupted(self) -> str | None:
        """See the port Ownership."""
        return None

    def acknowledge(self, records: Sequence[Record]) -> None:
        """See the port Ownership."""

    def ends(self) -> Mapping[tuple[str, int], int]:
        """See the port Ownership."""
        return {}

    def lag(self) -> Mapping[tuple[Topic, int], int] | None:
        """See the port Ownership."""
        return {}

    def record(self, topic: Topic, key: str, value: bytes | None, partition: int, *, quiet: bool = False) -> Record:
        """The next record of a partition."""
        self._next[topic, partition] += 1
        headers = (("quiet", b"1"),) if quiet else ()
        return Record(topic, partition, self._next[topic, partition], time.time(), key.encode(), value, headers)

    def returned(self) -> list[Record]:
        """What was sent to the worker itself since the last call."""
        messages, self.returning = self.returning, []
        return [
            self.record(one.topic, (one.key or b"").decode(), one.value, one.partition or 0) for one in messages
        ]  # fmt: skip


class CpuClock(app.SystemClock):
    """Counts this process's CPU seconds, as if it had a core to itself: what is done by the second is done so often."""

    def monotonic(self) -> float:
        """CPU seconds."""
        return time.process_time()


class Inside:
    """The flow over an embedded index in `folder`."""

    def __init__(self, folder: Path, clock: Clock | None = None, **chosen: Any) -> None:
        self.settings = Settings(index=f"edge:{folder / 'index'}", **chosen)
        self.loop = Loop()
        self.index = edge.EdgeIndex(folder / "index")
        self.encoder = app.open_encoder(self.settings)
        self.arms = Arms.of(self.settings)
        clock, randomness = clock or app.SystemClock(), app.SystemRandomness()
        self.parts = app._parts(  # noqa: SLF001
            self.settings, self.index, TextVectors(self.encoder, _run_here), self.arms, clock, randomness
        )
        world = World(self.index, self.loop, self.loop, clock, randomness)
        hooks = Hooks(lambda: math.inf)  # as amid an import: new items fan out to nobody
        setting = Setting(world, self.parts, self.arms, app._limits(self.settings), hooks)  # noqa: SLF001
        self._real = real_items(REAL)
        self.reports: list[BatchReport] = []
        self.worker = Worker(setting, Buffer(records=512, bytes_=1 << 24), self.reports.append)

    async def open(self) -> None:
        """Ready to be filled. No graph of users is built beside, for as long as this process lives: only a fan-out asks it."""
        edge.UNINDEXED_POINTS = sys.maxsize  # type: ignore[misc]
        await self.index.open(self.encoder.dimension)
        await self.worker.assigned({topic.value: frozenset(range(PARTITIONS)) for topic in Topic})

    async def fill_items(self, count: int) -> float:
        """Write so many items to the index; returns CPU milliseconds an item."""
        began, now = time.process_time(), time.time()
        for page in _pages(made_items(count, self.encoder.encode), 1000):
            points = [item_to_point(record, vector, self.encoder.template, now) for record, vector in page]
            await self.index.write(Collection.ITEMS, [Write(point, None) for point in points])
        return 1000 * (time.process_time() - began) / count

    def fill_columns(self, count: int) -> float:
        """Put so many items into the columns, and not into the index; returns CPU milliseconds an item."""
        began = time.process_time()
        for page in _pages(made_items(count, self.encoder.encode), 1000):
            self.parts.catalogue.columns.put(page)
        return 1000 * (time.process_time() - began) / count

    async def fill_users(self, count: int, items: int, history: int, draw: random.Random) -> float:
        """Write so many users with histories to the index; returns CPU milliseconds a user."""
        began, now = time.process_time(), time.time()
        chance = np.random.default_rng(5)
        for page in _pages(iter(range(count)), 1000):
            writes = []
            for number in page:
                work = UserWork(f"u{number}", [])
                work.state = UserState(
                    f"u{number}", history=made_history(history, items, now, draw), version=1, write_id="0"
                )
                taste = chance.normal(size=self.encoder.dimension).astype(np.float32)
                work.taste = taste / np.linalg.norm(taste)
                writes.append(Write(to_point(work, work.state, named=True), None))
            await self.index.write(Collection.USERS, writes)
        return 1000 * (time.process_time() - began) / count

    def live_through(self, events: int, items: int, draw: random.Random) -> None:
        """Let the columns count events of the past: users of 20 events each."""
        now = time.time() - 86_400.0
        columns = self.parts.catalogue.columns
        for _ in range(events // 20):
            history = made_history(20, items, now, draw)
            for place, one in enumerate(history):
                columns.observe(signals_of(UserState("u", history=history[:place]), one))

    def event(self, number: int, users: int, items: int, draw: random.Random) -> Record:
        """An event of any user on an item drawn by Zipf's law."""
        user = draw.randrange(users)
        value = {
            "event_id": f"e{number}", "user_id": f"u{user}", "type": _kind(draw).value,
            "item_id": f"i{place_of(items, draw)}", "timestamp": time.time(),
        }  # fmt: skip
        return self.loop.record(Topic.EVENTS, f"u{user}", json.dumps(value).encode(), user % PARTITIONS)

    def item(self, number: int, draw: random.Random) -> Record:
        """A new item, which the student is to embed."""
        value = joined(draw.choice(self._real), draw.choice(self._real)) | {"item_id": f"i{number}"}
        return self.loop.record(Topic.ITEMS, f"i{number}", json.dumps(value).encode(), number % PARTITIONS)

    async def step(self, records: Sequence[Record]) -> float:
        """One turn of the worker's loop, what it sent itself included; returns CPU seconds."""
        began = time.process_time()
        await self.worker.step([*records, *self.loop.returned()], self.worker.maintain)
        return time.process_time() - began


def made_items(
    count: int, encode: Callable[[Sequence[str]], NDArray[np.float32]]
) -> Iterator[tuple[ItemRecord, Vector]]:
    """Items and vectors by the generator that stands above, ids i0, i1, …"""
    real, draw, chance = real_items(min(count, REAL)), random.Random(7), np.random.default_rng(7)
    base = np.concatenate([encode([one["title"] for one in real[at : at + 64]]) for at in range(0, len(real), 64)])
    now = time.time()
    for number in range(count):
        if number < len(real):
            value, vector = real[number], base[number]
        else:
            one, other = draw.randrange(len(real)), draw.randrange(len(real))
            noise = chance.normal(0.0, NOISE / math.sqrt(base.shape[1]), base.shape[1])
            vector = np.asarray(base[one] + base[other] + noise, np.float32)
            vector = vector / np.float32(np.linalg.norm(vector))
            value = joined(real[one], real[other])
        yield ItemRecord(
            f"i{number}", value["title"], categories=tuple(value["categories"]), price=value.get("price"),
            attributes=value["attributes"], first_seen=now - 1e6 + number, version=1,
        ), vector  # fmt: skip


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """An item with the attributes of one and the titles of both."""
    return {**one, "title": f"{one['title']} {other['title']}"}


def made_history(count: int, items: int, now: float, draw: random.Random) -> tuple[Interaction, ...]:
    """Interactions of a minute each, the last one an hour ago."""
    return tuple(
        Interaction(now - 3600.0 - 60.0 * (count - place), 0, place, _kind(draw), f"i{place_of(items, draw)}")
        for place in range(count)
    )


def place_of(items: int, draw: random.Random) -> int:
    """An item by Zipf's law with exponent 1: each power of ten of the catalogue is met equally often."""
    return min(int(items ** draw.random()) - 1, items - 1)


def memory(pid: int | str = "self") -> dict[str, float]:
    """MiB of a process: what it holds itself, mapped files apart (Edge maps its own, the kernel may drop them)."""
    values = {}
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            values[name] = int(value.split()[0]) / 1024
    return {"rss_anon_mib": round(values["RssAnon"], 1), "rss_files_mib": round(values["RssFile"], 1)}


async def serve(turns: Mapping[str, Callable[[], Awaitable[float]]], finish: Callable[[], dict[str, Any]]) -> None:
    """A child of `beside`: for each line of the standard input, COUNT turns of one kind; at its end what else was found."""
    print(json.dumps("ready"), flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        print(json.dumps([await turns[line[0]]() for _ in range(int(line[1]))]), flush=True)
    print(json.dumps(finish()), flush=True)


def beside(
    module: str, name: str, sizes: Sequence[int], rounds: Mapping[str, int], arguments: Sequence[str]
) -> list[Row]:
    """What children of a module find, one for each size, in alternation: what else the machine does falls on all alike.

    `rounds`: of each kind of turn how many in all. Fifty alternations; a row holds the CPU seconds of every turn by kind.
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-m", module, "--serve", f"--{name}", str(size), *arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1], env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        for size in sizes
    ]  # fmt: skip
    spent: list[dict[str, list[list[float]]]] = [{kind: [] for kind in rounds} for _ in sizes]
    try:
        for one in children:
            _answer(one)
        for kind, count in rounds.items():
            for _ in range(ALTERNATIONS):
                for place, one in enumerate(children):
                    assert one.stdin is not None
                    one.stdin.write(f"{kind} {-(-count // ALTERNATIONS)}\n")
                    one.stdin.flush()
                    spent[place][kind].append(_answer(one))
        found = []
        for one, times in zip(children, spent, strict=True):
            assert one.stdin is not None
            one.stdin.close()
            found.append(Row(_answer(one), times))
            if one.wait():
                raise RuntimeError(f"a child ended with {one.returncode}")
    finally:
        for one in children:
            one.kill()
            one.wait()
    return found


def _answer(one: subprocess.Popen[str]) -> Any:
    assert one.stdout is not None
    line = one.stdout.readline()
    if not line:
        raise RuntimeError("a child ended early: see what it printed")
    return json.loads(line)


@dataclass(frozen=True, slots=True)
class Row:
    """What was found at one size."""

    others: dict[str, Any]
    spent: dict[str, list[list[float]]]
    """CPU seconds of each turn, by kind and alternation."""

    def figures(self) -> dict[str, Any]:
        """Milliseconds a record: mean, median and 99th percentile of the turns; and what else there is."""
        found: dict[str, Any] = {}
        for kind, alternations in self.spent.items():
            turns = sorted(turn for some in alternations for turn in some)
            found |= {
                f"{kind}_ms": to_ms(statistics.mean(turns)), f"{kind}_p50_ms": to_ms(turns[len(turns) // 2]),
                f"{kind}_p99_ms": to_ms(turns[int(0.99 * len(turns))]),
            }  # fmt: skip
        return {**self.others, **found}

    def ratio_to(self, other: Row, kind: str) -> float:
        """Median over the alternations of how much dearer a turn is here."""
        pairs = zip(self.spent[kind], other.spent[kind], strict=True)
        return round(statistics.median(sum(ours) / sum(theirs) for ours, theirs in pairs), 2)


def to_ms(seconds: float) -> float:
    """Of a turn, by record."""
    return round(1000 * seconds / BATCH, 3)


def _kind(draw: random.Random) -> EventType:
    return draw.choices(KINDS, WEIGHTS)[0]


def _pages(entries: Iterator[T], size: int) -> Iterator[list[T]]:
    while page := list(islice(entries, size)):
        yield page


async def _run_here(act: Callable[[], T]) -> T:
    return act()
