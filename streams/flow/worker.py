"""The loop of a worker: take what waits, process it, hold when a neighbour is away, keep house in between.

Implements the port Intake. One batch is in flight at a time; nothing is acknowledged before its effects are durable.
`step` and `maintain` await nothing but ports, so that the simulator drives them without this loop.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from streams.errors import (
    AbandonedError,
    BrokerUnavailableError,
    EncoderFailedError,
    IndexUnavailableError,
    PoisonError,
    RetryableError,
)
from streams.flow.batch import Pipeline
from streams.flow.buffer import Buffer
from streams.flow.decoded import bury
from streams.flow.parts import REBALANCE, Setting
from streams.flow.recommend import tombstone_message
from streams.flow.report import BatchReport
from streams.flow.signals import decode_signals
from streams.flow.users import from_point
from streams.ports import Collection
from streams.values import Record, Topic

T = TypeVar("T")

IDLE_SECONDS: Final = 0.5
"""The house is kept at least this often."""
REVOKE_SECONDS: Final = 3.0
BACKOFF_FIRST_SECONDS: Final = 0.05
BACKOFF_MOST_SECONDS: Final = 2.0
REPEATS_SECONDS: Final = (60.0, 3600.0)
"""A tombstone is repeated so long after an erasure: a zombie may have written a list after it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hold:
    """The batch in hand waits for a neighbour."""

    cause: str
    """index, broker or encoder."""
    reason: str
    since: float
    """Monotonic seconds."""


