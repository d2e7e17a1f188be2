"""The thread that reads from Kafka, ahead of the worker.

Faust asks its consumer's thread for each handful of records from the worker's loop, and the next fetch leaves only after the
answer was taken: while that loop computes, records wait at the broker for two of its batches (measured:
docs/performance.md). Here the thread reads on by itself, a little way.
"""

# ruff: noqa: SLF001  (what Faust and aiokafka fix inside is changed here)

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, cast

import aiokafka
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.transport.consumer import RecordMap
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from mode import Service

from streams.kafka.connection import PACE

FETCH_WAIT_MILLISECONDS: Final = 50
"""How long a broker may hold a fetch that finds nothing. A partition whose data was just consumed joins the next fetch
only, so this bounds its latency; Faust fixes 1500."""
POLL_RECORDS: Final = 128
"""Records taken from the fetcher in one go: bounds what arrives for a topic after its partitions were paused."""
READ_SECONDS: Final = 0.05
"""How long a look for records lasts at most: a seek waits for it."""
AHEAD_SECONDS: Final = 0.006
"""Between two fetches while the worker has not taken what the first one found: each costs half a millisecond of CPU, which
the worker lacks meanwhile. Measured: docs/performance.md."""
AHEAD_RECORDS: Final = 256
"""No look while so many are waiting to be taken."""
PAUSED_POLL_SECONDS: Final = 0.005
"""How soon a paused partition is looked at again; Faust would wait a whole second."""


class Reader(AIOKafkaConsumerThread):
    """The thread of the consumer: it reads ahead, counts the turns of its loop, and goes back for all."""

    mundane_level = "debug"
    turns: int = 0
    """Grows once a second."""
    looks: int = 0
    """Grows with each look for records; stands still while partitions move."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wanted: frozenset[TP] = frozenset()
        """Partitions to read; set by the worker's thread."""
        self.came = asyncio.Event()
        """Set in the worker's loop after each look."""
        self._ahead: deque[RecordMap] = deque()
        self._failure: Exception | None = None
        """What ended the reading."""
        self._fetched_at = 0.0
        self._reading = asyncio.Lock()
        """Held while records are read or the place to read from moves."""

    @Service.task
    async def _turn(self) -> None:
        while not self.should_stop:
            self.turns += 1
            await self.sleep(1.0)

    @Service.task
    async def _read_ahead(self) -> None:
        while not self.should_stop and self._failure is None:
            if not self._may_read():
                await asyncio.sleep(PAUSED_POLL_SECONDS)
                continue
            async with self._reading:
                try:
                    await self._look()
                except (KafkaError, ConsumerStoppedError) as error:
                    self._failure = error
            self.looks += 1
            self.parent_loop.call_soon_threadsafe(self.came.set)

    async def _look(self) -> None:
        consumer = self._ensure_consumer()
        setattr(consumer._fetcher, PACE, self._pace)
        found = await self._fetch_records(consumer, set(self.wanted), timeout=READ_SECONDS, max_records=POLL_RECORDS)
        if found:
            self._ahead.append(found)

    async def _pace(self) -> None:
        """Before a fetch: wait a little where the worker is busy."""
        now = self.thread_loop.time()
        if self._ahead and now < self._fetched_at + AHEAD_SECONDS:
            await asyncio.sleep(self._fetched_at + AHEAD_SECONDS - now)
        self._fetched_at = self.thread_loop.time()

    def _may_read(self) -> bool:
        if self._consumer is None or not self.wanted or not self.consumer.flow_active:
            return False
        return sum(len(some) for found in list(self._ahead) for some in found.values()) < AHEAD_RECORDS

    def take(self) -> RecordMap | None:
        """What was found first and not taken yet; None where nothing was. Raises what ended the reading."""
        try:
            return self._ahead.popleft()
        except IndexError:
            if self._failure is not None:
                raise self._failure from None
            return None

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to what is committed; where nothing is yet, to what was not passed on since the partition came.

        There aiokafka would go on from where it has read to, so that what was fetched while partitions moved, and was
        dropped by Faust, would never come again (tried: counts of the first seconds were lost, `rebalance`).
        """
        return cast("Mapping[TP, int]", await self.call_thread(self._seek_to_committed))

    async def _seek_to_committed(self) -> Mapping[TP, int | None]:
        async with self._reading:
            consumer = self._ensure_consumer()
            committed: Mapping[TP, int | None] = await consumer.seek_to_committed()
            for tp, offset in committed.items():
                if not offset:
                    passed_on = self.consumer._read_offset.get(tp)  # where that is gone, the first there is
                    consumer.seek(tp, 0 if passed_on is None else passed_on + 1)
            self.forget()
            return committed

    def forget(self) -> None:
        """Drop what was read and not taken: it is read again after the seek that follows."""
        self._ahead.clear()

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MILLISECONDS
        return consumer
