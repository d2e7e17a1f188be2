"""A flood, and an import beside a trickle of events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Final
from zlib import crc32

import msgspec

from streams.kafka.connection import full_name
from streams.ports import Collection
from streams.values import Topic
from tests.chaos.scenario import Context
from tests.chaos.site import Life, Site, memory_bytes
from tests.simulation.story import Sent

RSS_MOST_BYTES: Final = 700 * 1024 * 1024
"""What a worker may take in a flood: its libraries, full buffers of nine topics, the users' cache."""


async def flood(context: Context) -> list[str]:
    """A flood as fast as the producer goes, half of it one user and one item; an import in the middle of a trickle."""
    site = context.site("flood", record_bytes="1048576", fan_out_users="0")
    users, items = 400, 50
    begun_at = time.time() - 1000.0

    def event(number: int) -> Sent:
        hot = number % 2 == 0
        user = "hot" if hot else f"u{number % users}"
        item = "seen-by-all" if hot or number % 3 == 0 else f"i{number % items}"
        value = {
            "event_id": f"e{number}",
            "user_id": user,
            "type": "click",
            "item_id": item,
            "timestamp": begun_at + number / 1e3,
        }
        return Sent(
            number, Topic.EVENTS, crc32(user.encode()) % 4, 0.0, user.encode(), msgspec.json.encode(value), body=value
        )

    def thing(number: int, name: str) -> Sent:
        value = {"item_id": name, "title": f"A thing of the kind {number % 7} number {number}"}
        return Sent(
            number, Topic.ITEMS, crc32(name.encode()) % 4, 0.0, name.encode(), msgspec.json.encode(value), body=value
        )

    wrong: list[str] = []
    peak = 0
    lags: list[int] = []

    async def sample(life: Life) -> None:
        nonlocal peak
        while life.process.poll() is None:
            peak = max(peak, memory_bytes(life))
            await asyncio.sleep(0.25)

    try:
        await site.create()
        topic = full_name(site.settings, Topic.RECOMMENDATIONS)  # whose compaction would take what is to be compared
        await asyncio.to_thread(
            context.cluster.run, "tool", "configs", "--alter", "--entity-type", "topics", "--entity-name", topic,
            "--add-config", "cleanup.policy=delete",
        )  # fmt: skip
        life = site.start()
        await life.ready()
        sampling = asyncio.create_task(sample(life))
        await site.publish([thing(n, f"i{n}") for n in range(items)] + [thing(99, "seen-by-all")], 1000.0)
        await site.drain()
        calm = 600
        begun = time.monotonic()
        await site.publish([event(number) for number in range(calm)], 1e6)
        await site.drain()
        sustainable = calm / max(time.monotonic() - begun - 2.0, 0.5)
        resting = peak
        script = [event(number) for number in range(calm, calm + context.events)]
        begun = time.monotonic()
        await site.publish(script, 100.0 * sustainable)
        flooded = time.monotonic() - begun
        deadline = time.monotonic() + max(1200.0, context.events / 200.0)
        while (lag := await site.lag()) and time.monotonic() < deadline:
            lags.append(lag)
            await asyncio.sleep(1.0)
        await site.drain()
        drained = time.monotonic() - begun
        named: set[str] = set()
        lists = 0
        for record in await site.read(Topic.RECOMMENDATIONS):
            value = json.loads(record.value or b"{}")
            named |= {value["trigger"]["id"], *value["conflated"]}
            lists += 1
        lost = [f"e{number}" for number in range(calm + context.events) if f"e{number}" not in named]
        if lost:
            wrong.append(f"{len(lost)} events are named by no list: {lost[:5]}")
        wrong += await _import_beside_a_trickle(site, event, thing, calm + context.events, context)
        await life.stop()
        sampling.cancel()
        counted = 0
        for point in (await site.points([]))[Collection.STATISTICS].values():
            counted += json.loads(point.body)["events"]
        if counted != (sent := context.facts.pop("sent")):
            wrong.append(f"{counted} of {sent} events are counted")
        if peak > RSS_MOST_BYTES:
            wrong.append(f"{peak >> 20} MiB are more than {RSS_MOST_BYTES >> 20}")
        context.facts |= {
            "sustainable_per_second": round(sustainable), "flood_per_second": round(context.events / flooded),
            "flood_seconds": round(flooded, 1), "drained_seconds": round(drained), "most_lag": max(lags, default=0),
            "lists": lists, "rss_mib": {"after_calm": resting >> 20, "most": peak >> 20},
        }  # fmt: skip
        return wrong
    finally:
        site.end()


async def _import_beside_a_trickle(
    site: Site, event: Callable[[int], Sent], thing: Callable[[int, str], Sent], first: int, context: Context
) -> list[str]:
    """3,000 items at once, an event each half a second: none of these waits for the import."""
    trickle = [event(first + number) for number in range(12)]
    importing = asyncio.create_task(site.publish([thing(n, f"new-{n}") for n in range(3000)], 1e6))
    await asyncio.sleep(0.3)
    await site.publish(trickle, 2.0)
    await importing
    waiting = len(site.living) and await site.lag()
    await site.drain()
    context.facts["sent"] = first + len(trickle)
    sent_at = {}
    for record in await site.read(Topic.EVENTS):
        sent_at[json.loads(record.value or b"{}")["event_id"]] = record.time
    waits = {}
    for record in await site.read(Topic.RECOMMENDATIONS):
        value = json.loads(record.value or b"{}")
        for name in (value["trigger"]["id"], *value["conflated"]):
            waits.setdefault(name, record.time - sent_at[name])
    longest = max(waits[f"e{first + number}"] for number in range(len(trickle)))
    context.facts |= {"event_during_import_seconds": round(longest, 2), "lag_after_trickle": waiting}
    return [] if longest < 3.0 else [f"an event waited {longest:.1f} s for an import"]
