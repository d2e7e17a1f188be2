"""One demonstration from start to end: broker, topics, worker, catalogue, replay, the last answers."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.commands.client import fetch, read_counter
from streams.dataset import Line
from streams.demo.helpers import Helpers, find_port
from streams.demo.plan import Plan
from streams.demo.tally import Tally
from streams.demo.view import Status
from streams.errors import BrokerUnavailableError, ColdstreamError
from streams.kafka.follower import Follower
from streams.kafka.publisher import KafkaPublisher
from streams.kafka.topics import TopicAdmin, wanted_topics
from streams.settings import PREFIX, Settings
from streams.values import Message, Record, Topic
from streams.wire import JSON, Recommendation

START_SECONDS: Final = 60.0
"""For broker and worker to start, each; imports take 7 s on a busy machine."""
IDLE_SECONDS: Final = 60.0
"""Without any progress of the catalogue: something is broken."""
LAST_SECONDS: Final = 15.0
"""For the next of the last answers; then what is missing is lost."""
POLL_SECONDS: Final = 0.2
CHUNK: Final = 500
QUIET: Final = (("quiet", b"1"),)
KEPT: Final = ("BUNDLE", "PROVIDER", "ENCODER_THREADS", "LOG_LEVEL", "LOG_FORMAT")
"""Settings of the caller that a demonstration heeds; the others describe installations that it must not touch."""


@dataclass(slots=True)
class Demonstration:
    """What is run, what is measured, and what is going on; `perform` fills the latter two."""

    plan: Plan
    tally: Tally
    status: Status
    rate: float
    """Events a second."""

    async def perform(self, helpers: Helpers) -> None:
        """Run to the end; the helpers are the caller's to end. Raises `ColdstreamError` where something fails."""
        settings = self._settings(helpers.folder)
        environment = _environment(settings, helpers.folder)
        self.status.what = "starting the broker"
        await start_broker(helpers, settings, environment)
        self.status.what = "starting the worker"
        helpers.start("worker", [sys.executable, "-m", "streams.commands.main", "worker"], environment)
        publisher = KafkaPublisher(settings, idempotent=False)
        await publisher.start()
        try:
            async with Follower(settings, (Topic.RECOMMENDATIONS, Topic.DEAD_LETTERS), from_start=True) as follower:
                receiving = asyncio.create_task(self._receive(follower))
                try:
                    await _first_of(receiving, self._publish(publisher, settings, helpers))
                finally:
                    receiving.cancel()
        finally:
            await publisher.stop()

    def _settings(self, folder: Path) -> Settings:
        return Settings(
            kafka=f"127.0.0.1:{find_port()}",
            kafka_embedded=True,
            index=f"edge:{folder / 'index'}",
            http=f"127.0.0.1:{find_port()}",
        )

    async def _receive(self, follower: Follower) -> None:
        decode = msgspec.json.Decoder(Recommendation).decode
        while True:
            for record in await follower.read(POLL_SECONDS):
                if record.topic is Topic.DEAD_LETTERS:
                    self.tally.receive_dead_letter(_event_id(record))
                elif record.value is not None:
                    self.tally.receive_list(decode(record.value), time.monotonic())

    async def _publish(self, publisher: KafkaPublisher, settings: Settings, helpers: Helpers) -> None:
        await self._publish_catalogue(publisher)
        await self._await_worker(settings, helpers)
        self.status.page = f"http://{settings.http}"
        self.status.what = f"replaying; the live page is {self.status.page}"
        self.status.replay_at = time.monotonic()
        await self._replay(publisher, helpers)
        self.status.what = "waiting for the last lists"
        await self._await_answers(helpers)

    async def _publish_catalogue(self, publisher: KafkaPublisher) -> None:
        for topic, key, lines in (
            (Topic.ITEMS, "item_id", self.plan.items),
            (Topic.USERS, "user_id", self.plan.users),
        ):
            messages = [_message(topic, key, line, QUIET) for line in lines]
            for start in range(0, len(messages), CHUNK):
                await publisher.send(messages[start : start + CHUNK])
        self.tally.publish_items(self.plan.items)

    async def _await_worker(self, settings: Settings, helpers: Helpers) -> None:
        """Until the worker is ready and has embedded the catalogue."""
        deadline, best = time.monotonic() + START_SECONDS, 0.0
        while True:
            helpers.check()
            known, waiting = await asyncio.to_thread(_look, settings)
            if known > best:
                deadline, best = time.monotonic() + IDLE_SECONDS, known
                self.status.what = f"embedding the catalogue: {known:,.0f} of {len(self.plan.items):,} items"
            if known >= len(self.plan.items) and waiting == 0:
                return
            if time.monotonic() > deadline:
                raise ColdstreamError(f"the worker is not ready after a minute: {helpers.tail('worker')}")
            await asyncio.sleep(POLL_SECONDS)

    async def _replay(self, publisher: KafkaPublisher, helpers: Helpers) -> None:
        """The events in order, each at its time by the rate; the late items before the first event of any of them."""
        events, late_at = self.plan.events, self.plan.late_at
        start, done = time.monotonic(), 0
        while done < len(events):
            due = min(int((time.monotonic() - start) * self.rate) + 1, len(events))
            if done <= late_at < due:
                due = late_at if done < late_at else due
                if done == late_at:
                    await self._publish_late(publisher)
            await self._publish_events(publisher, events[done:due])
            done = due
            helpers.check()
            await asyncio.sleep(max(start + done / self.rate - time.monotonic(), 0))

    async def _publish_events(self, publisher: KafkaPublisher, events: Sequence[Line]) -> None:
        now = time.monotonic()
        for event in events:
            self.tally.publish_event(event, now)
        await publisher.send([_message(Topic.EVENTS, "user_id", event) for event in events])

    async def _publish_late(self, publisher: KafkaPublisher) -> None:
        now = time.monotonic()
        self.tally.publish_items(self.plan.late_items, now)
        self.status.late_published_at = now
        await publisher.send([_message(Topic.ITEMS, "item_id", item) for item in self.plan.late_items])

    async def _await_answers(self, helpers: Helpers) -> None:
        last, since = self.tally.lost, time.monotonic()
        while self.tally.lost and time.monotonic() - since < LAST_SECONDS:
            helpers.check()
            await asyncio.sleep(POLL_SECONDS)
            if self.tally.lost < last:
                last, since = self.tally.lost, time.monotonic()


