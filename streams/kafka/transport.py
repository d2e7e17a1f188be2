"""Faust's consumer and queues, made fast and fair: short waits, and no topic that holds up another."""

# ruff: noqa: SLF001  (what Faust and aiokafka fix inside is changed here)

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast

import aiokafka
import uvloop
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.transport.consumer import RecordMap
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, EventT, Message
from mode import Service, ServiceT
from mode.utils.queues import ThrowableQueue

from streams.kafka.connection import PACE

FETCH_WAIT_MILLISECONDS: Final = 50
"""How long a broker may hold a fetch that finds nothing. A partition whose data was just consumed joins the next fetch
only, so this bounds its latency; Faust fixes 1500."""
POLL_RECORDS: Final = 128
"""Records taken from the fetcher in one go: bounds what arrives for a topic after its partitions were paused."""
QUEUE_RECORDS: Final = 256
"""Records waiting between the fetcher and an agent before the partitions are paused."""
QUEUE_BYTES: Final = 4_194_304
"""… and their bytes."""
PAUSED_POLL_SECONDS: Final = 0.005
"""How soon a paused partition is looked at again; Faust would wait a whole second."""
READ_SECONDS: Final = 0.05
"""How long a look for records lasts at most: a seek waits for it."""
AHEAD_SECONDS: Final = 0.006
"""Between two fetches while the worker has not taken what the first one found: each costs half a millisecond of CPU, which
the worker lacks meanwhile. Measured: docs/performance.md."""
AHEAD_RECORDS: Final = 256
"""No look while so many are waiting to be taken."""


