"""One life of a simulated worker process: the real flow on simulated ports, and the consumer that feeds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from streams.decide.arms import Arms
from streams.decide.history import Bounds
from streams.decide.policy import Policy
from streams.decide.table import Table
from streams.errors import RetryableError
from streams.flow.buffer import Buffer
from streams.flow.catalogue import Catalogue
from streams.flow.fanout import Budget, FanOut
from streams.flow.learning import Learning
from streams.flow.parts import Hooks, Limits, Parts, Setting, World
from streams.flow.quality import Quality
from streams.flow.signals import StatisticsOwner
from streams.flow.texts import TextVectors
from streams.flow.users import Users
from streams.flow.vectors import VectorFeed
from streams.flow.worker import Worker
from streams.values import Message, Record
from tests.simulation.broker import Group, Place
from tests.simulation.oracle import EXCLUDING
from tests.simulation.ports import (
    DIMENSION,
    SimClock,
    SimEncoder,
    SimIndex,
    SimOwnership,
    SimPublisher,
    SimRandomness,
    Time,
    drive,
    offload,
    pause,
)

SESSION_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Knobs:
    """Settings of all workers of a schedule."""

    history_size: int
    exclusions_size: int
    batch_size: int
    flush_seconds: float
    reload_seconds: float
    columns_items: int
    users_cache: int
    fan_out_users: int
    fan_out_per_second: float
    lessons_per_second: float
    list_size: int
    flush_points: int

    @classmethod
    def draw(cls, random: Random, *, lessons: bool) -> Knobs:
        """Rare ones often."""
        fan_out = random.random() < 0.5
        return cls(
            history_size=random.choice((3, 6, 50, 50)),
            exclusions_size=random.choice((2, 10_000)),
            batch_size=random.choice((1, 4, 32)),
            flush_seconds=random.choice((0.05, 0.5, 2.0)),
            reload_seconds=random.choice((0.5, 2.0)),
            columns_items=random.choice((4, 1000, 1000)),
            users_cache=random.choice((0, 2, 100)),
            fan_out_users=10 if fan_out else 0,
            fan_out_per_second=20.0 if fan_out else 0.0,
            lessons_per_second=5.0 if lessons else 0.0,
            list_size=random.choice((2, 10)),
            flush_points=random.choice((1, 2, 32)),
        )


class Process:
    """A worker process. `live` is its main coroutine; the scheduler decides at each stop."""

    def __init__(
        self, name: str, group: Group, time: Time, skew_seconds: float, seed: int, index: SimIndex,
        append: Callable[[Process, Message], Record], knobs: Knobs, encoder: SimEncoder, *, static: bool,
    ) -> None:  # fmt: skip
        self.name = name
        self.static = static
        self.generation = -1
        self.expelled = False
        self.asleep = False
        self.in_hand = False
        """Whether a batch is in hand: between two polls."""
        self.impatient = False
        """Whether its consumer gave partitions away although a batch was in hand."""
        self.round_begun_at = self.round_ends_at = -1.0
        """When the last whole round of taking, working and keeping house began and ended."""
        self.unrepaired: set[str] = set()
        """Users whose list was sent, with the second look at their versions still to come."""
        self._group = group
        self._broker = group.broker
        self.clock = SimClock(time, skew_seconds)
        self.ownership = SimOwnership()
        self.ownership.on_acknowledge = self.unrepaired.clear
        self.ownership.read_ends = lambda: {
            (place[0].value, place[1]): len(log) for place, log in group.broker.logs.items()
        }
        self.index = index
        self._positions: dict[Place, int] = {}
        self._numbers: frozenset[int] = frozenset()
        self.fetch_limit = 4
        table = Table(DIMENSION, knobs.columns_items)
        randomness = SimRandomness(seed)
        self._catalogue = Catalogue(index, table, self.clock, knobs.reload_seconds)
        self._learning = learning = Learning(
            self.clock, knobs.lessons_per_second, VectorFeed(table, encoder.name, randomness.token())
        )
        self._statistics = statistics = StatisticsOwner(index, self.clock, randomness)
        self.publisher = SimPublisher(lambda message: append(self, message), self._broker.partitions, seed + 1)  # type: ignore[arg-type,return-value]
        self._chance = Random(seed + 2)
        setting = Setting(
            World(
                index,
                self.publisher,
                self.ownership,
                self.clock,
                randomness,
            ),
            Parts(
                TextVectors(encoder, offload),
                self._catalogue,
                Users(index, knobs.users_cache),
                statistics,
                learning,
                FanOut(index, self._catalogue, Budget(knobs.fan_out_per_second, self.clock), knobs.fan_out_users),
                Quality(self._catalogue.columns, Arms(Policy(list_size=knobs.list_size))),
            ),
            Arms(Policy(list_size=knobs.list_size)),
            Limits(
                bounds=Bounds(knobs.history_size, 64, knobs.exclusions_size),
                excluding=EXCLUDING,
                record_bytes=2048,
                batch_age_seconds=SESSION_SECONDS / 2,
                quiet_lag=20,
                batch_size=knobs.batch_size,
                items_share=0.25,
                flush_seconds=knobs.flush_seconds,
                flush_points=knobs.flush_points,
            ),
            Hooks(waiting_items=lambda: 0.0),
        )
        self.buffer = Buffer(records=512, bytes_=16_777_216)
        self.worker = Worker(setting, self.buffer, lambda _report: None)
        self._knobs = knobs
        self.coroutine: Any = self._live()
        self.stop: Any = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand and nothing waits to be flushed."""
        return not self.in_hand and not self._statistics.waiting and not self._learning._records

    async def _live(self) -> None:
        while True:
            try:
                await self._catalogue.load()
                await self.worker.upkeep.recover()
                break
            except RetryableError:
                await pause("sleep")
        while True:
            await pause("poll")
            moved = self._group.moving or self.expelled or self.generation != self._group.generation
            if moved and (self.ownership.noticed or not self.expelled):  # a zombie goes on until it notices
                await self._settle()
                self._move()
                continue
            self._fetch()
            taken = self.buffer.take(self._knobs.batch_size, 0.25)
            self.in_hand = self.in_hand or bool(taken)
            await self.worker.step(taken, self.worker.maintain)
            if not self.buffer.waiting and self._chance.random() < 0.5:
                await self._settle()
            self.in_hand = self.worker.under_way

    async def _settle(self) -> None:
        await self.worker.settle()
        self.in_hand = False

    def end(self) -> None:
        """kill -9: nothing runs any more."""
        self.publisher.die()
        if self.stop is None:
            self.coroutine.close()  # it never began, and Python would say so

    def give_away(self) -> None:
        """What the consumer does when partitions are revoked, after waiting for the batch in hand or not."""
        self._positions.clear()
        self.ownership.pending.clear()
        self.ownership.acknowledged.clear()
        self.buffer.clear()
        self.worker.drop()

    def _move(self) -> None:
        """Join the rebalance, or take up what it brought."""
        if self._group.moving:
            if self.name not in self._group.joined:
                self.give_away()
                self._group.join(self)
            self.ownership.noticed = True
        if not self._group.moving:
            self.take_up()

    def take_up(self) -> None:
        """Start reading the partitions that the last rebalance brought, from what is committed."""
        self.generation = self._group.generation
        self._numbers = self._group.assignment.get(self.name, frozenset())
        self.ownership.noticed = False
        self._positions = {place: self._broker.committed[place] for place in self._broker.places_of(self._numbers)}
        owned: dict[str, set[int]] = {}
        for topic, number in self._positions:
            owned.setdefault(topic.value, set()).add(number)
        drive(self.worker.assigned({topic: frozenset(some) for topic, some in owned.items()}))

    def _fetch(self) -> None:
        for place, position in self._positions.items():
            if self.buffer.depth(place[0]) > 100:
                continue
            for record in self._broker.logs[place][position : position + self.fetch_limit]:
                self.ownership.pending.add((record.topic, record.partition, record.offset))
                drive(self.buffer.put(record))
                self._positions[place] = record.offset + 1

    def commit(self, *, forged: bool) -> None:
        """Send what is acknowledged without a gap to the broker."""
        for place, offsets in self.ownership.acknowledged.items():
            at = self._broker.committed[place]
            while at in offsets:
                at += 1
            if at > self._broker.committed[place]:
                self._group.commit(self, place, at, forged=forged)