async def start_broker(helpers: Helpers, settings: Settings, environment: dict[str, str]) -> None:
    """The embedded broker at the settings' address, with all topics."""
    port = settings.kafka.rpartition(":")[2]
    helpers.start("broker", [sys.executable, "-m", "streams.commands.main", "broker", "--port", port], environment)
    deadline = time.monotonic() + START_SECONDS
    while True:
        helpers.check()
        try:
            async with TopicAdmin(settings) as admin:
                await admin.create(wanted_topics(settings))
                return
        except BrokerUnavailableError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(POLL_SECONDS / 4)


async def _first_of(receiving: asyncio.Task[None], publishing: Coroutine[Any, Any, None]) -> None:
    """Until everything was published; an error of the receiver ends it at once."""
    task = asyncio.create_task(publishing)
    try:
        await asyncio.wait([task, receiving], return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            receiving.result()
        await task
    finally:
        task.cancel()


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Of this process's environment all but our own settings, and then those of the demonstration.

    What the helpers keep for a time, they keep in the demonstration's folder.
    """
    kept = {f"{PREFIX}{name}" for name in KEPT}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name in kept}
    mine = {"KAFKA": settings.kafka, "KAFKA_EMBEDDED": "true", "INDEX": settings.index, "HTTP": settings.http}
    return environment | {"TMPDIR": str(folder)} | {f"{PREFIX}{name}": value for name, value in mine.items()}


def _look(settings: Settings) -> tuple[float, float]:
    """(items known, records waiting) of a worker that is ready; (0, 0) of one that is not yet."""
    try:
        fetch(settings, ["readyz"])
        return read_counter(settings, "coldstream_known_items"), read_counter(settings, "coldstream_lag_records")
    except ColdstreamError:
        return 0.0, 0.0


def _message(topic: Topic, key: str, line: Line, headers: tuple[tuple[str, bytes], ...] = ()) -> Message:
    return Message(topic, str(line[key]).encode(), JSON.encode(line), headers)


def _event_id(record: Record) -> str | None:
    """The id of a refused event, where it is one that can be read."""
    if record.header("topic") != Topic.EVENTS.value.encode() or record.value is None:
        return None
    try:
        return str(msgspec.json.decode(record.value)["event_id"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None