class Queue(ThrowableQueue[EventT[Any]]):
    """Faust's queue before an agent: bounded by bytes too, and answering pressure by pausing partitions only.

    Blocking on a full queue would stop the one task that feeds all topics, so that a flood of items held up events.
    What can still come after the pause is what one poll brings.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bytes = 0

    def full(self) -> bool:
        """Never: see above."""
        return False

    def qsize(self) -> int:
        """How full it is in records, or as many as its bytes are worth. (Whether it is empty is asked otherwise.)"""
        return max(super().qsize(), self._bytes * self.maxsize // QUEUE_BYTES)

    def clear(self) -> None:
        """Drop what waits."""
        super().clear()
        self._bytes = 0

    def _put(self, item: EventT[Any]) -> None:
        self._bytes += _size(item)
        super()._put(item)

    def _get(self) -> EventT[Any]:
        item: EventT[Any] = super()._get()
        self._bytes -= _size(item)
        return item


def _size(event: EventT[Any]) -> int:
    return len(event.message.key or b"") + len(event.message.value or b"")


class Thread(AIOKafkaConsumerThread):
    """The thread of the consumer: it reads ahead of the worker, counts the turns of its loop, and goes back for all.

    Faust would ask it for each handful of records from the worker's loop, and the next fetch would leave only after the
    answer was taken. While that loop computes, records would wait at the broker for two of its batches.
    """

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
        self._ahead: deque[RecordMap | BaseException] = deque()
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
        while not self.should_stop:
            if not self._may_read():
                await asyncio.sleep(PAUSED_POLL_SECONDS)
                continue
            found: RecordMap | BaseException
            async with self._reading:
                try:
                    consumer = self._ensure_consumer()
                    setattr(consumer._fetcher, PACE, self._pace)
                    found = await self._fetch_records(
                        consumer, set(self.wanted), timeout=READ_SECONDS, max_records=POLL_RECORDS
                    )
                except (KafkaError, ConsumerStoppedError) as error:  # met by whoever asks for records
                    found = error
                if found:
                    self._ahead.append(found)
            self.looks += 1
            self.parent_loop.call_soon_threadsafe(self.came.set)
            if isinstance(found, BaseException):
                return

    async def _pace(self) -> None:
        """Before a fetch: wait a little where the worker is busy."""
        now = self.thread_loop.time()
        if self._ahead and now < self._fetched_at + AHEAD_SECONDS:
            await asyncio.sleep(self._fetched_at + AHEAD_SECONDS - now)
        self._fetched_at = self.thread_loop.time()

    def _may_read(self) -> bool:
        if self._consumer is None or not self.wanted or not self.consumer.flow_active:
            return False
        ahead = [found for found in list(self._ahead) if isinstance(found, dict)]
        return sum(len(some) for found in ahead for some in found.values()) < AHEAD_RECORDS

    def take(self) -> RecordMap | None:
        """What was found first and not taken yet; None where nothing was. Raises what ended the reading."""
        try:
            found = self._ahead.popleft()
        except IndexError:
            return None
        if isinstance(found, BaseException):
            self._ahead.append(found)
            raise found
        return found

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
        for found in list(self._ahead):
            if not isinstance(found, BaseException):
                with suppress(ValueError):  # taken by now
                    self._ahead.remove(found)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MILLISECONDS
        return consumer


class MemberConsumer(Consumer):
    """The consumer, which takes what its thread has read ahead, counts its polls and looks at paused partitions soon."""

    mundane_level = "debug"
    polls: int = 0
    """How often records were asked for and the thread had looked for some."""

    @property
    def turns(self) -> int:
        """Grows once a second while the consumer's thread lives."""
        return self._reader.turns

    @property
    def _reader(self) -> Thread:
        return cast("Thread", self._thread)

    def stop_flow(self) -> None:
        """Pass on nothing more, until Faust has gone back to what is committed."""
        super().stop_flow()
        self._reader.forget()

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Faust's loop from the fetcher to the agents, without its two tasks a record: our queue never blocks.

        A record is passed on only while the flow is active, so that none read before a rebalance stands before those
        that are read again after it.
        """
        while not (self.should_stop or fetcher.should_stop):
            try:
                async for tp, message in self.getmany(timeout=1.0):
                    if not self.flow_active:
                        break
                    await self._pass_on(tp, message)
            except (ConsumerStoppedError, asyncio.CancelledError):
                if self.app.should_stop:  # else Faust takes a stop during a rebalance for a crash
                    return
                raise

    async def _pass_on(self, tp: TP, message: Message) -> None:
        read = self._read_offset[tp]
        if read is not None and message.offset < read:
            return
        if read and message.offset - read > 1 and self.app.topics.acks_enabled_for(message.topic):
            await self._add_gap(tp, read + 1, message.offset)  # compacted away: committed with what surrounds it
            if not self.flow_active:
                return
        await self.callback(message)
        self._read_offset[tp] = message.offset

    def _new_consumer_thread(self) -> Thread:
        thread = Thread(self, loop=self.loop, beacon=self.beacon, thread_loop=uvloop.new_event_loop())
        thread._close_thread_loop_on_stop = True  # it is the thread's own, as the one that mode would make
        return thread

    async def _wait_next_records(  # the name of the argument is Faust's
        self,
        timeout: float,  # noqa: ASYNC109
    ) -> tuple[RecordMap | None, set[TP] | None]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        active = self._get_active_partitions()
        self._reader.wanted = frozenset(active)
        looks = self._reader.looks
        if not active:  # everything is paused, or nothing is assigned
            await self.sleep(PAUSED_POLL_SECONDS)
            self.polls += 1
            return {}, active
        records = self._reader.take()
        if records is None:
            self._reader.came.clear()
            records = self._reader.take()  # it came in between
        if records is None:
            try:
                async with asyncio.timeout(PAUSED_POLL_SECONDS if self._buffered_partitions else timeout):
                    await self._reader.came.wait()
            except TimeoutError:
                pass
            records = self._reader.take()
        self.polls += 1 if records or self._reader.looks != looks else 0
        return records if records is not None and self.flow_active else {}, active


class MemberTransport(Transport):
    """Transport that makes our consumer."""

    Consumer = MemberConsumer
