"""Reads topics as they grow, without a consumer group: for people who watch, and for what every worker needs whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.partitioner import murmur2

from streams.errors import BrokerUnavailableError, ConfigurationError
from streams.kafka.connection import client_options, full_name
from streams.settings import Settings
from streams.values import Record, Topic

FETCH_WAIT_MILLISECONDS: Final = 100
READ_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Follower:
    """The records of some topics, in order for each partition. An async context manager; read by one caller.

    Raises `BrokerUnavailableError` when the broker is away, `ConfigurationError` for a topic that does not exist.
    """

    def __init__(self, settings: Settings, topics: Sequence[Topic], *, from_start: bool) -> None:
        self._settings = settings
        self._names = {full_name(settings, topic): topic for topic in topics}
        self._from_start = from_start
        self._consumer = AIOKafkaConsumer(
            *self._names,
            **client_options(settings),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest" if from_start else "latest",  # else the start races with the seek
            fetch_max_wait_ms=FETCH_WAIT_MILLISECONDS,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:  # also where a start is cancelled, since another reader found no broker
            await self._consumer.stop()
            raise
        return self

    async def _start(self) -> None:
        try:
            await self._consumer.start()
            if not self._from_start:
                await self._consumer.seek_to_end()
        except UnknownTopicOrPartitionError as error:
            raise ConfigurationError(
                f"one of {', '.join(self._names)} is missing: run `coldstream topics create`"
            ) from error
        except (KafkaError, OSError) as error:
            raise BrokerUnavailableError(f"cannot reach Kafka at {self._settings.kafka}: {error}") from error

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def read(self, timeout_seconds: float) -> list[Record]:
        """What has come: at once where there is something, else after at most so long, empty."""
        try:
            batches = await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000))
        except KafkaError as error:
            raise BrokerUnavailableError(f"Kafka at {self._settings.kafka} does not answer: {error!r}") from error
        return [self._to_record(message) for messages in batches.values() for message in messages]

    async def rewind(self, records: int) -> None:
        """Go back so many records on each partition, as far as there are any: for `read_whole` to begin there."""
        partitions = list(self._consumer.assignment())
        try:
            ends = await self._consumer.end_offsets(partitions)
            starts = await self._consumer.beginning_offsets(partitions)
        except KafkaError as error:
            raise BrokerUnavailableError(f"Kafka at {self._settings.kafka} does not answer: {error!r}") from error
        for partition in partitions:
            self._consumer.seek(partition, max(starts[partition], ends[partition] - records))

    def is_astray(self, record: Record) -> bool:
        """Whether a record lies on another partition than murmur2 of its key says, by which Java and we choose."""
        count = len(self._consumer.partitions_for_topic(full_name(self._settings, record.topic)) or ())
        return bool(record.key and count and (murmur2(record.key) & 0x7FFFFFFF) % count != record.partition)

    async def read_whole(self) -> AsyncIterator[list[Record]]:
        """What is there at the moment of the call, in parts; ends when all of it was read."""
        try:
            ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
            while any([await self._consumer.position(partition) < end for partition, end in ends.items()]):
                yield await self.read(1.0)
        except KafkaError as error:
            raise BrokerUnavailableError(f"Kafka at {self._settings.kafka} does not answer: {error!r}") from error

    def _to_record(self, message: Any) -> Record:
        return Record(
            topic=self._names[message.topic],
            partition=message.partition,
            offset=message.offset,
            time=message.timestamp / 1000,
            key=message.key,
            value=message.value,
            headers=tuple(message.headers),
        )


class ModelReader:
    """Reads the compacted topic `model` whole and follows it: every worker needs it, so no consumer group is involved.

    Calls `adopt` with each record, from the first on, in offset order, for as long as it runs.

    `start` returns once what was there at that moment has been adopted. A broker that is away later is waited for, and
    a record that can't be adopted is passed over: the worker goes on with the weights it has.
    """

    def __init__(self, settings: Settings, adopt: Callable[[Record], None]) -> None:
        self._follower = Follower(settings, (Topic.MODEL,), from_start=True)
        self._adopt = adopt
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> asyncio.Task[None]:
        """Read what is there. Raises as `Follower` does; returns the task that follows, which ends with a defect only."""
        await self._stack.enter_async_context(self._follower)
        async for records in self._follower.read_whole():
            self._adopt_all(records)
        self._task = asyncio.create_task(self._follow(), name="model-reader")
        return self._task

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
