"""What operators do: read everything again, rebuild, grow, upgrade; the state stays."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from random import Random
from zlib import crc32

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from streams.kafka.connection import full_name
from streams.values import Topic
from tests.chaos.scenario import Context, SharedIndex, conclude, load, revive, settle, standing, under_load, within
from tests.chaos.site import Life, differences, essence, say


async def again(context: Context) -> list[str]:
    """A new group reads everything from offset 0: the state stays as it is."""
    script = context.script(wild=True)
    site = context.site("again")
    async with standing(site) as (first,):
        await site.publish(script, 1000.0)
        await settle(context, site, script)
        await first.stop()
        wrong, before = await site.judge(script)
        site.settings = msgspec.structs.replace(site.settings, group="another")
        second = site.start(group="another")
        await second.ready()
        await site.drain()
        await second.stop()
        wrong_too, after = await site.judge(script)
        return wrong + wrong_too + differences(essence(after), essence(before))


async def rebuild(context: Context) -> list[str]:
    """kill -9 while an embedded index is rebuilt after erasures."""
    site = context.site("rebuild", erase_within_seconds="1")
    random = Random(context.seed)
    met = 0

    async def strike() -> None:
        nonlocal met
        for _ in range(context.times):
            met += await within(15.0, lambda: any(site.folder.glob("index/*/copy")))
            await asyncio.sleep(random.uniform(0.0, 0.8))
            site.living[-1].kill()
            say("killed in the middle of a rebuild")
            await site.start().ready()

    wrong = await under_load(context, site, strike, seconds=6.0, erasures=0.05)
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
        async with standing(site, "w0", "w1"):
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
            return wrong + await conclude(context, site, moved)


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

        async with standing(site, "w0", "w1") as begun:
            lives |= {life.instance: life for life in begun}
            await load(site, script[:half], half / (15.0 * context.times), strike)
            await settle(context, site, script)
            wrong = (await site.judge(script))[0]
            lists = [json.loads(record.value) for record in await site.read(Topic.RECOMMENDATIONS) if record.value]
            made = {one["encoder"] for one in lists}
            if made != {"hashing-64", "hashing-48"}:
                wrong.append(f"lists were made by {made}")
            for life in site.living:
                await life.stop()
            return wrong
