"""What an event costs in the worker's flow, without a broker: CPU milliseconds, by size of batch and stage.

    python -m benchmarks.flow --json

10,000 items, 1,000 users, events as the other benchmarks make them, over Qdrant Edge; batches of all sizes in turns, so that
other load falls on all alike. Learning and upkeep run by the CPU's clock: as often as in a worker that has a core to itself.
Memory and garbage collection are set as in a worker. Two commits are compared by running it in turns from two checkouts.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.inside import PARTITIONS, CpuClock, Inside
from benchmarks.rig import made_event, parser, show
from streams.app import keep_memory, set_aside
from streams.values import Record, Topic
from streams.wire import JSON

SIZES = (1, 4, 16, 64)
WARM_UP = 4_000


async def measure(*, items: int, users: int, events: int) -> dict[str, Any]:
    """Milliseconds an event by size of batch, so many events each."""
    keep_memory()
    draw, catalogue = random.Random(11), [{"item_id": f"i{number}"} for number in range(items)]
    numbers = iter(range(10**9))
    with tempfile.TemporaryDirectory(prefix="coldstream-flow-") as scratch:
        it = Inside(Path(scratch), CpuClock())
        await it.open()
        it.fill_columns(items)

        def batch(size: int) -> list[Record]:
            made = [made_event(next(numbers), draw, catalogue, users) for _ in range(size)]
            return [
                it.loop.record(Topic.EVENTS, one["user_id"], JSON.encode(one), int(one["user_id"][1:]) % PARTITIONS)
                for one in made
            ]

        for _ in range(WARM_UP // 16):
            await it.step(batch(16))
        set_aside()
        turns: dict[int, list[float]] = {size: [] for size in SIZES}
        stages: dict[int, Counter[str]] = {size: Counter() for size in SIZES}
        for _ in range(events // max(SIZES)):
            for size in SIZES:
                it.reports.clear()
                for _ in range(max(SIZES) // size):
                    turns[size].append(1000 * await it.step(batch(size)) / size)
                for report in it.reports:
                    stages[size].update(report.stages)
        await it.index.close()
    return {
        f"batch_{size}": {
            "ms_an_event": round(statistics.mean(spent), 3), "median": round(statistics.median(spent), 3),
            "p99": round(sorted(spent)[int(0.99 * len(spent))], 3),
            "stages": {name: round(1000 * seconds / (len(spent) * size), 3) for name, seconds in stages[size].items()},
        }
        for size, spent in turns.items()
    }  # fmt: skip


def main() -> int:
    """Measure and print."""
    arguments = parser("flow", __doc__)
    arguments.add_argument("--events", type=int, default=3_200, help="of each size of batch")
    asked = arguments.parse_args()
    show(asyncio.run(measure(items=asked.items, users=asked.users, events=asked.events)), as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
