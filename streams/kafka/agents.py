"""The consumer of the worker: Faust agents that hand raw records to the flow, and acknowledge what it has done.

One agent a topic, on raw bytes: `take`, Record types and exceptions out of an agent's body each lose events (tried).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from faust.streams import Stream
from faust.types import EventT

from streams.errors import DuplicateMemberError, FatalError
from streams.kafka.broker import find_loss
from streams.kafka.connection import Joins, answers, evict_members, full_name
from streams.kafka.member import Member, fenced, make_member
from streams.kafka.watchdog import await_group
from streams.ports import Intake
from streams.settings import Settings
from streams.values import Record, Topic

log = logging.getLogger(__name__)

CONSUMED: Final = (Topic.EVENTS, Topic.USERS, Topic.REFRESHES, Topic.ITEMS, Topic.SIGNALS, Topic.LESSONS)
"""The topics that the group shares. `model` is read whole by every worker, without the group."""
LOOK_SECONDS: Final = 1.0
"""Between looks at whether we are still kept in the group."""
LOSS_LOOKS: Final = 5
"""So many looks after partitions began to move, if they still do, it is looked whether the topics are still there."""

Position = tuple[Topic, int, int]


class KafkaConsumer:
    """Member of the consumer group; the port `Ownership`.

    `start` returns when the member runs (partitions come later, by `intake.assigned`). Stop the flow first, then call
    `stop`: what was acknowledged is committed, what waits stays unacknowledged. From then on, and while partitions
    move, `interrupted` says so. `failed` ends with a `FatalError` when the member can't go on; the process must exit.
    """

    def __init__(self, settings: Settings, topics: Sequence[Topic] = CONSUMED) -> None:
        self._settings = settings
        self._intake: Intake
        self._topics = {full_name(settings, topic): topic for topic in topics}
        self._events: dict[Position, EventT[Any]] = {}
        self._next: dict[tuple[Topic, int], int] = {}
        self._counts: dict[Topic, int] = {}
        """The least number of partitions that a topic must have, by those that were ours."""
        self._joins = Joins(settings)
        self._stopping = False
        self._member: Member | None = None
        self._guard: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0
        """Records handed to the flow since the start."""
        self.acknowledged = 0
        """Records acknowledged since the start."""

    async def start(self, intake: Intake) -> None:
        """Connect and join; records go to `intake` from now on. To be cancelled at any time.

        Raises `FatalError` where that can't be, or takes too long without a cause, and `BrokerUnavailableError`.
        """
        self._intake = intake
        if self._settings.kafka_embedded:
            await evict_members(self._settings)
        member = self._member = make_member(self._settings, self._topics.values(), asyncio.get_running_loop())
        for name, topic in self._topics.items():
            channel = member.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
            member.agent(channel, name=f"{topic}-agent")(self._agent(topic))
        member.on_partitions_revoked.connect(self._revoked)
        member.on_partitions_assigned.connect(self._assigned)
        starting = asyncio.create_task(member.start(), name="kafka-member-start")
        error: BaseException | None = asyncio.CancelledError()
        try:
            error = await await_group(starting, member.coordinator_error, self._settings)
        finally:
            if error is not None:
                await member.give_up(starting)
        if error is not None:
            raise self._ended(error, f"did not start: {error}") from error
        self._guard = asyncio.create_task(self._watch(member), name="kafka-member")

    async def stop(self) -> None:
        """Commit what is acknowledged and leave. Idempotent."""
        self._stopping = True
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
        if self._member is not None:
            member, self._member = self._member, None
            await member.end()
        self._events.clear()

    def interrupted(self) -> str | None:
        """None, or why the batch in hand must be abandoned: rebalance, stop."""
        if self._stopping:
            return "stop"
        return "rebalance" if self.moving() else None

    def acknowledge(self, records: Sequence[Record]) -> None:
        """These records are done, in offset order for each partition. What was revoked meanwhile is ignored."""
        for record in records:
            event = self._events.pop((record.topic, record.partition, record.offset), None)
            if event is not None:
                event.ack()
                self._next[record.topic, record.partition] = record.offset + 1
                self.acknowledged += 1

    def moving(self) -> bool:
        """Whether partitions move: between giving them away and getting new ones."""
        return self._member is not None and self._member.rebalancing

    def lag(self) -> dict[tuple[Topic, int], int] | None:
        """Records not acknowledged yet, of each owned partition; None while that is not known."""
        member = self._member
        if member is None or member.rebalancing:
            return None
        lags: dict[tuple[Topic, int], int] = {}
        for tp, (end, read) in member.positions().items():
            topic = self._topics[tp.topic]
            if end is None:
                return None
            lags[topic, tp.partition] = max(0, end - self._next.get((topic, tp.partition), read))
        return lags

    def ends(self) -> dict[tuple[str, int], int]:
        """The next offset of each owned partition as far as it is known, by (logical topic, partition)."""
        positions = self._member.positions() if self._member is not None else {}
        return {
            (self._topics[tp.topic].value, tp.partition): end for tp, (end, _) in positions.items() if end is not None
        }

    def coordinator_alive(self) -> bool:
        """Whether the task that keeps us in the group runs."""
        return self._member is not None and self._member.coordinator_alive()

    @property
    def pending(self) -> int:
        """Records handed in and not acknowledged yet."""
        return len(self._events)

    @property
    def polls(self) -> int:
        """How often the fetcher was asked: stands still while partitions move, else grows at least once a second."""
        return self._member.polls if self._member is not None else 0

    @property
    def turns(self) -> int:
        """Grows at least once a second while the thread that speaks to the broker lives."""
        return self._member.turns if self._member is not None else 0

    async def answers(self, seconds: float) -> bool:
        """Whether the group's coordinator answers within that time."""
        return await answers(self._settings, seconds)

    async def behind(self, seconds: float) -> int | None:
        """Records that the broker has beyond what was fetched, asked of it anew; None where it doesn't answer in time."""
        return await self._member.behind(seconds) if self._member is not None else None

    def _agent(self, topic: Topic) -> Any:
        async def hand_in(stream: Stream[Any]) -> None:
            try:
                async for event in stream.noack().events():
                    await self._hand_in(topic, event)
            except Exception as error:  # an exception out of an agent's body acknowledges and loses its event
                log.exception("handing in a record of %s failed", topic.value)
                self._fail(FatalError(f"handing in a record of {topic.value} failed: {error!r}"))

        return hand_in

    async def _hand_in(self, topic: Topic, event: EventT[Any]) -> None:
        message = event.message
        record = Record(
            topic=topic,
            partition=message.partition,
            offset=message.offset,
            time=message.timestamp or 0.0,
            key=message.key,
            value=message.value,
            headers=tuple(message.headers or ()),  # type: ignore[arg-type]
        )
        self._events[topic, record.partition, record.offset] = event
        self._next.setdefault((topic, record.partition), record.offset)
        self.received += 1
        await self._intake.put(record)

    async def _revoked(self, *arguments: Any, **_: Any) -> None:
        _member, revoked = arguments
        self._events.clear()
        self._next.clear()
        await self._intake.revoked()
        log.info("partitions revoked: %d", len(revoked))

    async def _assigned(self, *arguments: Any, **_: Any) -> None:
        member, assigned = arguments
        if self._joins.add(member.consumer_generation_id):
            self._fail(self._duplicate())
        owned = {
            topic.value: frozenset(tp.partition for tp in assigned if tp.topic == name)
            for name, topic in self._topics.items()
        }
        for topic in self._topics.values():  # a member may be given topics that it doesn't read
            if owned[topic.value]:
                self._counts[topic] = max(self._counts.get(topic, 0), max(owned[topic.value]) + 1)
        await self._intake.assigned(owned)
        log.info("partitions assigned: %s", {topic: sorted(partitions) for topic, partitions in owned.items()})

    async def _watch(self, member: Member) -> None:
        """Aiokafka's coordination can end without a word to Faust, and Faust without a word to us."""
        stopped = asyncio.create_task(member.wait_until_stopped(), name="kafka-member-stopped")
        try:
            looks, joins = 0, self._joins.count
            while not (await asyncio.wait([stopped], timeout=LOOK_SECONDS))[0]:
                looks = looks + 1 if member.rebalancing else 0
                loss = None
                if looks == LOSS_LOOKS or self._joins.count > joins:
                    joins = self._joins.count
                    loss = await find_loss(self._settings, self._counts)
                if (error := member.coordinator_error()) is not None or loss is not None:
                    self._fail(loss or self._ended(error, f"ended: {error!r}"))
                    return
            reason = member.crash_reason or member.coordinator_error()
            loss = None if fenced(reason) else await find_loss(self._settings, self._counts)
            self._fail(loss or self._ended(reason, f"ended: {reason!r}" if reason else "ended"))
        finally:
            stopped.cancel()

    def _ended(self, reason: BaseException | None, what: str) -> FatalError:
        return self._duplicate() if fenced(reason) else FatalError(f"the Kafka consumer {what}")

    def _duplicate(self) -> DuplicateMemberError:
        name = self._settings.instance_id
        return DuplicateMemberError(f"another process runs with COLDSTREAM_INSTANCE_ID={name!r}: stop one")

    def _fail(self, error: FatalError) -> None:
        if not self.failed.done() and not self._stopping:
            self.failed.set_exception(error)
