"""Batches on their way: each is tried until it is done or given up, and the next is prepared beside the last.

A neighbour that is away (index, broker, encoder) is waited for: nothing is acknowledged meanwhile. Awaits nothing but ports.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
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
from streams.flow.batch import Batch, Pipeline
from streams.flow.decoded import ComputeError
from streams.flow.parts import REBALANCE, Meanwhile, Setting, nothing
from streams.flow.report import BatchReport
from streams.values import Record, Topic

T = TypeVar("T")

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


class Settled(Enum):
    """What became of the batch under way."""

    DONE = auto()
    """Finished as it was begun, or there was none."""
    REDONE = auto()
    """Finished, but begun anew: what was prepared beside it is out of date."""
    GIVEN_UP = auto()


class Patience:
    """Tries acts until they are done, and says what it waits for."""

    def __init__(self, setting: Setting, on_hold: Callable[[Hold | None], None]) -> None:
        self._clock = setting.world.clock
        self._ownership = setting.world.ownership
        self._hooks = setting.hooks
        self._on_hold = on_hold
        self.hold: Hold | None = None
        self.stopping = False
        """Once set, what does not succeed at its first try is given up."""

    async def until_done(self, act: Callable[[], Awaitable[T]], *, divisible: bool = False) -> T | None:
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
            if self.stopping or self._ownership.interrupted() is not None:
                self._hooks.on_abandoned("stop" if self.stopping else REBALANCE)
                self._set_hold(None)
                return None
            await self._clock.sleep(min(BACKOFF_FIRST_SECONDS * 2**tries, BACKOFF_MOST_SECONDS))
            tries += 1

    def _set_hold(self, error: RetryableError | None) -> None:
        if error is None:
            if self.hold is not None:
                log.info("going on after %.1f s", self._clock.monotonic() - self.hold.since)
                self.hold = None
                self._on_hold(None)
            return
        if self.hold is None:
            log.warning("holding: %s", error)
            self.hold = Hold(_cause(error), str(error), self._clock.monotonic())
            self._on_hold(self.hold)


class Flight:
    """The batch in hand, and the one before it whose lists the broker is taking."""

    def __init__(self, setting: Setting, patience: Patience, observe: Callable[[BatchReport], None]) -> None:
        self._pipeline = Pipeline(setting)
        self._patience = patience
        self._observe = observe
        self._batch_size = setting.limits.batch_size
        self.most = self._batch_size
        """Records in a batch at most, at present: halved by a batch that grew too old, and growing again slowly."""
        self._under_way: Batch | None = None
        """Committed: the broker is taking its lists."""
        self._finished: list[Batch] = []
        """… and done, but for what they teach."""

    @property
    def under_way(self) -> int:
        """Records of the batch that is to be settled; 0 where there is none."""
        return len(self._under_way.records) if self._under_way is not None else 0

    async def process(self, records: Sequence[Record], meanwhile: Meanwhile) -> bool:
        """Process records, in halves where they grew too old together, since they would again. False: given up."""
        prepared = await self._prepare_beside(records)
        settled = await self.settle()
        if settled is Settled.GIVEN_UP:
            return False
        if settled is Settled.REDONE:
            prepared = None

        async def begin() -> Batch:
            nonlocal prepared
            ready, prepared = prepared, None
            try:
                return await self._pipeline.begin(records, ready, meanwhile)
            except ColdstreamError:  # the one before was not given up: it is told of first
                self.conclude()
                raise

        try:
            self._under_way = await self._patience.until_done(begin, divisible=len(records) > 1)
        except AbandonedError:
            return await self._process_halves(records, meanwhile)
        if self._under_way is None:
            return False
        self.most = min(self.most + GROWTH, self._batch_size)
        return True

    async def _process_halves(self, records: Sequence[Record], meanwhile: Meanwhile) -> bool:
        self.most = middle = len(records) // 2
        return await self.process(records[:middle], meanwhile) and await self.process(records[middle:], meanwhile)

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

    async def settle(self) -> Settled:
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
            done = await self._patience.until_done(finish, divisible=len(records) > 1)
        except AbandonedError:
            if await self._process_halves(records, nothing) and await self.settle() is not Settled.GIVEN_UP:
                return Settled.REDONE
            return Settled.GIVEN_UP
        if done is None:
            return Settled.GIVEN_UP
        self._finished.append(done)
        return Settled.DONE if done is first else Settled.REDONE

    def conclude(self) -> None:
        """What the finished batches teach, and their reports."""
        finished, self._finished = self._finished, []
        for batch in finished:
            report = self._pipeline.conclude(batch)
            self._observe(report)


def _cause(error: RetryableError) -> str:
    if isinstance(error, IndexUnavailableError):
        return "index"
    if isinstance(error, BrokerUnavailableError):
        return "broker"
    return "encoder" if isinstance(error, EncoderFailedError) else "other"
