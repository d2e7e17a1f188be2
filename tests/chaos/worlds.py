"""What befalls the world around a worker: network, clock, disk, encoder, output; upgrades, growth, floods."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final
from zlib import crc32

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from encoder.bundle import SHIPPED
from streams.kafka.connection import full_name
from streams.ports import Collection
from streams.values import Topic
from tests.chaos.proxy import Proxy
from tests.chaos.scenarios import SCENARIOS, Context, Scenario, SharedIndex, load, revive
from tests.chaos.site import Life, Site, memory_bytes, say
from tests.simulation.story import Sent
from tests.support.worker_process import PROGRAM, ROOT

RSS_MOST_BYTES: Final = 700 * 1024 * 1024
"""What a worker may take in a flood: its libraries, full buffers of nine topics, the users' cache."""


async def network(context: Context) -> list[str]:
    """The network between worker and broker is cut, or swallows everything for longer than the session."""
    async with Proxy(context.kafka.split(",")[0]) as proxy:
        site = context.site("network")
        site.workers_kafka = proxy.address
        random = Random(context.seed)

        async def strike() -> None:
            for number in range(context.times):
                await asyncio.sleep(random.uniform(0.5, 2.0))
                swallowing = number % 2 == 1
                say("the network swallows all" if swallowing else "the network is cut")
                (proxy.swallow if swallowing else proxy.cut)()
                await asyncio.sleep(random.uniform(7.0, 12.0) if swallowing else random.uniform(1.0, 8.0))
                proxy.heal()
                await asyncio.sleep(4.0)

        wrong = await _under_load(context, site, strike, seconds=12.0)
        return wrong + ([] if proxy.bent else ["nobody went through the proxy"])


async def output(context: Context) -> list[str]:
    """The output topic refuses what is sent to it: held, not lost."""
    site = context.site("output")

    def take(oldest_milliseconds: int) -> None:
        """Messages that are older are refused: all are, where it is 0."""
        topic = full_name(site.settings, Topic.RECOMMENDATIONS)
        context.cluster.run(
            "tool", "configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config",
            f"message.timestamp.before.max.ms={oldest_milliseconds}",
        )  # fmt: skip

    async def strike() -> None:
        for _ in range(context.times):
            await asyncio.to_thread(take, 0)
            say("the output topic refuses")
            await asyncio.sleep(6.0)
            await _expect_not_ready(site, context, "the output topic refused")
            await asyncio.to_thread(take, 2**63 - 1)
            await asyncio.sleep(4.0)

    return await _under_load(context, site, strike, seconds=16.0)


async def clock(context: Context) -> list[str]:
    """The worker's wall clock jumps, forth and back, by up to more than an hour."""
    site = context.site("clock")
    random = Random(context.seed)

    async def strike() -> None:
        for _ in range(context.times):
            jump = random.choice((-1, 1)) * random.choice((2.0, 90.0, 4000.0))
            (site.folder / "clock").write_text(str(jump))
            say(f"the clock is wrong by {jump:.0f} s")
            await asyncio.sleep(random.uniform(1.0, 3.0))
            (site.folder / "clock").unlink()
            await asyncio.sleep(1.0)

    return await _under_load(context, site, strike, seconds=3.0)


