"""Reads the compacted topic `model` whole and follows it: every worker needs it, so no consumer group is involved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Final

from streams.errors import BrokerUnavailableError
from streams.kafka.follower import Follower
from streams.settings import Settings
from streams.values import Record, Topic

log = logging.getLogger(__name__)

READ_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0


class ModelReader:
    """Calls `adopt` with each record of `model`, from the first on, in offset order, for as long as it runs.

    `start` returns once what was there at that moment has been adopted. A broker that is away later is waited for, and
    a record that can't be adopted is passed over: the worker goes on with the weights it has.
    """

    def __init__(self, settings: Settings, adopt: Callable[[Record], None]) -> None:
        self._follower = Follower(settings, (Topic.MODEL,), from_start=True)
        self._adopt = adopt
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is there. Raises as `Follower` does."""
        await self._stack.enter_async_context(self._follower)
        async for records in self._follower.read_whole():
            self._adopt_all(records)
        self._task = asyncio.create_task(self._follow(), name="model-reader")

    async def stop(self) -> None:
        """Stop following. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._stack.aclose()

    async def _follow(self) -> None:
        while True:
            try:
                self._adopt_all(await self._follower.read(READ_SECONDS))
            except BrokerUnavailableError as error:
                log.warning("%s; going on with the weights at hand", error)
                await asyncio.sleep(RETRY_SECONDS)

    def _adopt_all(self, records: Iterable[Record]) -> None:
        for record in records:
            try:
                self._adopt(record)
            except Exception:
                log.exception("offset %d of the model can't be adopted: going on without it", record.offset)
