"""How many workers, partitions and Qdrant shards a load needs: costs measured here, then a simulation of queues with them.

    python -m benchmarks.sizing --json                        100,000 events a second
    python -m benchmarks.sizing --rate 5000 --catalogue 200000

Measured in this process (benchmarks.inside): CPU of a batch as a + b × events, of a lesson learned, of an item's statistics
read again, of a user's write and read in Qdrant's engine. Simulated: events of users whose activity differs by Zipf's law
come at chance moments (Poisson) to the partitions of their users; a worker takes whatever waits, 256 at most, and between
batches reads again what other workers counted. docs/sizing.md draws the conclusions.
"""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
import time
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.inside import CpuClock, Inside
from benchmarks.rig import parser, show
from streams.flow.catalogue import OVERLAP_SECONDS, SLICE_SECONDS
from streams.flow.signals import statistics_from_point
from streams.ports import Collection
from streams.values import Topic

BATCHES: Final = (1, 4, 16, 64)
ROUNDS: Final = 25
MOST: Final = 256
A_WORKER: Final = 4
MOST_PARTITIONS: Final = 1000
"""As many as `coldstream topics create` makes."""
WORKERS: Final = 16
PARTITIONS: Final = (16, 20, 24, 32, 40, 64, 100, 160)
"""For so many workers."""
P99_MS: Final = 50.0
BUSY: Final = 0.6
"""Share of a core that the plan gives to events: the rest is for peaks, rebalances and what is done beside."""
BESIDE: Final = 0.1
"""… and what reading others' counts may take of it."""
LEARNER: Final = 0.3
"""Share of a core that the one learner may take."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU milliseconds, as measured; `hop_ms` is the broker's part of an event's way, which costs no CPU here."""

    batch_ms: float
    event_ms: float
    lesson_ms: float
    reload_ms: float
    user_write_ms: float
    user_read_ms: float
    hop_ms: float
    sent_bytes: dict[str, int] = field(default_factory=dict)
    """Of an event, by topic."""


@dataclass(frozen=True, slots=True)
class Load:
    """What comes."""

    rate: float
    catalogue: int
    users: int


async def measure(items: int, users: int, hop_ms: float) -> Costs:
    """The costs on this machine."""
    draw, numbers = random.Random(11), iter(range(10**9))
    with tempfile.TemporaryDirectory(prefix="coldstream-sizing-") as scratch:
        it = Inside(Path(scratch), CpuClock(), users_cache=users)
        await it.open()
        await it.fill_items(items)
        write = await it.fill_users(users, items, 20, draw)
        await it.parts.catalogue.load()
        it.live_through(50_000, items, draw)
        columns = it.parts.catalogue.columns
        columns.nearness.of(np.arange(len(columns)), len(columns), columns.short, columns.wording)
        for _ in range(60):
            await it.step([it.event(next(numbers), users, items, draw) for _ in range(8)])
        it.loop.sent.clear()
        spent: dict[int, list[float]] = {size: [] for size in BATCHES}
        for size, _ in zip(cycle(BATCHES), range(ROUNDS * len(BATCHES)), strict=False):
            events = [it.event(next(numbers), users, items, draw) for _ in range(size)]
            spent[size].append(await it.step(events) + await it.step([]))  # with what it sends to itself
        events_sent = ROUNDS * sum(BATCHES)
        sent = {topic.value: round(size / events_sent) for topic, size in it.loop.sent.items()}
        means = [1000 * float(np.median(spent[size])) for size in BATCHES]
        event, batch = np.polyfit(BATCHES, means, 1, w=1.0 / np.array(BATCHES))
        returned: list[Any] = []
        while len(returned) < 64:
            await it.worker.step([it.event(next(numbers), users, items, draw) for _ in range(64)])
            returned += [one for one in it.loop.returned() if one.topic is Topic.LESSONS]
        began = time.process_time()
        await it.worker.step(returned)
        lesson = (time.process_time() - began) / len(returned)
        await it.worker.upkeep.finish()
        began = time.process_time()
        page = await it.index.scan(Collection.STATISTICS, limit=10_000)
        columns.absorb([one for point in page.points if (one := statistics_from_point(point)) is not None])
        reload = (time.process_time() - began) / len(page.points)
        ids = [f"u{number}" for number in range(users)]
        began = time.process_time()
        for at in range(0, users, 16):
            await it.index.read(Collection.USERS, ids[at : at + 16])
        read = (time.process_time() - began) / users
        await it.index.close()
    return Costs(
        round(max(float(batch), 0.0), 3), round(float(event), 3), round(1000 * lesson, 3), round(1000 * reload, 3),
        round(write, 3), round(1000 * read, 3), hop_ms, sent,
    )  # fmt: skip


def changed(load: Load, seconds: float) -> float:
    """Items that events met within so many seconds, by Zipf's law over the catalogue."""
    shares = 1.0 / np.arange(1, load.catalogue + 1)
    return float(-np.expm1(-load.rate * seconds * shares / shares.sum()).sum())


