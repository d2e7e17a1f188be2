"""Reads the compacted topic `model` whole and follows it: every worker needs it, so no consumer group is involved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.errors import FatalError
from streams.kafka.connection import client_options, full_name
from streams.settings import Settings
from streams.values import Record, Topic

log = logging.getLogger(__name__)

FETCH_WAIT_MILLISECONDS: Final = 500
RETRY_SECONDS: Final = 1.0


class ModelReader:
    """Calls `adopt` with each record of `model`, from the first on, in offset order, for as long as it runs.

    `start` returns once what was there at that moment has been adopted. A broker that is away later is waited for:
    the worker goes on with the weights it has.
    """

    def __init__(self, settings: Settings, adopt: Callable[[Record], None]) -> None:
        self._settings = settings
        self._adopt = adopt
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is there. Raises `FatalError` where the topic can't be read."""
        partition = TopicPartition(full_name(self._settings, Topic.MODEL), 0)
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MILLISECONDS,
        )
        try:
            await consumer.start()
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            end = (await consumer.end_offsets([partition]))[partition]
            while await consumer.position(partition) < end:
                await self._read(consumer)
        except (KafkaError, OSError) as error:
            await consumer.stop()
            raise FatalError(f"cannot read the topic {partition.topic}: {error!r}; `coldstream topics check`") from error
        self._consumer = consumer
        self._task = asyncio.create_task(self._follow(consumer), name="model-reader")

    async def stop(self) -> None:
        """Stop following. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                await self._read(consumer)
            except KafkaError as error:
                log.warning("reading the model failed, going on with the weights at hand: %r", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("a record of the model can't be adopted, going on with the weights at hand")

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        batches: dict[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=FETCH_WAIT_MILLISECONDS)
        for messages in batches.values():
            for message in messages:
                self._adopt(
                    Record(
                        topic=Topic.MODEL,
                        partition=message.partition,
                        offset=message.offset,
                        time=message.timestamp / 1000,
                        key=message.key,
                        value=message.value,
                        headers=tuple(message.headers),
                    )
                )