class Worker:
    """Owns the pipeline, the statistics and the learning of the partitions that it was given."""

    def __init__(
        self,
        setting: Setting,
        buffer: Buffer,
        observe: Callable[[BatchReport], None],
        on_hold: Callable[[Hold | None], None] = lambda _: None,
    ) -> None:
        self._world = setting.world
        self._limits = setting.limits
        self._catalogue = setting.parts.catalogue
        self._users = setting.parts.users
        self._statistics = setting.parts.statistics
        self._learning = setting.parts.learning
        self._fan_out = setting.parts.fan_out
        self._pipeline = Pipeline(setting)
        self._buffer = buffer
        self._observe = observe
        self._on_hold = on_hold
        self._owned: Mapping[str, frozenset[int]] = {}
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._flushed_at = self._world.clock.monotonic()
        self._ticked_at = self._world.clock.now()
        self._repeats: list[tuple[float, str]] = []
        self.hold: Hold | None = None
        self.batches = 0
        """Batches done since the start: what the watchdog looks at."""
        self.assigned_once = False
        self._in_hand = 0
        self.erased_at: float | None = None
        """Wall-clock time of the oldest erasure whose bytes may still lie in the index's files."""

    # -- Intake

    async def put(self, record: Record) -> None:
        """Hand in one record; waits while the topic's buffer is full."""
        await self._buffer.put(record)

    async def revoked(self) -> None:
        """Empty the buffer, wait at most 3 s for the batch in hand, drop what belongs to the next owner."""
        self._owned = {}
        self._buffer.clear()
        try:
            await asyncio.wait_for(self._idle.wait(), REVOKE_SECONDS)
        except TimeoutError:
            log.warning("the batch in hand did not end within %.0f s of a rebalance", REVOKE_SECONDS)
        self.drop()

    def drop(self) -> None:
        """Forget what belongs to the next owner of the partitions; a batch may still be in hand."""
        self._users.forget()
        self._statistics.drop()
        self._learning.drop()

    async def assigned(self, partitions: Mapping[str, frozenset[int]]) -> None:
        """The partitions owned from now on."""
        self._owned = partitions
        self.assigned_once = True

    # -- the loop

    async def run(self) -> None:
        """Until `stop`. Raises `FatalError`, and whatever is a defect; both end the process."""
        while not self._stopping:
            await self._buffer.wait(IDLE_SECONDS)
            if self._world.ownership.interrupted() == REBALANCE:
                await self._world.clock.sleep(0.02)
                continue
            self._idle.clear()
            try:
                taken = self._buffer.take(self._limits.batch_size, self._limits.items_share)
                self._in_hand = len(taken)
                await self.step(taken)
                await self.maintain()
            finally:
                self._in_hand = 0
                self._idle.set()
        if self._world.ownership.interrupted() != REBALANCE:
            await self._until_done(self._flush)

    @property
    def waiting(self) -> int:
        """Records taken over that are not done: buffered, and in the batch in hand."""
        return self._buffer.waiting + self._in_hand

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`; what waits stays unacknowledged."""
        self._stopping = True
        self._buffer.wake()

    async def step(self, records: Sequence[Record]) -> None:
        """Process what was taken: all of it, or none (abandoned)."""
        if not records:
            return
        main = [record for record in records if record.topic not in {Topic.SIGNALS, Topic.LESSONS}]
        signals = [record for record in records if record.topic is Topic.SIGNALS]
        lessons = [record for record in records if record.topic is Topic.LESSONS]
        if main:
            report = await self._until_done(lambda: self._pipeline.process(main))
            if report is None:
                return
            self._remember_erasures(report)
            self._observe(report)
        if signals:
            await self._until_done(lambda: self._fold(signals))
        if lessons:
            self._learning.take(lessons)
        self.batches += 1

    async def maintain(self) -> None:
        """Whatever is due: flush, reload, expiries, waiting refreshes, repeated tombstones, the model."""
        now = self._world.clock.now()
        if self._world.clock.monotonic() - self._flushed_at >= self._limits.flush_seconds:
            await self._until_done(self._flush)
            self._flushed_at = self._world.clock.monotonic()
        await self._until_done(self._catalogue.reload)
        await self._until_done(lambda: self._send_refreshes(now))
        await self._until_done(lambda: self._repeat_tombstones(now))

    # -- its parts

    async def _fold(self, records: Sequence[Record]) -> None:
        good, dead = [], []
        for record in records:
            try:
                good.append((record, decode_signals(record)))
            except PoisonError as error:
                dead.append((record, bury(record, error, self._world.clock.now())))
        self._catalogue.columns.absorb(await self._statistics.take(good))
        if dead:
            await self._world.publisher.send([message for _, message in dead])
            self._statistics.pass_over([record for record, _ in dead])

    async def _flush(self) -> None:
        if self._statistics.waiting:
            self._world.ownership.acknowledge(await self._statistics.flush(self._guard))
        done = await self._learning.publish(self._world.publisher, now=self._stopping)
        if done:
            self._world.ownership.acknowledge(done)

    async def _send_refreshes(self, now: float) -> None:
        """Items whose time has come or gone since the last look, then what waits for the budget."""
        owned = self._owned.get(Topic.ITEMS.value, frozenset())
        since, self._ticked_at = self._ticked_at, now
        arrived, withdrawn = self._catalogue.turned(since, now)
        mine = [record for record in arrived if record.source is not None and record.source.partition in owned]
        gone = [
            record.item_id for record in withdrawn if record.source is not None and record.source.partition in owned
        ]
        messages = self._fan_out.due()
        if mine:
            messages += (await self._fan_out.arrived(mine, now))[0]
        if gone:
            messages += (await self._fan_out.withdrawn(gone, now))[0]
        if messages:
            await self._world.publisher.send(messages)

    def _remember_erasures(self, report: BatchReport) -> None:
        now = self._world.clock.now()
        for user_id in report.erased:
            for seconds in REPEATS_SECONDS:
                heapq.heappush(self._repeats, (now + seconds, user_id))
        if report.erased and self.erased_at is None:
            self.erased_at = now

    async def _repeat_tombstones(self, now: float) -> None:
        due = []
        while self._repeats and self._repeats[0][0] <= now:
            due.append(heapq.heappop(self._repeats)[1])
        if not due:
            return
        states = [from_point(point) for point in await self._world.index.read(Collection.USERS, due)]
        messages = [tombstone_message(state) for state in states if state is not None and state.is_marker]
        if messages:
            await self._world.publisher.send(messages)

    def _guard(self) -> None:
        if self._world.ownership.interrupted() == REBALANCE:
            raise AbandonedError(REBALANCE)

    async def _until_done(self, act: Callable[[], Awaitable[T]]) -> T | None:
        """Try until it is done; None where it was given up (rebalance, stop during a hold)."""
        tries = 0
        while True:
            try:
                result = await act()
            except AbandonedError as error:
                if error.why == REBALANCE:
                    self._set_hold(None)
                    return None
                log.warning("%s; trying again", error)
            except RetryableError as error:
                self._set_hold(error)
            else:
                self._set_hold(None)
                return result
            if self._stopping or self._world.ownership.interrupted() is not None:
                self._set_hold(None)
                return None
            await self._world.clock.sleep(min(BACKOFF_FIRST_SECONDS * 2**tries, BACKOFF_MOST_SECONDS))
            tries += 1

    def _set_hold(self, error: RetryableError | None) -> None:
        if error is None:
            if self.hold is not None:
                log.info("going on after %.1f s", self._world.clock.monotonic() - self.hold.since)
                self.hold = None
                self._on_hold(None)
            return
        if self.hold is None:
            log.warning("holding: %s", error)
            self.hold = Hold(_cause(error), str(error), self._world.clock.monotonic())
            self._on_hold(self.hold)


def _cause(error: RetryableError) -> str:
    if isinstance(error, IndexUnavailableError):
        return "index"
    if isinstance(error, BrokerUnavailableError):
        return "broker"
    return "encoder" if isinstance(error, EncoderFailedError) else "other"