def simulate(
    load: Load, costs: Costs, workers: int, partitions: int, *, beside: tuple[float, float] = (math.inf, 0.0),
    seconds: float = 20.0, seed: int = 1,
) -> dict[str, float]:  # fmt: skip
    """The busiest worker's way through so many seconds: p50 and p99 of an event's latency, and how busy it was.

    `beside`: every so many seconds the worker has so many seconds of reading to do, which it does in slices after batches
    and while nothing waits. A tenth of the time is left out as a warm-up. A busy worker takes larger batches, so that it
    may be busy all the time long before it is overloaded.
    """
    chance = np.random.default_rng(seed)
    activity = 1.0 / np.arange(1, load.users + 1) ** 0.5
    shares = np.bincount(chance.integers(partitions, size=load.users), activity, minlength=partitions) / activity.sum()
    of_worker = np.bincount(np.arange(partitions) % workers, shares, minlength=workers)
    share = float(of_worker.max())
    at = np.sort(chance.random(chance.poisson(load.rate * share * seconds)) * seconds)
    done, busy = _served(at, costs, beside)
    late = 1000 * (done - at)[at > seconds / 10] + costs.hop_ms
    return {
        "p50_ms": round(float(np.quantile(late, 0.5)), 1), "p99_ms": round(float(np.quantile(late, 0.99)), 1),
        "busy": round(busy / max(float(done[-1]), seconds), 2), "busiest_worker_over_mean": round(share * workers, 3),
    }  # fmt: skip


def _served(
    at: NDArray[np.float64], costs: Costs, beside: tuple[float, float]
) -> tuple[NDArray[np.float64], float]:  # fmt: skip
    """(when each event is answered, seconds of work)."""
    done, now, first, busy = np.empty(len(at)), 0.0, 0, 0.0
    due, owed = beside[0], 0.0
    while first < len(at):
        now, owed = max(now, float(at[first])), max(0.0, owed - max(float(at[first]) - now, 0.0))
        last = min(int(np.searchsorted(at, now, side="right")), first + MOST)
        spent = (costs.batch_ms + costs.event_ms * (last - first)) / 1000
        done[first:last], first = now + spent, last
        if now >= due:
            owed, due = owed + beside[1], now + beside[0]
        read = min(owed, SLICE_SECONDS)
        now, owed, busy = now + spent + read, owed - read, busy + spent + read
    return done, busy


def plan(load: Load, costs: Costs, shard_share: float) -> dict[str, Any]:
    """The sizing of a load, and what the simulation says of it."""
    workers = least = max(1, math.ceil(load.rate * costs.event_ms / 1000 / BUSY))
    found = _planned(load, costs, workers)
    while found["p99_ms"] > P99_MS and workers < 4 * least:  # more of them don't shorten a lone event's way
        workers = math.ceil(1.05 * workers)
        found = _planned(load, costs, workers)
    engine = load.rate * (costs.user_write_ms + 2 * costs.user_read_ms) / 1000
    shards = max(1, math.ceil(engine / shard_share))
    return {**found, "qdrant_engine_cores": round(engine, 1), "qdrant_shards": shards}


def _planned(load: Load, costs: Costs, workers: int) -> dict[str, Any]:
    """So many workers: what to set, and what the simulation says of it."""
    partitions = workers * max(1, min(A_WORKER, MOST_PARTITIONS // workers))
    others = (workers - 1) / workers

    def reading(every: float) -> float:
        return others * changed(load, every + OVERLAP_SECONDS) * costs.reload_ms / 1000

    every = 2.0
    while reading(every) > BESIDE * every:
        every *= 1.25
    lessons = min(50.0, LEARNER * 1000 / costs.lesson_ms / workers)
    return {
        "rate": load.rate, "catalogue": load.catalogue, "users": load.users, "workers": workers, "partitions": partitions,
        "COLDSTREAM_RELOAD_SECONDS": round(every, 1), "COLDSTREAM_LESSONS_PER_SECOND": round(lessons, 2),
        "counts_read_again_by_each_worker": round(others * changed(load, every + OVERLAP_SECONDS)),
        "reading_share": round(reading(every) / every, 3),
        **simulate(load, costs, workers, partitions, beside=(every, reading(every))),
    }  # fmt: skip


def carries(costs: Costs) -> tuple[float, dict[str, float]]:
    """The greatest rate that one worker carries at a p99 within the bar, and how it fares there."""
    low, high = 1.0, 1000 / costs.event_ms
    for _ in range(12):
        middle = (low + high) / 2
        fits = simulate(Load(middle, 10_000, 10_000), costs, 1, 4)["p99_ms"] <= P99_MS
        low, high = (middle, high) if fits else (low, middle)
    return round(low), simulate(Load(low, 10_000, 10_000), costs, 1, 4)


def main() -> int:
    """Measure, simulate and print."""
    arguments = parser("sizing", __doc__)
    arguments.set_defaults(users=1_000)
    arguments.add_argument("--rate", type=float, default=100_000.0)
    arguments.add_argument("--catalogue", type=int, default=200_000, help="items of the load that is sized")
    arguments.add_argument("--active", type=int, default=1_000_000, help="users of the load that is sized")
    arguments.add_argument("--hop-ms", type=float, default=2.6, help="in and out of Kafka, without a worker's work")
    arguments.add_argument(
        "--shard-share", type=float, default=0.3, help="cores of the engine's work that a shard is given"
    )
    asked = arguments.parse_args()
    costs = asyncio.run(measure(asked.items, asked.users, asked.hop_ms))
    carried, fares = carries(costs)
    loads = [Load(rate, asked.catalogue, asked.active) for rate in (1_000.0, 10_000.0, asked.rate)]
    spread = {
        str(each): simulate(loads[1], costs, WORKERS, each, seconds=1.0)["busiest_worker_over_mean"]
        for each in PARTITIONS
    }
    found = {
        "costs_ms": asdict(costs), "one_worker": {"events_per_second": carried, **fares},
        "plans": [plan(load, costs, asked.shard_share) for load in loads],
        "busiest_of_16_workers_over_mean_by_partitions": spread,
    }  # fmt: skip
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
