"""What a worker does beside its batches: statistics, lessons, expiries, waiting refreshes, repeated tombstones.

Each act is tried again by the loop while a neighbour is away, so each is written to be repeated without harm. Awaits
nothing but ports.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from streams.decide.history import Outcome
from streams.errors import AbandonedError, PoisonError
from streams.flow.decoded import bury
from streams.flow.learning import decode_lessons
from streams.flow.lists import Lists
from streams.flow.parts import REBALANCE, Setting
from streams.flow.recommend import tombstone_message
from streams.flow.report import BatchReport
from streams.flow.signals import decode_signals
from streams.flow.succession import Succession
from streams.flow.users import REPEATS_SECONDS, UserWork, from_point, to_point
from streams.ports import Collection, Match, Write
from streams.values import ItemRecord, Message, Record, Topic, Trigger, TriggerKind, UserState

LOOK_BACK_SECONDS: Final = 3600.0
"""What came or went by time alone so long before a partition of items became ours is looked at once more."""
RECOVERED_MOST: Final = 10_000
RECOVERED_SECONDS: Final = 7 * 86_400.0
"""Erasures up to this old whose tombstones nobody repeated (all workers stood still) are found at the start."""

Act = Callable[[], Awaitable[object]]


class Upkeep:
    """Holds only what may be lost: an erasure's repetitions are found again in the index."""

    def __init__(self, setting: Setting) -> None:
        self._world = setting.world
        self._limits = setting.limits
        self._parts = setting.parts
        self._lists = Lists(setting)
        world, texts = setting.world, setting.parts.texts
        self.succession = Succession(
            world.index,
            texts.encoder,
            texts.encode,
            world.clock,
            world.randomness,
            self._parts.catalogue.reload_seconds,
        )
        self._flushed_at = setting.world.clock.monotonic()
        self._ticked: dict[int, float] = {}
        """Until when each owned partition of items was looked at for what time alone changed."""
        self._repeats: list[tuple[float, str, bool]] = []
        """When, whose, and whether it is the last time."""
        self._withdrawn: list[str] = []
        """Items that other workers withdrew, whose users are still to be looked for."""
        self.erased_at: float | None = None
        """Wall-clock time of the oldest erasure whose bytes may still lie in the index's files; reset by who purges."""

    async def recover(self) -> None:
        """Find the erasures whose tombstones are to be repeated: markers that have a name yet. Called once, at the start.

        Nobody knows whether the last process purged after the last erasure: where there is a marker, it is done again.
        """
        now = self._world.clock.now()
        if await self._world.index.find(Collection.USERS, Match(equals={"marker": True}), 1):
            self.erased_at = now
        recent = Match(equals={"marker": True}, at_least={"erased_at": now - RECOVERED_SECONDS})
        for hit in await self._world.index.find(Collection.USERS, recent, RECOVERED_MOST):
            erased_at = hit.fields.get("erased_at")
            if hit.key and isinstance(erased_at, float):
                self._repeat(hit.key, erased_at)

    def due(self, owned: Mapping[str, frozenset[int]], *, stopping: bool, busy: bool) -> Iterator[Act]:
        """The acts that are due now, one after the other. `busy`: records may be waiting, so that none takes long."""
        clock, statistics = self._world.clock, self._parts.statistics
        if stopping or statistics.flushing or clock.monotonic() - self._flushed_at >= self._limits.flush_seconds:
            if stopping:
                yield self.finish
            else:
                yield lambda: self._flush(self._limits.flush_points if busy else None)
            if not statistics.flushing:
                self._flushed_at = clock.monotonic()
        if not busy:  # else they go with the next lists
            yield self._send_lessons
        yield self._reload
        yield lambda: self._turn(owned)
        yield self._repeat_tombstones

    def remember(self, report: BatchReport) -> None:
        """Whom a batch erased."""
        now = self._world.clock.now()
        for user_id in report.erased:
            self._repeat(user_id, now)
        if report.outcomes[Topic.USERS.value, Outcome.ERASED.value] and self.erased_at is None:
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
        good, foreign, dead = decode_lessons(records)
        await self._bury(dead)
        check()
        self._parts.learning.take(good, [*foreign, *(record for record, _ in dead)])

    async def finish(self) -> None:
        """Flush, and publish what was learned or is to be, whether due or not."""
        await self._send_lessons()
        while self._parts.statistics.flushing:
            await self._flush()
        await self._flush(now=True)

    async def _send_lessons(self) -> None:
        lessons = self._parts.learning.outgoing()
        if lessons:
            await self._world.publisher.send(lessons)

    async def _flush(self, most: int | None = None, *, now: bool = False) -> None:
        if self._parts.statistics.waiting:
            self._world.ownership.acknowledge(await self._parts.statistics.flush(self._guard, most))
        done = await self._parts.learning.publish(self._world.publisher, now=now)
        if done:
            self._world.ownership.acknowledge(done)

    async def _reload(self) -> None:
        """What others changed. Who withdrew an item has refreshed the lists that held it; those that were made since,
        by workers that did not know yet, are refreshed by them.
        """
        await self.succession.follow()
        self._withdrawn += await self._parts.catalogue.reload()
        if self._withdrawn:
            messages, _ = await self._parts.fan_out.withdrawn(self._withdrawn, self._world.clock.now())
            if messages:
                await self._world.publisher.send(messages)
            self._withdrawn.clear()

    async def _turn(self, owned: Mapping[str, frozenset[int]]) -> None:
        """Items of ours whose time has come or gone since the last look, then what waits for the budget.

        Of a partition that is newly ours, the last owner may have died before what came or went of late.
        """
        now = self._world.clock.now()
        mine = owned.get(Topic.ITEMS.value, frozenset())
        looked = {partition: self._ticked.get(partition, now - LOOK_BACK_SECONDS) for partition in mine}
        arrived, withdrawn = self._parts.catalogue.turned(min(looked.values(), default=now), now)
        came = [record for record in arrived if _is_later(record, record.published_at, looked)]
        went = [record.item_id for record in withdrawn if _is_later(record, record.expires_at, looked)]
        messages: list[Message] = []
        if came:
            messages += (await self._parts.fan_out.arrived(came, now))[0]
        if went:
            messages += (await self._parts.fan_out.withdrawn(went, now))[0]
        messages += self._parts.fan_out.due()
        if messages:
            await self._world.publisher.send(messages)
        self._ticked = dict.fromkeys(mine, now)

    def _repeat(self, user_id: str, erased_at: float) -> None:
        for seconds in REPEATS_SECONDS:
            heapq.heappush(self._repeats, (erased_at + seconds, user_id, seconds == REPEATS_SECONDS[-1]))

    async def _repeat_tombstones(self) -> None:
        now = self._world.clock.now()
        due = {user_id: last for at, user_id, last in sorted(self._repeats) if at <= now}
        if due:
            points = await self._world.index.read(Collection.USERS, list(due))
            states = [from_point(point, user_id) for user_id, point in zip(due, points, strict=True)]
            erased = [state for state in states if state is not None and state.is_marker]
            if erased:
                await self._world.publisher.send([tombstone_message(state) for state in erased])
                await self._lists.repair([_work_of(state, now) for state in erased])
                await self._unname([state for state in erased if due[state.user_id]])
        while self._repeats and self._repeats[0][0] <= now:
            heapq.heappop(self._repeats)

    async def _unname(self, markers: Sequence[UserState]) -> None:
        """Nobody needs to know any more whose these markers are. Who has written one meanwhile knows that too."""
        if not self._world.index.shared:
            return  # there it was never stored
        writes = []
        for marker in markers:
            token = self._world.randomness.token()
            state = msgspec.structs.replace(marker, version=marker.version + 1, write_id=token)
            writes.append(Write(to_point(UserWork(marker.user_id, []), state, named=False), marker.version))
        await self._world.index.write(Collection.USERS, writes)
        self._parts.users.forget(marker.user_id for marker in markers)

    async def _bury(self, dead: Sequence[tuple[Record, PoisonError]]) -> None:
        if dead:
            now = self._world.clock.now()
            await self._world.publisher.send([bury(record, error, now) for record, error in dead])

    def _guard(self) -> None:
        if self._world.ownership.interrupted() == REBALANCE:
            raise AbandonedError(REBALANCE)


def _is_later(record: ItemRecord, at: float | None, looked: Mapping[int, float]) -> bool:
    """Whether that time of an item lies behind the last look at its partition; False for partitions of others."""
    return at is not None and record.source is not None and at > looked.get(record.source.partition, at)


def _work_of(state: UserState, now: float) -> UserWork:
    """An erased user as somebody whose tombstone was just sent: who has come back meanwhile gets their list again."""
    work = UserWork(state.user_id, [])
    work.met = work.state = state
    work.triggers = [Trigger(TriggerKind.USER, state.user_id, now, now)]
    return work
