"""The loop of a worker: take what waits, process it, hold when a neighbour is away, keep house in between.

Implements the port Intake. One batch is in hand at a time, and while the broker takes the lists of one, the next may be
prepared; nothing is acknowledged before its effects are durable. `step`, `settle` and `maintain` await nothing but ports, so
that the simulator drives them without this loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from streams.errors import AbandonedError
from streams.flow.buffer import Buffer
from streams.flow.flight import Flight, Hold, Patience, Settled
from streams.flow.parts import REBALANCE, Meanwhile, Setting, nothing
from streams.flow.report import BatchReport
from streams.flow.upkeep import Upkeep
from streams.values import Record, Topic

IDLE_SECONDS: Final = 0.5
"""The house is kept at least this often."""
REVOKE_SECONDS: Final = 3.0
STILL_TURNS: Final = 3
"""So many turns of the loop without another record, and a batch is taken."""

log = logging.getLogger(__name__)


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
        self._upkeep = Upkeep(setting)
        self._patience = Patience(setting, on_hold)
        self._flight = Flight(setting, self._patience, self._report)
        self._buffer = buffer
        self._observe = observe
        self._owned: Mapping[str, frozenset[int]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.batches = 0
        """Batches done since the start: what the watchdog looks at."""
        self.assigned_once = False
        self._drops = 0
        self._in_hand = 0

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
            while not self._patience.stopping:
                await self._turn()
            await self.settle()
        finally:
            self._idle.set()
        if self._world.ownership.interrupted() != REBALANCE:
            await self._patience.until_done(self._upkeep.finish)

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
        taken = self._buffer.take(self._flight.most, self._limits.items_share)
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
        while waiting < self._flight.most and still < STILL_TURNS:
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
        return self._buffer.waiting + self._in_hand + self._flight.under_way

    @property
    def hold(self) -> Hold | None:
        """What the batch in hand waits for."""
        return self._patience.hold

    @property
    def under_way(self) -> bool:
        """Whether a batch is under way that is to be settled."""
        return bool(self._flight.under_way)

    def stop(self) -> None:
        """Finish the batch in hand and return from `run`; what waits stays unacknowledged."""
        self._patience.stopping = True
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
            self._flight.conclude()
            if signals:
                await self._patience.until_done(lambda: self._upkeep.fold(signals, check))
            if lessons:
                await self._patience.until_done(lambda: self._upkeep.learn(lessons, check))
            await keep_house()

        main = [record for record in records if record.topic not in {Topic.SIGNALS, Topic.LESSONS}]
        signals = [record for record in records if record.topic is Topic.SIGNALS]
        lessons = [record for record in records if record.topic is Topic.LESSONS]
        if not await (self._flight.process(main, keep) if main else self.settle()):
            return
        await keep()
        if records:
            self.batches += 1

    async def settle(self) -> bool:
        """Wait for the batch under way, and be done with it. False: given up."""
        settled = await self._flight.settle()
        self._flight.conclude()
        return settled is not Settled.GIVEN_UP

    async def maintain(self, *, busy: bool = False) -> None:
        """Whatever is due: flush, reload, expiries, waiting refreshes, repeated tombstones, the model."""
        for act in self._upkeep.due(self._owned, stopping=self._patience.stopping, busy=busy):
            await self._patience.until_done(act)

    def _report(self, report: BatchReport) -> None:
        self._upkeep.remember(report)
        self._observe(report)
