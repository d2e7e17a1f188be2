"""Reads topics as they grow, without a consumer group: for people who watch, not for those who work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from streams.errors import BrokerUnavailableError, ConfigurationError
from streams.kafka.connection import client_options, full_name
from streams.settings import Settings
from streams.values import Record, Topic

FETCH_WAIT_MILLISECONDS: Final = 100


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
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MILLISECONDS,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
            if not self._from_start:
                await self._consumer.seek_to_end()
        except UnknownTopicOrPartitionError as error:
            await self._consumer.stop()
            raise ConfigurationError(
                f"one of {', '.join(self._names)} is missing: run `coldstream topics create`"
            ) from error
        except (KafkaError, OSError) as error:
            await self._consumer.stop()
            raise BrokerUnavailableError(f"cannot reach Kafka at {self._settings.kafka}: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def read(self, timeout_seconds: float) -> list[Record]:
        """What has come: at once where there is something, else after at most so long, empty."""
        try:
            batches = await self._consumer.getmany(timeout_ms=int(timeout_seconds * 1000))
        except KafkaError as error:
            raise BrokerUnavailableError(f"Kafka at {self._settings.kafka} does not answer: {error!r}") from error
        return [self._to_record(message) for messages in batches.values() for message in messages]

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
