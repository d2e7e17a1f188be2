"""What a worker does beside its batches: statistics, lessons, expiries, waiting refreshes, repeated tombstones.

Each act is tried again by the loop while a neighbour is away, so each is written to be repeated without harm. Awaits
nothing but ports.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from streams.errors import AbandonedError, PoisonError
from streams.flow.decoded import bury
from streams.flow.learning import decode_lessons
from streams.flow.lists import Lists
from streams.flow.parts import REBALANCE, Setting
from streams.flow.recommend import tombstone_message
from streams.flow.report import BatchReport
from streams.flow.signals import decode_signals
from streams.flow.users import UserWork, from_point
from streams.ports import Collection, Match
from streams.values import Message, Record, Topic, Trigger, TriggerKind, UserState

REPEATS_SECONDS: Final = (60.0, 3600.0)
"""A tombstone is repeated so long after an erasure: a zombie may have written a list after it."""
RECOVERED_MOST: Final = 10_000

Act = Callable[[], Awaitable[object]]


class Upkeep:
    """Holds only what may be lost: an erasure's repetitions are found again in the index."""

    def __init__(self, setting: Setting) -> None:
        self._world = setting.world
        self._limits = setting.limits
        self._parts = setting.parts
        self._lists = Lists(setting)
        self._flushed_at = setting.world.clock.monotonic()
        self._ticked_at = setting.world.clock.now()
        self._repeats: list[tuple[float, str]] = []
        self._withdrawn: list[str] = []
        """Items that other workers withdrew, whose users are still to be looked for."""
        self.erased_at: float | None = None
        """Wall-clock time of the oldest erasure whose bytes may still lie in the index's files; reset by who purges."""

    async def recover(self) -> None:
        """Find the erasures of the last hour: their tombstones are to be repeated. Called once, at the start.

        Nobody knows whether the last process purged after the last erasure: where there is a marker, it is done again.
        """
        now = self._world.clock.now()
        if await self._world.index.find(Collection.USERS, Match(equals={"marker": True}), 1):
            self.erased_at = now
        recent = Match(equals={"marker": True}, at_least={"erased_at": now - REPEATS_SECONDS[-1]})
        for hit in await self._world.index.find(Collection.USERS, recent, RECOVERED_MOST):
            erased_at = hit.fields.get("erased_at")
            if isinstance(erased_at, float):
                self._repeat(hit.key, erased_at)

    def due(self, owned: Mapping[str, frozenset[int]], *, stopping: bool) -> Iterator[Act]:
        """The acts that are due now, one after the other."""
        clock = self._world.clock
        if stopping or clock.monotonic() - self._flushed_at >= self._limits.flush_seconds:
            yield self.finish if stopping else self._flush
            self._flushed_at = clock.monotonic()
        yield self._reload
        yield lambda: self._turn(owned)
        yield self._repeat_tombstones

    def remember(self, report: BatchReport) -> None:
        """Whom a batch erased."""
        now = self._world.clock.now()
        for user_id in report.erased:
            self._repeat(user_id, now)
        if report.erased and self.erased_at is None:
            self.erased_at = now

    async def fold(self, records: Sequence[Record], check: Callable[[], None]) -> None:
        """Records of `signals` into statistics and columns; what is none is buried.

        `check` raises `AbandonedError` once the records were given away: their owner reads all that is unflushed again.
        """
        good, dead = [], []
        for record in records:
            try:
                good.append((record, decode_signals(record)))
            except PoisonError as error:
                dead.append((record, error))
        await self._bury(dead)
        check()
        await self._parts.statistics.take(good, self._parts.catalogue.columns)
        self._parts.statistics.pass_over([record for record, _ in dead])

    async def learn(self, records: Sequence[Record], check: Callable[[], None]) -> None:
        """Records of `lessons` into the ranker; what is none is buried. `check`: see `fold`."""
        good, dead = decode_lessons(records)
        await self._bury(dead)
        check()
        self._parts.learning.take(good, [record for record, _ in dead])

    async def finish(self) -> None:
        """Flush and publish what was learned, whether due or not."""
        await self._flush(now=True)

    async def _flush(self, *, now: bool = False) -> None:
        if self._parts.statistics.waiting:
            self._world.ownership.acknowledge(await self._parts.statistics.flush(self._guard))
        done = await self._parts.learning.publish(self._world.publisher, now=now)
        if done:
            self._world.ownership.acknowledge(done)

    async def _reload(self) -> None:
        """What others changed. Who withdrew an item has refreshed the lists that held it; those that were made since,
        by workers that did not know yet, are refreshed by them.
        """
        self._withdrawn += await self._parts.catalogue.reload()
        if self._withdrawn:
            messages, _ = await self._parts.fan_out.withdrawn(self._withdrawn, self._world.clock.now())
            if messages:
                await self._world.publisher.send(messages)
            self._withdrawn.clear()

    async def _turn(self, owned: Mapping[str, frozenset[int]]) -> None:
        """Items of ours whose time has come or gone since the last look, then what waits for the budget."""
        mine = owned.get(Topic.ITEMS.value, frozenset())
        now = self._world.clock.now()
        arrived, withdrawn = self._parts.catalogue.turned(self._ticked_at, now)
        came = [record for record in arrived if record.source is not None and record.source.partition in mine]
        went = [record.item_id for record in withdrawn if record.source is not None and record.source.partition in mine]
        messages: list[Message] = []
        if came:
            messages += (await self._parts.fan_out.arrived(came, now))[0]
        if went:
            messages += (await self._parts.fan_out.withdrawn(went, now))[0]
        messages += self._parts.fan_out.due()
        if messages:
            await self._world.publisher.send(messages)
        self._ticked_at = now

    def _repeat(self, user_id: str, erased_at: float) -> None:
        for seconds in REPEATS_SECONDS:
            heapq.heappush(self._repeats, (erased_at + seconds, user_id))

    async def _repeat_tombstones(self) -> None:
        now = self._world.clock.now()
        due = [user_id for at, user_id in self._repeats if at <= now]
        if due:
            points = await self._world.index.read(Collection.USERS, due)
            erased = [state for point in points if (state := from_point(point)) is not None and state.is_marker]
            if erased:
                await self._world.publisher.send([tombstone_message(state) for state in erased])
                await self._lists.repair([_work_of(state, now) for state in erased])
        while self._repeats and self._repeats[0][0] <= now:
            heapq.heappop(self._repeats)

    async def _bury(self, dead: Sequence[tuple[Record, PoisonError]]) -> None:
        if dead:
            now = self._world.clock.now()
            await self._world.publisher.send([bury(record, error, now) for record, error in dead])

    def _guard(self) -> None:
        if self._world.ownership.interrupted() == REBALANCE:
            raise AbandonedError(REBALANCE)


def _work_of(state: UserState, now: float) -> UserWork:
    """An erased user as somebody whose tombstone was just sent: who has come back meanwhile gets their list again."""
    work = UserWork(state.user_id, [])
    work.met = work.state = state
    work.triggers = [Trigger(TriggerKind.USER, state.user_id, now, now)]
    return work
