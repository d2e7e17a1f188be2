"""The loop of a worker: take what waits, process it, hold when a neighbour is away, keep house in between.

Implements the port Intake. One batch is in flight at a time; nothing is acknowledged before its effects are durable.
`step` and `maintain` await nothing but ports, so that the simulator drives them without this loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from streams.errors import (
    AbandonedError,
    BrokerUnavailableError,
    EncoderFailedError,
    IndexUnavailableError,
    RetryableError,
)
from streams.flow.batch import Pipeline
from streams.flow.buffer import Buffer
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
        while not self._stopping:
            await self._buffer.wait(0.0 if self._parts.catalogue.look else IDLE_SECONDS)
            if self._world.ownership.interrupted() == REBALANCE:
                await self._world.clock.sleep(0.02)
                continue
            self._idle.clear()
            try:
                taken = self._buffer.take(self._most, self._limits.items_share)
                self._in_hand = len(taken)
                await self.step(taken)
                await self.maintain(busy=bool(taken))
            finally:
                self._in_hand = 0
                self._idle.set()
        if self._world.ownership.interrupted() != REBALANCE:
            await self._until_done(self._upkeep.finish)

    @property
    def upkeep(self) -> Upkeep:
        """What is done beside the batches."""
        return self._upkeep

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
        drops = self._drops

        def check() -> None:
            """What was taken before a rebalance must not be folded behind it: what comes before it would be missing."""
            if self._drops != drops:
                raise AbandonedError(REBALANCE)

        main = [record for record in records if record.topic not in {Topic.SIGNALS, Topic.LESSONS}]
        signals = [record for record in records if record.topic is Topic.SIGNALS]
        lessons = [record for record in records if record.topic is Topic.LESSONS]
        if main and not await self._process(main):
            return
        if signals:
            await self._until_done(lambda: self._upkeep.fold(signals, check))
        if lessons:
            await self._until_done(lambda: self._upkeep.learn(lessons, check))
        self.batches += 1

    async def _process(self, records: Sequence[Record]) -> bool:
        """Process records, in halves where they grew too old together, since they would again. False: given up."""
        try:
            report = await self._until_done(lambda: self._pipeline.process(records), divisible=len(records) > 1)
        except AbandonedError:
            self._most = middle = len(records) // 2
            return await self._process(records[:middle]) and await self._process(records[middle:])
        if report is None:
            return False
        self._most = min(self._most + GROWTH, self._limits.batch_size)
        self._upkeep.remember(report)
        self._observe(report)
        return True

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