async def encoder(context: Context) -> list[str]:
    """The encoder fails on everything, the process dies in it; a bundle that was changed does not start."""
    site = context.site("encoder")

    async def strike() -> None:
        for _ in range(context.times):
            (site.folder / "encoder").touch()
            await asyncio.sleep(4.0)
            await _expect_not_ready(site, context, "the encoder failed")
            (site.folder / "encoder").unlink()
            await asyncio.sleep(1.0)
            (site.folder / "crash").touch()
            if not await _within(15.0, lambda: not site.living):
                context.facts.setdefault("wrong", []).append("nothing was encoded for 15 s")
                (site.folder / "crash").unlink(missing_ok=True)
            else:
                say("the worker died in the encoder")
                await site.start().ready()

    wrong = await _under_load(context, site, strike, seconds=10.0)
    bundle = context.folder / "changed-bundle"
    shutil.copytree(SHIPPED, bundle)
    content = bytearray((bundle / "weights.bin").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "weights.bin").write_bytes(content)
    environment = {**site.lives[0].environment, "COLDSTREAM_BUNDLE": str(bundle)}
    done = await asyncio.to_thread(
        subprocess.run, [*PROGRAM, "worker"], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    if done.returncode != 2 or "was changed" not in done.stderr:
        wrong.append(f"a changed bundle: status {done.returncode}: {done.stderr[-300:]}")
    return wrong


async def silence(context: Context) -> list[str]:
    """A worker dies without a word, in each way there is: it ends itself within a minute, and its successor goes on."""
    site = context.site("silence")
    random = Random(context.seed)
    ends: dict[str, float] = {}

    async def strike() -> None:
        for death in ("stuck", "loop", "coordinator", "fetcher")[: max(context.times, 1)]:
            await asyncio.sleep(random.uniform(0.5, 2.0))
            life = site.living[-1]
            (site.folder / death).touch()
            begun = time.monotonic()
            if not await _within(90.0, lambda life=life: life.process.poll() is not None):  # type: ignore[misc]
                context.facts.setdefault("wrong", []).append(f"{death}: it went on for 90 s")
                life.kill()
            ends[death] = round(time.monotonic() - begun, 1)
            say(f"{death}: ended by itself with {life.process.returncode} after {ends[death]} s")
            if life.process.returncode == 0:
                context.facts.setdefault("wrong", []).append(f"{death}: status 0")
            await site.start().ready()

    wrong = await _under_load(context, site, strike, seconds=60.0)
    context.facts["ended_seconds"] = ends
    return wrong + [f"{death}: {seconds} s" for death, seconds in ends.items() if seconds > 75.0]


async def disk(context: Context) -> list[str]:
    """No room on the disk of an embedded index: held before a mapped page finds none."""
    site = context.site("disk")

    async def strike() -> None:
        for _ in range(context.times):
            (site.folder / "disk").touch()
            say("the disk is full")
            await asyncio.sleep(4.0)
            await _expect_not_ready(site, context, "the disk was full")
            (site.folder / "disk").unlink()
            await asyncio.sleep(2.0)

    return await _under_load(context, site, strike, seconds=6.0)


async def rebuild(context: Context) -> list[str]:
    """kill -9 while an embedded index is rebuilt after erasures."""
    site = context.site("rebuild", erase_within_seconds="1")
    random = Random(context.seed)
    met = 0

    async def strike() -> None:
        nonlocal met
        for _ in range(context.times):
            met += await _within(15.0, lambda: any(site.folder.glob("index/*/copy")))
            await asyncio.sleep(random.uniform(0.0, 0.8))
            site.living[-1].kill()
            say("killed in the middle of a rebuild")
            await site.start().ready()

    wrong = await _under_load(context, site, strike, seconds=6.0, erasures=0.05)
    context.facts["rebuilds_met"] = met
    return wrong + ([] if met else ["no rebuild was met"])


async def grow(context: Context) -> list[str]:
    """Partitions of events, users and refreshes grow by the runbook's procedure; users move to other ones."""
    script = context.script(wild=False)
    half = len(script) // 2
    moved = [
        dataclasses.replace(sent, partition=crc32(sent.key or b"") % 6)
        if sent.topic in {Topic.EVENTS, Topic.USERS} and place >= half else sent
        for place, sent in enumerate(script)
    ]  # fmt: skip
    async with SharedIndex() as (_, address):
        site = context.site("grow", index=address)
        try:
            await site.create()
            lives = [site.start(f"w{number}") for number in range(2)]
            for life in lives:
                await life.ready()
            await site.publish(moved[:half], 400.0)
            await site.drain()
            admin = AIOKafkaAdminClient(bootstrap_servers=context.kafka)
            await admin.start()
            topics = (Topic.EVENTS, Topic.USERS, Topic.REFRESHES)
            await admin.create_partitions({full_name(site.settings, topic): NewPartitions(6) for topic in topics})
            await admin.close()
            check = site.run("topics", "check", dimension=site.dimension)
            wrong = [] if await asyncio.to_thread(check.wait) == 0 else ["topics check finds something"]
            await site.publish(moved[half:], 400.0)
            await revive(site)
            await site.drain()
            wrong += (await site.judge(moved))[0]
            for life in site.living:
                await life.stop()
            return wrong
        finally:
            site.end()


async def upgrade(context: Context) -> list[str]:
    """A new encoder beside the old, under load, and back again; kill -9 of the filling and of workers that start."""
    async with SharedIndex() as (_, address):
        script = context.script(wild=True)
        half = len(script) // 2
        later = script[half:]
        site = context.site("upgrade", index=address)
        random = Random(context.seed)
        lives: dict[str, Life] = {}

        async def fill(dimension: int) -> None:
            for tries in range(20):
                process = site.run("reindex", dimension=dimension)
                if tries < 2:
                    await asyncio.sleep(random.uniform(0.8, 2.0))
                    process.kill()
                if await asyncio.to_thread(process.wait) == 0:
                    return
            raise AssertionError(f"reindex never ends: {(site.folder / 'commands.log').read_text()[-500:]}")

        async def change(dimension: int) -> None:
            await fill(dimension)
            say(f"filled for {dimension} numbers")
            site.dimension = dimension
            for name in list(lives):
                await lives[name].stop()
                lives[name] = site.start(name)
                await asyncio.sleep(random.uniform(0.5, 2.5))
                lives[name].kill()
                lives[name] = site.start(name)
                await lives[name].ready()
                say(f"{name} works with {dimension} numbers")
                await asyncio.sleep(1.0)

        async def strike() -> None:
            for number in range(context.times):
                await change(48 if number % 2 == 0 else 64)
                await site.publish(later[number :: context.times], 200.0)  # so that each encoder makes lists

        try:
            await site.create()
            for name in ("w0", "w1"):
                lives[name] = site.start(name)
                await lives[name].ready()
            await load(site, script[:half], half / (15.0 * context.times), strike)
            await site.drain()
            wrong = (await site.judge(script))[0]
            lists = [json.loads(record.value) for record in await site.read(Topic.RECOMMENDATIONS) if record.value]
            made = {one["encoder"] for one in lists}
            if made != {"hashing-64", "hashing-48"}:
                wrong.append(f"lists were made by {made}")
            for life in site.living:
                await life.stop()
            return wrong
        finally:
            site.end()


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
        deadline = time.monotonic() + 1200.0
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


async def _within(seconds: float, happens: Callable[[], bool]) -> bool:
    """Whether it happens in that time."""
    deadline = time.monotonic() + seconds
    while not happens() and time.monotonic() < deadline:  # noqa: ASYNC110  (files and processes have no event)
        await asyncio.sleep(0.01)
    return happens()


async def _expect_not_ready(site: Site, context: Context, why: str) -> None:
    if any([await asyncio.to_thread(life.is_ready) for life in site.living]):
        context.facts.setdefault("wrong", []).append(f"/readyz did not say that {why}")
    if not site.living:
        context.facts.setdefault("wrong", []).append(f"the worker ended where {why}")


async def _under_load(
    context: Context, site: Site, strike: Callable[[], Awaitable[None]], *, seconds: float, **others: Any
) -> list[str]:
    """One worker under load while something befalls it, each time for about so many seconds; then the judgement."""
    script = context.script(wild=True, **others)
    try:
        await site.create()
        await site.start().ready()
        await load(site, script, context.events / (seconds * context.times), strike)
        await revive(site)
        await site.drain()
        status = await site.living[-1].stop()
        wrong = [] if status == 0 else [f"SIGTERM ended with {status}"]
        return wrong + context.facts.pop("wrong", []) + (await site.judge(script))[0]
    finally:
        site.end()


ALL: Final[dict[str, Scenario]] = {
    **SCENARIOS,
    "network": network,
    "output": output,
    "clock": clock,
    "encoder": encoder,
    "silence": silence,
    "disk": disk,
    "rebuild": rebuild,
    "grow": grow,
    "upgrade": upgrade,
    "flood": flood,
}
