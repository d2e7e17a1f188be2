"""What befalls the world around a worker: brokers, network, output, index, disk, encoder, clock."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from random import Random

import grpc

from encoder.bundle import SHIPPED
from streams.kafka.connection import full_name
from streams.values import Topic
from tests.chaos.proxy import Proxy
from tests.chaos.scenario import (
    Context,
    SharedIndex,
    conclude,
    expect_not_ready,
    load,
    revive,
    settle,
    standing,
    under_load,
    within,
)
from tests.chaos.site import say
from tests.support.worker_process import PROGRAM, ROOT


async def brokers(context: Context) -> list[str]:
    """Brokers are killed and come back, leader and coordinator among them; a single one is away for longer than a stall, once."""
    script = context.script(wild=True)
    site = context.site("brokers", stall_seconds=f"{context.stall_seconds:g}")
    random = Random(context.seed)
    async with standing(site):

        async def strike() -> None:
            for number in range(context.times):
                await asyncio.sleep(random.uniform(1.0, 3.0))
                broker = str(random.randint(1, context.brokers))
                await asyncio.to_thread(context.cluster.run, "stop", "--broker", broker, "--kill")
                say(f"broker {broker} killed ({number + 1} of {context.times})")
                away_seconds = random.uniform(0.5, 6.0)
                if context.brokers == 1 and context.times > 1 and number == 0:
                    away_seconds = context.stall_seconds + 10.0
                await asyncio.sleep(away_seconds)
                if away_seconds > context.stall_seconds and not site.living:
                    context.facts.setdefault("wrong", []).append("the worker took a broker that is away for a stall")
                await asyncio.to_thread(context.cluster.run, "resume", "--broker", broker)
                await asyncio.sleep(4.0)

        await load(site, script, context.events / (10.0 * context.times), strike)
        await revive(site)
        await settle(context, site, script)
        await site.living[-1].stop()
        context.facts["workers"] = len(site.lives)
        return context.facts.pop("wrong", []) + (await site.judge(script))[0]


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

        wrong = await under_load(context, site, strike, seconds=12.0)
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
            await expect_not_ready(site, context, "the output topic refused")
            await asyncio.to_thread(take, 2**63 - 1)
            await asyncio.sleep(4.0)

    return await under_load(context, site, strike, seconds=16.0)


async def index_away(context: Context) -> list[str]:
    """The index is slow, fails each tenth call, refuses for a full disk, is away for a while, once for 60 s: held, not lost."""
    async with SharedIndex() as (front, address):
        script = context.script(wild=True)
        site = context.site("index", index=address)
        wrong: list[str] = []
        async with standing(site) as (life,):

            async def strike() -> None:
                for number in range(context.times):
                    front.delay_seconds = 0.5
                    await asyncio.sleep(3.0)
                    front.delay_seconds = 0.0
                    front.failing_each = 10
                    await asyncio.sleep(3.0)
                    front.failing_each = 0
                    for failure in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                        await asyncio.sleep(1.0)
                        front.failure = failure
                        say(f"the index answers {failure.name}")
                        long = context.times > 1 and number == 0 and failure is grpc.StatusCode.UNAVAILABLE
                        await asyncio.sleep(60.0 if long else 8.0)
                        if life.process.poll() is not None:
                            wrong.append("the worker ended while the index was away")
                        if await asyncio.to_thread(life.is_ready):
                            wrong.append("/readyz did not say that the index is away")
                        front.failure = None
                        await asyncio.sleep(4.0)

            await load(site, script, context.events / (25.0 * context.times), strike)
            return wrong + await conclude(context, site, script)


async def disk(context: Context) -> list[str]:
    """No room on the disk of an embedded index: held before a mapped page finds none."""
    site = context.site("disk")

    async def strike() -> None:
        for _ in range(context.times):
            (site.folder / "disk").touch()
            say("the disk is full")
            await asyncio.sleep(4.0)
            await expect_not_ready(site, context, "the disk was full")
            (site.folder / "disk").unlink()
            await asyncio.sleep(2.0)

    return await under_load(context, site, strike, seconds=6.0)


async def encoder(context: Context) -> list[str]:
    """The encoder fails on everything, the process dies in it; a bundle that was changed does not start."""
    site = context.site("encoder")

    async def strike() -> None:
        for _ in range(context.times):
            (site.folder / "encoder").touch()
            await asyncio.sleep(4.0)
            await expect_not_ready(site, context, "the encoder failed")
            (site.folder / "encoder").unlink()
            await asyncio.sleep(1.0)
            (site.folder / "crash").touch()
            if not await within(15.0, lambda: not site.living):
                context.facts.setdefault("wrong", []).append("nothing was encoded for 15 s")
                (site.folder / "crash").unlink(missing_ok=True)
            else:
                say("the worker died in the encoder")
                await site.start().ready()

    wrong = await under_load(context, site, strike, seconds=10.0)
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

    return await under_load(context, site, strike, seconds=3.0)
