"""The loop of a worker: take what waits, process it, hold when a neighbour is away, keep house in between.

Implements the port Intake. One batch is in hand at a time, and while the broker takes the lists of one, the next may be
prepared; nothing is acknowledged before its effects are durable. `step`, `settle` and `maintain` await nothing but ports, so
that the simulator drives them without this loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeVar

from streams.errors import (
    AbandonedError,
    BrokerUnavailableError,
    ColdstreamError,
    EncoderFailedError,
    IndexUnavailableError,
    RetryableError,
)
from streams.flow.batch import Batch, Meanwhile, Pipeline, nothing
from streams.flow.buffer import Buffer
from streams.flow.decoded import ComputeError
from streams.flow.parts import REBALANCE, Setting
from streams.flow.report import BatchReport
from streams.flow.upkeep import Upkeep
from streams.values import Record, Topic

T = TypeVar("T")

IDLE_SECONDS: Final = 0.5
"""The house is kept at least this often."""
REVOKE_SECONDS: Final = 3.0
BACKOFF_FIRST_SECONDS: Final = 0.05
BACKOFF_MOST_SECONDS: Final = 2.0
STILL_TURNS: Final = 3
"""So many turns of the loop without another record, and a batch is taken."""
GROWTH: Final = 8
"""Records by which a batch may be larger than the one before, after one was halved."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hold:
    """The batch in hand waits for a neighbour."""

    cause: str
    """index, broker or encoder."""
    reason: str
    since: float
    """Monotonic seconds."""


