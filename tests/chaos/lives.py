"""What befalls workers: they are killed, stopped, suspended, doubled, or die without a word."""

from __future__ import annotations

import asyncio
import signal
import time
from random import Random
from typing import Final

from tests.chaos.scenario import Context, SharedIndex, conclude, load, revive, settle, standing, under_load, within
from tests.chaos.site import Life, Site, differences, essence, say

LEFT_OVER_SECONDS: Final = 0.3
"""A list that arrives so soon after a kill was sent before it: no worker begins in that time."""


async def kill(context: Context) -> list[str]:
    """kill -9 of the one worker, again and again during a replay; the state equals that of an undisturbed run."""
    script = context.script(wild=False)
    body, tail, end = script[:-40], script[-40:-20], script[-20:]
    random = Random(context.seed)
    calm, storm = context.site("calm"), context.site("storm")
    seconds: dict[str, list[float]] = {"ready": [], "under load": [], "at rest": [], "without a static place": []}
    try:
        await storm.create()
        life = storm.start()
        await life.ready()
        async with storm.listening() as heard:

            async def replace(when: str, instance: str = "w0") -> None:
                nonlocal life
                life.kill()
                killed_at = time.monotonic()
                life = storm.start(instance)
                begun = life.begun_at
                await life.ready()
                seconds["ready"].append(round(time.monotonic() - begun, 1))

                def lists() -> list[float]:
                    return [at for at in heard if at > killed_at + LEFT_OVER_SECONDS]

                if await within(60.0, lambda: bool(lists())):
                    seconds[when].append(round(lists()[0] - begun, 1))
                say(f"killed {when}: the first list {seconds[when][-1:]} s after the successor's start")

            async def strike() -> None:
                for _ in range(context.times):
                    await asyncio.sleep(random.uniform(0.2, 2.0))
                    await replace("under load")

            await load(storm, body, context.events / (4.0 * context.times), strike)
            await storm.drain()
            for when, instance, rest in (("at rest", "w0", tail), ("without a static place", "", end)):
                publishing = asyncio.create_task(storm.publish(rest, 1e6))  # begins when the worker is dead
                await replace(when, instance)
                await publishing
        await settle(context, storm, script)
        say("drained")
        status = await life.stop()
        wrong, points = await storm.judge(script)
        if status:
            wrong.append(f"SIGTERM ended with {status}")
        await calm.create()
        quiet = calm.start()
        await quiet.ready()
        await calm.publish(script, 2000.0)
        await calm.drain()
        await quiet.stop()
        wrong_too, expected = await calm.judge(script)
        wrong += [f"undisturbed: {one}" for one in wrong_too]
        wrong += differences(essence(points), essence(expected))
        context.facts["seconds_from_start"] = {what: sorted(some) for what, some in seconds.items()}
        return wrong
    finally:
        calm.end()
        storm.end()


async def terminate(context: Context) -> list[str]:
    """SIGTERM in mid-batch: each ends with status 0 within seconds, and nothing is lost."""
    script = context.script(wild=True)
    site = context.site("term")
    wrong: list[str] = []
    async with standing(site) as (life,):

        async def strike() -> None:
            nonlocal life
            for _ in range(context.times):
                await asyncio.sleep(1.0)
                begun = time.monotonic()
                status = await life.stop()
                say(f"SIGTERM: status {status} after {time.monotonic() - begun:.1f} s")
                if status:
                    wrong.append(f"SIGTERM ended with {status}: {life.log.read_text()[-500:]}")
                life = site.start()
                await life.ready()

        await load(site, script, context.events / (5.0 * context.times), strike)
        await settle(context, site, script)
        await life.stop()
        return wrong + (await site.judge(script))[0]


