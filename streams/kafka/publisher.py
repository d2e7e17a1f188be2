"""The port `Publisher` over an idempotent aiokafka producer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from streams.errors import BrokerUnavailableError, FatalError
from streams.kafka.connection import client_options, full_name
from streams.settings import Settings
from streams.values import Message

ROOM_BYTES: Final = 65_536
"""What a dead letter adds to its source, at most: headers and framing."""
SEND_SECONDS: Final = 30.0
"""A message that the broker has not taken in this time is given up; the batch is held and tried again."""


class KafkaPublisher:
    """Sends with acks=all; of two messages to one partition the first is never lost alone.

    `idempotent=False` is for the embedded broker of the demo alone, where it refuses idempotence: an expired batch is
    then followed by the next one.
    """

    def __init__(self, settings: Settings, *, idempotent: bool = True) -> None:
        self._settings = settings
        self._producer = AIOKafkaProducer(
            **client_options(settings),
            acks="all",
            enable_idempotence=idempotent,
            max_request_size=largest_message_bytes(settings),
            request_timeout_ms=int(SEND_SECONDS * 1000),
            linger_ms=0,
        )
        self._started = False

    async def start(self) -> None:
        """Connect. Raises `BrokerUnavailableError`."""
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise BrokerUnavailableError(f"cannot reach Kafka at {self._settings.kafka}: {error}") from error
        self._started = True

    async def stop(self) -> None:
        """Wait for what is on its way, then close. Idempotent."""
        if self._started:
            self._started = False
            await self._producer.stop()

    async def send(self, messages: Sequence[Message]) -> None:
        """Send all, in order for each partition; returns when the broker has all of them. See the port."""
        pending: list[asyncio.Future[object]] = []
        try:
            for message in messages:
                pending.append(
                    await self._producer.send(
                        full_name(self._settings, message.topic),
                        message.value,
                        key=message.key,
                        partition=message.partition,
                        headers=list(message.headers),
                    )
                )
        except MessageSizeTooLargeError as error:
            raise FatalError(f"a message to {message.topic.value} is too large to be sent: {error}") from error
        except KafkaError as error:
            raise BrokerUnavailableError(f"Kafka took no message to {message.topic.value}: {error!r}") from error
        finally:
            results = await asyncio.gather(*pending, return_exceptions=True)
        for result in results:
            if isinstance(result, MessageSizeTooLargeError):
                raise FatalError(f"Kafka refuses a message for its size: {result!r}") from result
            if isinstance(result, BaseException):
                raise BrokerUnavailableError(f"Kafka did not take a message: {result!r}") from result

    async def load_partitions(self, topics: Sequence[str]) -> None:
        """Learn the numbers of partitions that `partitions` then tells. Raises `BrokerUnavailableError`."""
        for topic in topics:
            try:
                await self._producer.partitions_for(full_name(self._settings, topic))
            except KafkaError as error:
                raise BrokerUnavailableError(f"topic {full_name(self._settings, topic)} is not known: {error!r}") from error

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic (logical name); raises `FatalError` where it is not known."""
        found = self._producer.client.cluster.partitions_for_topic(full_name(self._settings, topic))
        if not found:
            raise FatalError(
                f"topic {full_name(self._settings, topic)} does not exist: run `coldstream topics create`"
            )
        return len(found)


def largest_message_bytes(settings: Settings) -> int:
    """The largest message that is sent: a dead letter around the largest record that a source topic takes."""
    return max(settings.record_bytes, 1_048_588) + ROOM_BYTES
