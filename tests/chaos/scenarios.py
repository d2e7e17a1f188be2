"""What is done to a running installation. Each scenario returns what is wrong, and facts worth telling."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc

from tests.chaos.site import Life, Site, differences, essence, say
from tests.simulation.story import Author, Plot, Sent
from tests.support.kafka import ApacheKafka
from tests.support.qdrant_server import Front, start, url


@dataclass(slots=True)
class Context:
    """Where a scenario runs, and how much of it."""

    kafka: str
    cluster: ApacheKafka
    brokers: int
    folder: Path
    seed: int
    events: int
    times: int
    """How often the world is struck."""
    per_second: float = 250.0
    facts: dict[str, Any] = field(default_factory=dict)

    def site(self, name: str, **others: str) -> Site:
        return Site(self.kafka, self.folder / name, f"{name}-{self.seed}-", **others)

    def script(self, *, wild: bool, **others: float) -> list[Sent]:
        """A log: orderly (so that every count is exact), or with all that can be wrong with one."""
        plot = Plot(
            partitions=4, users=150, items=80, records=self.events,
            misrouted=0.02 if wild else 0.0, erasures=0.01 if wild else 0.0, duplicates=0.03,
            bad=0.02, quiet=0.02 if wild else 0.0, old=0.1, hot=0.03,
        )  # fmt: skip
        plot = replace(plot, **others)  # type: ignore[arg-type]
        return Author(Random(self.seed), plot).write()


Scenario = Callable[[Context], Awaitable[list[str]]]


async def load(site: Site, script: list[Sent], per_second: float, strike: Callable[[], Awaitable[None]]) -> None:
    """Publish, and strike meanwhile; both end."""
    publishing = asyncio.create_task(site.publish(script, per_second))
    striking = asyncio.create_task(strike())
    try:
        await publishing
        await striking
    finally:
        for task in (publishing, striking):
            task.cancel()


async def kill(context: Context) -> list[str]:
    """kill -9 of the one worker, again and again during a replay; the state equals that of an undisturbed run."""
    script = context.script(wild=False)
    random = Random(context.seed)
    calm, storm = context.site("calm"), context.site("storm")
    seconds: list[float] = []
    try:
        await storm.create()
        life = storm.start()
        await life.ready()

        async def strike() -> None:
            nonlocal life
            for number in range(context.times):
                await asyncio.sleep(random.uniform(0.2, 2.0))
                life.kill()
                life = storm.start()
                seconds.append(round(await life.ready(), 1))
                say(f"kill {number + 1} of {context.times}, ready again after {seconds[-1]} s")

        await load(storm, script, context.events / (4.0 * context.times), strike)
        await storm.drain()
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
        context.facts["ready_seconds"] = sorted(seconds)
        return wrong
    finally:
        calm.end()
        storm.end()


async def terminate(context: Context) -> list[str]:
    """SIGTERM in mid-batch: each ends with status 0 within seconds, and nothing is lost."""
    script = context.script(wild=True)
    site = context.site("term")
    wrong: list[str] = []
    try:
        await site.create()
        life = site.start()
        await life.ready()

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
        await site.drain()
        await life.stop()
        return wrong + (await site.judge(script))[0]
    finally:
        site.end()


async def sleep(context: Context) -> list[str]:
    """SIGSTOP for longer than the session timeout, two workers on one index: what the zombie writes must lose."""
    async with SharedIndex() as (_, address):
        script = context.script(wild=True)
        site = context.site("sleep", index=address)
        try:
            await site.create()
            lives = [site.start(f"w{number}") for number in range(2)]
            for life in lives:
                await life.ready()
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
            await site.drain()
            wrong = (await site.judge(script))[0]
            for life in site.living:
                await life.stop()
            return wrong
        finally:
            site.end()


async def rebalance(context: Context) -> list[str]:
    """1 → 3 → 1 workers on one index, with and without static membership, some of them killed."""
    wrong: list[str] = []
    for static in (True, False):
        async with SharedIndex() as (_, address):
            script = context.script(wild=True)
            site = context.site(f"rebalance{int(static)}", index=address)
            names = ["w0", "w1", "w2"] if static else ["", "", ""]
            try:
                await site.create()
                lives = [site.start(names[0])]
                await lives[0].ready()

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
                await site.drain()
                wrong += [f"{'static' if static else 'dynamic'}: {one}" for one in (await site.judge(script))[0]]
            finally:
                site.end()
    return wrong


async def brokers(context: Context) -> list[str]:
    """Brokers are killed and come back: the leader and the coordinator among them."""
    script = context.script(wild=True)
    site = context.site("brokers")
    random = Random(context.seed)
    try:
        await site.create()
        life = site.start()
        await life.ready()

        async def strike() -> None:
            for number in range(context.times):
                await asyncio.sleep(random.uniform(1.0, 3.0))
                broker = str(random.randint(1, context.brokers))
                await asyncio.to_thread(context.cluster.run, "stop", "--broker", broker, "--kill")
                say(f"broker {broker} killed ({number + 1} of {context.times})")
                await asyncio.sleep(random.uniform(0.5, 6.0))
                await asyncio.to_thread(context.cluster.run, "resume", "--broker", broker)
                await asyncio.sleep(4.0)

        await load(site, script, context.events / (10.0 * context.times), strike)
        await revive(site)
        await site.drain()
        await site.living[-1].stop()
        return (await site.judge(script))[0]
    finally:
        site.end()


async def index_away(context: Context) -> list[str]:
    """The index is slow, fails each tenth call, refuses for a full disk, is away for a while, once for 60 s: held, not lost."""
    async with SharedIndex() as (front, address):
        script = context.script(wild=True)
        site = context.site("index", index=address)
        wrong: list[str] = []
        try:
            await site.create()
            life = site.start()
            await life.ready()

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
            await site.drain()
            wrong += (await site.judge(script))[0]
            await life.stop()
            return wrong
        finally:
            site.end()


async def again(context: Context) -> list[str]:
    """A new group reads everything from offset 0: the state stays as it is."""
    script = context.script(wild=True)
    site = context.site("again")
    try:
        await site.create()
        life = site.start()
        await life.ready()
        await site.publish(script, 1000.0)
        await site.drain()
        await life.stop()
        wrong, before = await site.judge(script)
        site.settings = _with_group(site, "another")
        life = site.start(group="another")
        await life.ready()
        await site.drain()
        await life.stop()
        wrong_too, after = await site.judge(script)
        return wrong + wrong_too + differences(essence(after), essence(before))
    finally:
        site.end()


async def twins(context: Context) -> list[str]:
    """Two workers with one instance id: one of them ends, and says why."""
    async with SharedIndex() as (_, address):
        site = context.site("twins", index=address)
        try:
            await site.create()
            lives = [site.start("w0")]
            await lives[0].ready()
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
        finally:
            site.end()


async def revive(site: Site) -> None:
    """An operator's restart of workers that ended by themselves (that is allowed while a neighbour is gone)."""
    for instance in {life.instance for life in site.lives}:
        if not any(life.instance == instance for life in site.living):
            say(f"{instance} had ended: {site.lives[-1].log.read_text()[-300:]}")
            await site.start(instance).ready()


def _with_group(site: Site, group: str) -> Any:
    import msgspec

    return msgspec.structs.replace(site.settings, group=group)


class SharedIndex:
    """An index that several workers share: the front over the exact index."""

    async def __aenter__(self) -> tuple[Front, str]:
        self._front = Front()
        self._server, port = await start(self._front)
        return self._front, url(port)

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)


SCENARIOS: Final[dict[str, Scenario]] = {
    "kill": kill,
    "terminate": terminate,
    "sleep": sleep,
    "rebalance": rebalance,
    "brokers": brokers,
    "index": index_away,
    "again": again,
    "twins": twins,
}
