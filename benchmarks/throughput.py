"""Sustained events a second of one worker, and its ratio to the naive way in the same run.

    python -m benchmarks.throughput --json

A rate is sustained where the lag does not grow: the rate is raised step by step, each held for some seconds; the greatest
whose last event was answered within two seconds counts. Backlog: how fast events that are all there are worked off. The naive
way works off the same kind of events on topics of its own, before and after, on the same broker and machine.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.rig import Rig, cluster, made_event, parser, percentiles, real_items, rig, show

ROOT = Path(__file__).parents[1]
NAIVE_EVENTS = 300
NAIVE_ITEMS = 300
LATE_MS = 2000.0


async def measure(*, items: int, users: int, seconds: float, backlog: int, rates: list[float]) -> dict[str, Any]:
    """All figures of the benchmark."""
    catalogue, draw = real_items(items), random.Random(11)
    with cluster() as (kafka, folder):
        naive = [await naive_rates(kafka, folder / "naive-1", catalogue, users)]
        async with rig(kafka, folder) as it:
            imported = await it.import_items(catalogue)
            numbers = iter(range(10**9))

            def make(_number: int) -> dict[str, Any]:
                return made_event(next(numbers), draw, catalogue, users)

            await it.answered(await it.load(100.0, 10.0, make))
            sustained, steps = 0.0, []
            for rate in rates:
                found = await it.answered(await it.load(rate, seconds, make), 600.0)
                steps.append({"rate": rate, **percentiles(found)})
                if found[-1] > LATE_MS:
                    break
                sustained = rate
            events = [make(0) for _ in range(backlog)]
            cpu = await asyncio.to_thread(it.cpu_seconds)
            began = time.time()
            for event in events:
                await it.send("events", event["user_id"], event)
            await it.producer.flush()
            await it.answered(dict.fromkeys((event["event_id"] for event in events), began), 900.0)
            cpu = await asyncio.to_thread(it.cpu_seconds) - cpu
            worked_off = backlog / (max(it.deliveries.at[event["event_id"]] for event in events) - began)
        naive.append(await naive_rates(kafka, folder / "naive-2", catalogue, users))
        slow = statistics.mean(rate["events"] for rate in naive)
        return {
            "events_per_second": sustained, "steps": steps, "backlog_events_per_second": round(worked_off, 1),
            "backlog_cpu_ms_an_event": round(1000 * cpu / backlog, 3),
            "naive_events_per_second": round(slow, 2), "ratio_to_naive": round(sustained / slow, 1),
            "items_per_second": round(items / imported, 1),
            "naive_items_per_second": round(statistics.mean(rate["items"] for rate in naive), 2),
        }  # fmt: skip


async def naive_rates(kafka: str, folder: Path, catalogue: list[dict[str, Any]], users: int) -> dict[str, float]:
    """Items and events a second of the naive way."""
    await asyncio.to_thread(folder.mkdir)
    it, draw = Rig(kafka, folder), random.Random(3)
    await it.create(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.naive", kafka, it.settings.topic_prefix, str(folder), cwd=ROOT
    )
    try:
        while not await asyncio.to_thread((folder / "ready").exists):
            if process.returncode is not None:
                raise RuntimeError("the naive consumer ended")
            await asyncio.sleep(0.2)
        began = time.time()
        for item in catalogue[:NAIVE_ITEMS]:
            await it.send("items", item["item_id"], item)
        await committed(kafka, f"{it.settings.topic_prefix}naive", NAIVE_ITEMS)
        embedded = time.time()
        events = [made_event(number, draw, catalogue[:NAIVE_ITEMS], users) for number in range(NAIVE_EVENTS)]
        for event in events:
            await it.send("events", event["user_id"], event)
        await it.answered(dict.fromkeys((event["event_id"] for event in events), embedded), 300.0)
        last = max(it.deliveries.at[event["event_id"]] for event in events)
    finally:
        process.kill()
        await process.wait()
        await it.close()
    return {"items": NAIVE_ITEMS / (embedded - began), "events": NAIVE_EVENTS / (last - embedded)}


async def committed(kafka: str, group: str, records: int) -> None:
    """Wait until a group has committed so many records."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        while True:
            offsets = await admin.list_consumer_group_offsets(group)
            if sum(place.offset for place in offsets.values() if place.offset > 0) >= records:
                return
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


def main() -> int:
    """Measure and print."""
    arguments = parser("throughput", __doc__)
    arguments.add_argument("--seconds", type=float, default=20.0, help="for which each rate is held")
    arguments.add_argument("--backlog", type=int, default=20_000)
    arguments.add_argument("--rates", default="100,200,300,400,500,700,1000,1250,1500,2000,2500,3000")
    asked = arguments.parse_args()
    found = asyncio.run(
        measure(
            items=asked.items, users=asked.users, seconds=asked.seconds, backlog=asked.backlog,
            rates=[float(rate) for rate in asked.rates.split(",")],
        )
    )  # fmt: skip
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
