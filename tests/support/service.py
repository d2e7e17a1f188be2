"""A worker in memory: the flow as it ships over ports that can be looked into."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from encoder.hashing import HashingEncoder
from streams.decide.arms import Arms
from streams.decide.history import Bounds
from streams.decide.policy import Policy
from streams.decide.table import Table
from streams.flow.buffer import Buffer
from streams.flow.catalogue import Catalogue
from streams.flow.fanout import Budget, FanOut
from streams.flow.learning import Learning
from streams.flow.parts import Hooks, Limits, Parts, Setting, World
from streams.flow.quality import Quality
from streams.flow.report import BatchReport
from streams.flow.signals import StatisticsOwner
from streams.flow.texts import TextVectors
from streams.flow.users import Users, from_point
from streams.flow.vectors import VectorFeed
from streams.flow.worker import Worker
from streams.index.exact import ExactIndex
from streams.ports import Collection
from streams.values import Message, Record, Topic, UserState
from tests.support.memory import CountedRandomness, Log, ManualClock, MemoryOwnership, MemoryPublisher, run_here


class Service:
    """Pipeline, loop and index in one process, without a broker: records in by `feed`, messages out by `publisher`."""

    def __init__(
        self,
        *,
        index: Any = None,
        fan_out: int = 50,
        encoder: HashingEncoder | None = None,
        beside: Service | None = None,
        lessons: float = 0.0,
    ) -> None:
        """`beside`: a worker whose time, log and chances are shared."""
        self.clock = beside.clock if beside else ManualClock()
        self.log = beside.log if beside else Log(self.clock)
        self.randomness = randomness = beside.randomness if beside else CountedRandomness()
        self.index = index or ExactIndex()
        self.publisher = MemoryPublisher()
        self.ownership = MemoryOwnership()
        self.encoder = encoder or HashingEncoder(128)
        self.reports: list[BatchReport] = []
        catalogue = Catalogue(self.index, Table(self.encoder.dimension), self.clock, 1.0)
        self.parts = Parts(
            TextVectors(self.encoder, run_here),
            catalogue,
            Users(self.index, 100),
            StatisticsOwner(self.index, self.clock, randomness),
            Learning(self.clock, lessons, VectorFeed(catalogue.columns, self.encoder.name, f"worker-{id(self)}")),
            FanOut(self.index, catalogue, Budget(1000.0, self.clock), fan_out),
            Quality(catalogue.columns, Arms(Policy(explore=False))),
        )
        self.setting = Setting(
            World(self.index, self.publisher, self.ownership, self.clock, randomness),
            self.parts,
            Arms(Policy(explore=False)),
            Limits(Bounds(50, 64, 100), frozenset({"purchase", "dislike"}), 100_000, 5.0, 100, 256, 0.25, 2.0),
            Hooks(lambda: float(self.ownership.waiting)),
        )
        self._make_worker()

    def _make_worker(self) -> None:
        self.worker = Worker(self.setting, Buffer(records=100, bytes_=1 << 20), self.reports.append)

    def use_debezium(self, columns: Mapping[Topic, Mapping[str, str]]) -> None:
        """These topics carry change events from now on, with these columns by field."""
        limits = dataclasses.replace(self.setting.limits, debezium=columns)
        self.setting = dataclasses.replace(self.setting, limits=limits)
        self._make_worker()

    async def open(self) -> Service:
        """Ready to be fed."""
        await self.index.open(self.encoder.dimension, self.encoder.name)
        await self.worker.upkeep.succession.take_over()
        await self.parts.catalogue.load()
        await self.worker.assigned({topic.value: frozenset({0, 1}) for topic in Topic})
        return self

    async def feed(self, *records: Record) -> list[Message]:
        """One batch, to its end; returns what was sent for it."""
        before = len(self.publisher.sent)
        await self.worker.step(list(records))
        await self.worker.settle()
        return self.publisher.sent[before:]

    async def settle(self) -> None:
        """Give signals and refreshes that were sent back to the worker, and flush."""
        for topic in (Topic.SIGNALS, Topic.REFRESHES):
            waiting = [message for message in self.publisher.sent if message.topic is topic]
            self.publisher.sent[:] = [message for message in self.publisher.sent if message.topic is not topic]
            await self.worker.step([self._returned(message) for message in waiting])
        await self.worker.settle()
        self.clock.at += 3.0
        await self.worker.maintain()

    def _returned(self, message: Message) -> Record:
        key, headers = (message.key or b"").decode(), dict(message.headers)
        return self.log.record(message.topic, key, message.value, partition=message.partition or 0, headers=headers)

    async def state(self, user_id: str) -> UserState | None:
        """What is stored of a user."""
        (point,) = await self.index.read(Collection.USERS, [user_id])
        return from_point(point, user_id)

    def lists(self) -> list[Any]:
        """Recommendations sent so far; None for tombstones."""
        return self.publisher.values(Topic.RECOMMENDATIONS)


def ids(recommendation: dict[str, Any]) -> list[str]:
    """Item ids of a list."""
    return [item["item_id"] for item in recommendation["items"]]


def named(lists: Sequence[dict[str, Any] | None]) -> set[str]:
    """Every id that lists name, as trigger or conflated."""
    return {name for one in lists if one is not None for name in (one["trigger"]["id"], *one["conflated"])}
