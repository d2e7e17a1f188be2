"""Faust's consumer and queues, made fast and fair: short waits, and no topic that holds up another."""

# ruff: noqa: SLF001  (what Faust and aiokafka fix inside is changed here)

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, cast

import uvloop
from aiokafka.errors import ConsumerStoppedError
from faust.transport.consumer import RecordMap
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP, EventT, Message
from mode import ServiceT
from mode.utils.queues import ThrowableQueue

from streams.kafka.reader import PAUSED_POLL_SECONDS, Reader

QUEUE_RECORDS: Final = 256
"""Records waiting between the fetcher and an agent before the partitions are paused."""
QUEUE_BYTES: Final = 4_194_304
"""… and their bytes."""


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
    def _reader(self) -> Reader:
        return cast("Reader", self._thread)

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

    def _new_consumer_thread(self) -> Reader:
        thread = Reader(self, loop=self.loop, beacon=self.beacon, thread_loop=uvloop.new_event_loop())
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
        self._reader.came.clear()  # before the look: what comes behind it sets it again
        records = self._reader.take()
        if records is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSED_POLL_SECONDS if self._buffered_partitions else timeout):
                    await self._reader.came.wait()
            records = self._reader.take()
        self.polls += 1 if records or self._reader.looks != looks else 0
        return records if records is not None and self.flow_active else {}, active


class MemberTransport(Transport):
    """Transport that makes our consumer."""

    Consumer = MemberConsumer
