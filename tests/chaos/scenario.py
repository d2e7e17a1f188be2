"""Where a scenario runs, how much of it, and what scenarios share: load, restarts, the judgement after a blow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.chaos.site import Life, Site, say
from tests.simulation.story import Author, Plot, Sent
from tests.support.kafka import ApacheKafka
from tests.support.qdrant_server import Front, start, url

PEACE_SECONDS: Final = 5.0
"""By then each worker has learned what others changed: twice COLDSTREAM_RELOAD_SECONDS and more."""


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
    stall_seconds: float = 60.0
    """Within which a worker that died without a word has ended."""
    facts: dict[str, Any] = field(default_factory=dict)
    author: Author | None = None
    """Who wrote the log."""

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
        self.author = Author(Random(self.seed), plot)
        return self.author.write()


Scenario = Callable[[Context], Awaitable[list[str]]]
"""What is done to a running installation; returns what is wrong, and leaves what is worth telling in `facts`."""


class SharedIndex:
    """An index that several workers share: the front over the exact index."""

    async def __aenter__(self) -> tuple[Front, str]:
        self._front = Front()
        self._server, port = await start(self._front)
        return self._front, url(port)

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)


@asynccontextmanager
async def standing(site: Site, *instances: str) -> AsyncIterator[list[Life]]:
    """An installation with its topics, whose workers are ready; no process is left of it, whatever comes."""
    try:
        await site.create()
        lives = [site.start(instance) for instance in instances or ("w0",)]
        for life in lives:
            await life.ready()
        yield lives
    finally:
        site.end()


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


async def settle(context: Context, site: Site, script: list[Sent]) -> None:
    """Everything is done; then each user asks once more, so that the last lists are made in peace, with all known."""
    await site.drain()
    await asyncio.sleep(PEACE_SECONDS)
    site.calm_at = time.time()
    assert context.author is not None
    probes = context.author.probe()
    if script is not context.author.sent:
        script += probes
    await site.publish(probes, 1000.0)
    await site.drain()


async def under_load(
    context: Context, site: Site, strike: Callable[[], Awaitable[None]], *, seconds: float, **others: Any
) -> list[str]:
    """One worker under load while something befalls it, each time for about so many seconds; then the judgement."""
    script = context.script(wild=True, **others)
    async with standing(site):
        await load(site, script, context.events / (seconds * context.times), strike)
        await revive(site)
        await settle(context, site, script)
        status = await site.living[-1].stop()
        wrong = [] if status == 0 else [f"SIGTERM ended with {status}"]
        return wrong + context.facts.pop("wrong", []) + (await site.judge(script))[0]


async def conclude(context: Context, site: Site, script: list[Sent]) -> list[str]:
    """The judgement on an index that workers share, once everything is done; then they are stopped."""
    await settle(context, site, script)
    wrong = (await site.judge(script))[0]
    for life in site.living:
        await life.stop()
    return wrong


async def revive(site: Site) -> None:
    """An operator's restart of workers that ended by themselves (that is allowed while a neighbour is gone)."""
    for instance in {life.instance for life in site.lives}:
        if not any(life.instance == instance for life in site.living):
            last = [life for life in site.lives if life.instance == instance][-1]
            say(f"{instance} had ended: {last.log.read_text()[-300:]}")
            await site.start(instance).ready()


async def within(seconds: float, happens: Callable[[], bool]) -> bool:
    """Whether it happens in that time."""
    deadline = time.monotonic() + seconds
    while not happens() and time.monotonic() < deadline:  # noqa: ASYNC110  (files and processes have no event)
        await asyncio.sleep(0.01)
    return happens()


async def expect_not_ready(site: Site, context: Context, why: str) -> None:
    if any([await asyncio.to_thread(life.is_ready) for life in site.living]):
        context.facts.setdefault("wrong", []).append(f"/readyz did not say that {why}")
    if not site.living:
        context.facts.setdefault("wrong", []).append(f"the worker ended where {why}")
