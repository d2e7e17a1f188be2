"""The port `Publisher` over an idempotent aiokafka producer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from streams.errors import BrokerUnavailableError, FatalError
from streams.kafka.connection import client_options, full_name
from streams.settings import Settings
from streams.values import Message

ROOM_BYTES: Final = 65_536
"""What a dead letter adds to its source, at most: headers and framing."""
SEND_SECONDS: Final = 10.0
"""A broker that has not taken a message in this time is away: the batch is held."""
BATCH_BYTES: Final = 262_144
"""Records sent to a partition in one go; aiokafka's 16 KiB would be four lists a round trip. A topic's
`max.message.bytes` limits it too."""
STOP_SECONDS: Final = 5.0
TURNS: Final = 5
"""Turns of the event loop from a record that is handed to aiokafka to the request that holds it on its socket: its sender
wakes, takes what waits, starts a task, which writes, and uvloop flushes."""
METADATA_SECONDS: Final = 3.0
"""A topic that the cluster has not named in this time does not exist."""


class KafkaPublisher:
    """Sends with acks=all; of two messages to one partition the first is never lost alone.

    An idempotent producer never gives a message up, so one that was not taken in `SEND_SECONDS` stays under way: the
    next `send` waits for it first, which keeps the order and bounds what is in memory while the broker is away.

    `idempotent=False` is for an embedded broker that refuses idempotence: an expired batch is then followed by the
    next one.
    """

    def __init__(self, settings: Settings, *, idempotent: bool = True) -> None:
        self._settings = settings
        self._idempotent = idempotent
        self._producer: AIOKafkaProducer | None = None
        self._under_way: set[asyncio.Future[object]] = set()
        self._broken = False
        self._partitions: dict[str, int] = {}

    async def start(self) -> None:
        """Connect. Raises `BrokerUnavailableError`."""
        producer = AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=self._idempotent,
            max_request_size=largest_message_bytes(self._settings),
            max_batch_size=BATCH_BYTES,
            linger_ms=0,
        )
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await producer.start()
        except (KafkaError, OSError) as error:
            await producer.stop()
            raise BrokerUnavailableError(f"cannot reach Kafka at {self._settings.kafka}: {error!r}") from error
        self._producer = producer

    async def stop(self) -> None:
        """Wait a little for what is under way, then close. Idempotent."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await producer.stop()
            except TimeoutError:
                # an idempotent producer waits for ever for a broker that is away
                producer._closed = True  # noqa: SLF001
                await producer._sender.close()  # noqa: SLF001
                await producer.client.close()

    async def hand_over(self, messages: Sequence[Message]) -> Awaitable[None]:
        """Send all; see the port. When it returns, what fits into requests is on its way, whatever the caller does next."""
        deadline = asyncio.get_running_loop().time() + SEND_SECONDS
        sent: set[asyncio.Future[object]] = set()
        async with _mapped_errors(deadline):
            await self._settle(self._under_way)
            producer = await self._living()
            for message in messages:
                nothing = message.key is None and message.value is None  # aiokafka sends no such record
                future = await producer.send(
                    full_name(self._settings, message.topic),
                    b"" if nothing else message.value,
                    key=message.key,
                    partition=message.partition,
                    headers=list(message.headers),
                )
                self._under_way.add(future)
                sent.add(future)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        return _Sending(self, sent, deadline)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send all, in order for each partition; returns when the broker has all of them. See the port."""
        await (await self.hand_over(messages))

    async def settled(self, sent: Collection[asyncio.Future[object]], deadline: float) -> None:
        """Wait for some of what is under way, until so late by the loop's clock; raises the first error among it."""
        async with _mapped_errors(deadline):
            await self._settle(sent)

    async def _settle(self, sent: Collection[asyncio.Future[object]]) -> None:
        """Wait for these; raises the first error among them. Others may wait for the same."""
        if not sent:
            return
        done = set(sent)
        if not all(future.done() for future in done):
            await asyncio.wait(done)
        self._under_way -= done
        errors = [error for future in done if (error := future.exception()) is not None]
        if errors:
            self._broken = True  # a gap in the sequence: the broker would refuse all that follows from this producer
            raise next((error for error in errors if isinstance(error, MessageSizeTooLargeError)), errors[0])

    async def _living(self) -> AIOKafkaProducer:
        """The producer, made anew where the last one can send nothing more."""
        if self._broken:
            await self.stop()
            await self.start()
            self._broken = False
        if self._producer is None:
            raise BrokerUnavailableError("the publisher is not started")
        return self._producer

    async def load_partitions(self, topics: Sequence[str]) -> None:
        """Learn the numbers of partitions that `partitions` then tells.

        Raises `BrokerUnavailableError`, and `FatalError` where a topic does not exist.
        """
        for topic in topics:
            try:
                async with asyncio.timeout(METADATA_SECONDS):
                    found = await (await self._living()).partitions_for(full_name(self._settings, topic))
                    self._partitions[topic] = len(found)
            except (
                UnknownTopicOrPartitionError,
                TimeoutError,
            ) as error:  # it asks again and again for what is not there
                raise _missing(self._settings, topic) from error
            except KafkaError as error:
                raise BrokerUnavailableError(f"Kafka does not describe {topic}: {error!r}") from error

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic (logical name); raises `FatalError` where it was never known.

        A producer that was just made anew knows none: what the one before it knew holds until then.
        """
        name = full_name(self._settings, topic)
        found = self._producer.client.cluster.partitions_for_topic(name) if self._producer is not None else None
        if found:
            self._partitions[topic] = len(found)
        if topic not in self._partitions:
            raise _missing(self._settings, topic)
        return self._partitions[topic]


@dataclass(frozen=True, slots=True)
class _Sending:
    """What was handed over: awaited, it ends when the broker has all of it."""

    publisher: KafkaPublisher
    sent: Collection[asyncio.Future[object]]
    deadline: float

    def __await__(self) -> Generator[Any, Any, None]:
        return self.publisher.settled(self.sent, self.deadline).__await__()


@asynccontextmanager
async def _mapped_errors(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except MessageSizeTooLargeError as error:
        raise FatalError(f"Kafka refuses a message for its size: {error}") from error
    except TimeoutError as error:
        raise BrokerUnavailableError(f"Kafka did not take what was sent in {SEND_SECONDS:g} s") from error
    except KafkaError as error:
        raise BrokerUnavailableError(f"Kafka did not take what was sent: {error!r}") from error


def _missing(settings: Settings, topic: str) -> FatalError:
    return FatalError(f"topic {full_name(settings, topic)} does not exist: run `coldstream topics create`")


def largest_message_bytes(settings: Settings) -> int:
    """The largest message that is sent: a dead letter around the largest record that a source topic takes."""
    return max(settings.record_bytes, 1_048_588) + ROOM_BYTES