class Settled(Enum):
    """What became of the batch under way."""

    DONE = auto()
    """Finished as it was begun, or there was none."""
    REDONE = auto()
    """Finished, but begun anew: what was prepared beside it is out of date."""
    GIVEN_UP = auto()


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
        self._hooks = setting.hooks
        self._parts = setting.parts
        self._pipeline = Pipeline(setting)
        self._upkeep = Upkeep(setting)
        self._buffer = buffer
        self._observe = observe
        self._on_hold = on_hold
        self._owned: Mapping[str, frozenset[int]] = {}
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.hold: Hold | None = None
        self.batches = 0
        """Batches done since the start: what the watchdog looks at."""
        self.assigned_once = False
        self._drops = 0
        self._in_hand = 0
        self._under_way: Batch | None = None
        """Committed: the broker is taking its lists."""
        self._finished: list[Batch] = []
        """… and done, but for what they teach."""
        self._most = setting.limits.batch_size
        """Records in a batch at most, at present: halved by a batch that grew too old, and growing again slowly."""

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
        self._drops += 1
        self._parts.users.forget()
        self._parts.statistics.drop()
        self._parts.learning.drop()

    async def assigned(self, partitions: Mapping[str, frozenset[int]]) -> None:
        """The partitions owned from now on."""
        self._owned = partitions
        self.assigned_once = True

    # -- the loop

    async def run(self) -> None:
        """Until `stop`. Raises `FatalError`, and whatever is a defect; both end the process."""
        try:
            while not self._stopping:
                await self._turn()
            await self.settle()
        finally:
            self._idle.set()
        if self._world.ownership.interrupted() != REBALANCE:
            await self._until_done(self._upkeep.finish)

    async def _turn(self) -> None:
        moving = self._world.ownership.interrupted() == REBALANCE
        if moving or not self._buffer.waiting:
            await self.settle()
            self._idle.set()
        if moving:
            await self._world.clock.sleep(0.02)
            return
        await self._buffer.wait(0.0 if self._parts.catalogue.look else IDLE_SECONDS)
        if self._world.ownership.interrupted() == REBALANCE:
            return
        self._idle.clear()
        await self._let_in()
        taken = self._buffer.take(self._most, self._limits.items_share)
        self._in_hand = len(taken)
        try:
            await self.step(taken, lambda: self.maintain(busy=bool(taken)))
        finally:
            self._in_hand = 0

    async def _let_in(self) -> None:
        """Give those who hand in records the loop for as long as more come: they hand in one a turn, and batches of many
        are cheaper.
        """
        waiting, still = -1, 0
        while waiting < self._most and still < STILL_TURNS:
            still = 0 if self._buffer.waiting > waiting else still + 1
            waiting = self._buffer.waiting
            await asyncio.sleep(0)

    @property
    def upkeep(self) -> Upkeep:
        """What is done beside the batches."""
        return self._upkeep

    @property
    def waiting(self) -> int:
        """Records taken over that are not done: buffered, and in the batch in hand."""
        under_way = len(self._under_way.records) if self._under_way is not None else 0
        return self._buffer.waiting + self._in_hand + under_way

    @property
    def busy(self) -> bool:
        """Whether a batch is under way that is to be settled."""
        return self._under_way is not None

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`; what waits stays unacknowledged."""
        self._stopping = True
        self._buffer.wake()

    async def step(self, records: Sequence[Record], keep_house: Meanwhile = nothing) -> None:
        """Process what was taken: all of it, or none (abandoned).

        The lists may still be on their way when it returns: `settle`, or the next step, waits for them. Signals and
        lessons are folded, and `keep_house` called, while the broker takes the signals of the batch.
        """
        drops, kept = self._drops, False

        def check() -> None:
            """What was taken before a rebalance must not be folded behind it: what comes before it would be missing."""
            if self._drops != drops:
                raise AbandonedError(REBALANCE)

        async def keep() -> None:
            nonlocal kept
            if kept:
                return
            kept = True
            self._conclude()
            if signals:
                await self._until_done(lambda: self._upkeep.fold(signals, check))
            if lessons:
                await self._until_done(lambda: self._upkeep.learn(lessons, check))
            await keep_house()

        main = [record for record in records if record.topic not in {Topic.SIGNALS, Topic.LESSONS}]
        signals = [record for record in records if record.topic is Topic.SIGNALS]
        lessons = [record for record in records if record.topic is Topic.LESSONS]
        if not await (self._process(main, keep) if main else self.settle()):
            return
        await keep()
        if records:
            self.batches += 1

    async def settle(self) -> bool:
        """Wait for the batch under way, and be done with it. False: given up."""
        settled = await self._settle()
        self._conclude()
        return settled is not Settled.GIVEN_UP

    async def _process(self, records: Sequence[Record], meanwhile: Meanwhile) -> bool:
        """Process records, in halves where they grew too old together, since they would again. False: given up."""
        prepared = await self._prepare_beside(records)
        settled = await self._settle()
        if settled is Settled.GIVEN_UP:
            return False
        if settled is Settled.REDONE:
            prepared = None

        async def begin() -> Batch:
            nonlocal prepared
            ready, prepared = prepared, None
            return await self._pipeline.begin(records, ready, meanwhile)

        try:
            self._under_way = await self._until_done(begin, divisible=len(records) > 1)
        except AbandonedError:
            return await self._process_halves(records, meanwhile)
        if self._under_way is None:
            return False
        self._most = min(self._most + GROWTH, self._limits.batch_size)
        return True

    async def _process_halves(self, records: Sequence[Record], meanwhile: Meanwhile) -> bool:
        self._most = middle = len(records) // 2
        return await self._process(records[:middle], meanwhile) and await self._process(records[middle:], meanwhile)

    async def _prepare_beside(self, records: Sequence[Record]) -> Batch | None:
        """Prepare while the lists of the last batch are on their way; None where that isn't so, or it failed: once more then.

        Items are not: they are written before they are shown, so that others would see them.
        """
        if self._under_way is None or any(record.topic is Topic.ITEMS for record in records):
            return None
        try:
            return await self._pipeline.prepare(records)
        except (ComputeError, ColdstreamError) as error:
            log.debug("preparing again: %s", error)
            return None

    async def _settle(self) -> Settled:
        """Finish the batch under way; where the broker or the index is away meanwhile, begin it again."""
        batch, self._under_way = self._under_way, None
        if batch is None:
            return Settled.DONE
        first, records = batch, batch.records

        async def finish() -> Batch:
            nonlocal batch
            current, batch = batch, None
            current = current or await self._pipeline.begin(records)
            await self._pipeline.finish(current)
            return current

        try:
            done = await self._until_done(finish, divisible=len(records) > 1)
        except AbandonedError:
            if await self._process_halves(records, nothing) and await self._settle() is not Settled.GIVEN_UP:
                return Settled.REDONE
            return Settled.GIVEN_UP
        if done is None:
            return Settled.GIVEN_UP
        self._finished.append(done)
        return Settled.DONE if done is first else Settled.REDONE

    def _conclude(self) -> None:
        """What the finished batches teach, and their reports."""
        finished, self._finished = self._finished, []
        for batch in finished:
            report = self._pipeline.conclude(batch)
            self._upkeep.remember(report)
            self._observe(report)

    async def maintain(self, *, busy: bool = False) -> None:
        """Whatever is due: flush, reload, expiries, waiting refreshes, repeated tombstones, the model."""
        for act in self._upkeep.due(self._owned, stopping=self._stopping, busy=busy):
            await self._until_done(act)

    async def _until_done(self, act: Callable[[], Awaitable[T]], *, divisible: bool = False) -> T | None:
        """Try until it is done; None where it was given up (rebalance, stop during a hold).

        Raises `AbandonedError` for what grew too old, where it is divisible.
        """
        tries = 0
        while True:
            try:
                result = await act()
            except AbandonedError as error:
                self._hooks.on_abandoned(error.why)
                if error.why == REBALANCE:
                    self._set_hold(None)
                    return None
                log.warning("%s; trying again%s", error, " in halves" if divisible else "")
                if divisible:
                    raise
            except RetryableError as error:
                self._set_hold(error)
            else:
                self._set_hold(None)
                return result
            if self._stopping or self._world.ownership.interrupted() is not None:
                self._hooks.on_abandoned("stop" if self._stopping else REBALANCE)
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
