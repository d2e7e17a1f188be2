"""Faust's consumer and queues, made fast and fair: short waits, and no topic that holds up another."""

# ruff: noqa: SLF001  (what Faust and aiokafka fix inside is changed here)

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

import aiokafka
import uvloop
from aiokafka.errors import ConsumerStoppedError
from faust.transport.consumer import RecordMap
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, EventT, Message
from mode import Service, ServiceT
from mode.utils.queues import ThrowableQueue

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
    """The thread of the consumer, with a short fetch wait, which counts the turns of its loop, and goes back for all."""

    mundane_level = "debug"
    turns: int = 0
    """Grows once a second."""

    @Service.task
    async def _turn(self) -> None:
        while not self.should_stop:
            self.turns += 1
            await self.sleep(1.0)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to what is committed; where nothing is yet, to what was not passed on since the partition came.

        There aiokafka would go on from where it has read to, so that what was fetched while partitions moved, and was
        dropped by Faust, would never come again (tried: counts of the first seconds were lost, `rebalance`).
        """
        return cast("Mapping[TP, int]", await self.call_thread(self._seek_to_committed))

    async def _seek_to_committed(self) -> Mapping[TP, int | None]:
        consumer = self._ensure_consumer()
        committed: Mapping[TP, int | None] = await consumer.seek_to_committed()
        for tp, offset in committed.items():
            if not offset:
                passed_on = self.consumer._read_offset.get(tp)
                consumer.seek(tp, 0 if passed_on is None else passed_on + 1)  # where that is gone, the first there is
        return committed

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MILLISECONDS
        return consumer


class MemberConsumer(Consumer):
    """The consumer, which counts its polls and looks at paused partitions soon."""

    mundane_level = "debug"
    polls: int = 0
    """How often a poll has returned."""

    @property
    def turns(self) -> int:
        """Grows once a second while the consumer's thread lives."""
        return cast("Thread", self._thread).turns

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
        if active:
            paused = bool(self._buffered_partitions)
            records = await self._getmany(active, PAUSED_POLL_SECONDS if paused else timeout)
        else:  # everything is paused, or nothing is assigned
            records = {}
            await self.sleep(PAUSED_POLL_SECONDS)
        self.polls += 1
        return records, active


class MemberTransport(Transport):
    """Transport that makes our consumer."""

    Consumer = MemberConsumer