async def sleep(context: Context) -> list[str]:
    """SIGSTOP for longer than the session timeout, two workers on one index: what the zombie writes must lose."""
    async with SharedIndex() as (_, address):
        script = context.script(wild=True)
        site = context.site("sleep", index=address)
        async with standing(site, "w0", "w1") as lives:
            random = Random(context.seed)

            async def strike() -> None:
                for _ in range(context.times):
                    await asyncio.sleep(random.uniform(0.5, 2.0))
                    life = random.choice(lives)
                    say(f"SIGSTOP {life.instance}")
                    life.signal(signal.SIGSTOP)
                    await asyncio.sleep(9.0)
                    life.signal(signal.SIGCONT)
                    say(f"SIGCONT {life.instance}")
                    await asyncio.sleep(3.0)

            await load(site, script, context.events / (12.0 * context.times), strike)
            await revive(site)
            return await conclude(context, site, script)


async def rebalance(context: Context) -> list[str]:
    """1 → 3 → 1 workers on one index, with and without static membership, some of them killed."""
    wrong: list[str] = []
    for static in (True, False):
        async with SharedIndex() as (_, address):
            script = context.script(wild=True)
            site = context.site(f"rebalance{int(static)}", index=address)
            names = ["w0", "w1", "w2"] if static else ["", "", ""]
            async with standing(site, names[0]) as lives:

                async def strike(site: Site = site, lives: list[Life] = lives, names: list[str] = names) -> None:
                    for _ in range(context.times):
                        lives += [site.start(name) for name in names[1:]]
                        for life in lives:
                            await life.ready()
                        say("three workers")
                        await asyncio.sleep(2.0)
                        await lives.pop().stop()
                        lives.pop().kill()
                        say("one worker")
                        await asyncio.sleep(4.0)

                await load(site, script, context.events / (15.0 * context.times), strike)
                await settle(context, site, script)
                wrong += [f"{'static' if static else 'dynamic'}: {one}" for one in (await site.judge(script))[0]]
    return wrong


async def twins(context: Context) -> list[str]:
    """Two workers with one instance id: one of them ends, and says why."""
    async with SharedIndex() as (_, address):
        site = context.site("twins", index=address)
        async with standing(site) as lives:
            lives.append(site.start("w0"))
            deadline = time.monotonic() + 60.0
            while all(one.process.poll() is None for one in lives) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            ended = [life for life in lives if life.process.poll() is not None]
            if not ended:
                return ["both went on for 60 s"]
            said = "".join(life.log.read_text() for life in ended)
            wrong = [] if "COLDSTREAM_INSTANCE_ID" in said else [f"it did not say why: {said[-500:]}"]
            if any(life.process.returncode == 0 for life in ended):
                wrong.append("it ended with status 0")
            context.facts["twins_ended"] = len(ended)
            return wrong


async def silence(context: Context) -> list[str]:
    """A worker dies without a word, in each way there is: it has ended within a minute, and its successor goes on."""
    site = context.site("silence", stall_seconds=f"{context.stall_seconds:g}")
    random = Random(context.seed)
    ends: dict[str, float] = {}

    async def strike() -> None:
        for death in ("stuck", "loop", "coordinator", "fetcher", "thread", "model")[: max(context.times, 1)]:
            await asyncio.sleep(random.uniform(0.5, 2.0))
            life = site.living[-1]
            blow = site.folder / death
            blow.touch()
            if not await within(30.0, lambda blow=blow: not blow.exists()):  # type: ignore[misc]
                context.facts.setdefault("wrong", []).append(f"{death}: it was not struck")
            begun = time.monotonic()
            if not await within(90.0, lambda life=life: life.process.poll() is not None):  # type: ignore[misc]
                context.facts.setdefault("wrong", []).append(f"{death}: it went on for 90 s")
                life.kill()
            ends[death] = round(time.monotonic() - begun, 1)
            say(f"{death}: ended by itself with {life.process.returncode} after {ends[death]} s")
            if life.process.returncode == 0:
                context.facts.setdefault("wrong", []).append(f"{death}: status 0")
            await site.start().ready()

    wrong = await under_load(context, site, strike, seconds=context.stall_seconds)
    context.facts["ended_seconds"] = ends
    return wrong + [f"{death}: {seconds} s" for death, seconds in ends.items() if seconds > context.stall_seconds]
