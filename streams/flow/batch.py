"""One batch on its way (DELIVERY section 1):

    decode → load → apply → embed → items → rank → SIGNALS → PERSIST users → LISTS, refreshes, dead letters → acknowledge

Everything before SIGNALS is invisible to others and may fail or be given up at any point. Redelivered records change no
state, but their lists are made and sent again. This module awaits nothing but ports, so that the simulator can stop the
world at each await.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from streams.decide.history import Bounds
from streams.decide.policy import Policy
from streams.errors import AbandonedError, ColdstreamError, PoisonError
from streams.flow.catalogue import Catalogue
from streams.flow.decoded import ItemInput, UserInput, bury, decode
from streams.flow.fanout import FanOut
from streams.flow.items import Items, ItemWork
from streams.flow.learning import Learning
from streams.flow.persist import persist
from streams.flow.recommend import list_message, rank_works, to_recommendation, tombstone_message, wanted_texts
from streams.flow.report import BatchReport, Emission
from streams.flow.signals import signal_messages
from streams.flow.texts import TextVectors
from streams.flow.users import Users, UserWork, from_point, mark_refreshes, to_point
from streams.ports import Clock, Collection, Index, Ownership, Point, Publisher, Randomness, Write
from streams.values import Message, Record, Topic
from streams.wire import Recommendation


OnList = Callable[[Recommendation, float | None], None]
"""Told of each list that was delivered, and how many seconds after the record that it answers (None: a repeated one)."""
REBALANCE: Final = "rebalance"


class _ComputeError(Exception):
    """Decoding passed, but applying, embedding or ranking failed: some record of the batch is at fault."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The pipeline's own settings."""

    bounds: Bounds
    excluding: frozenset[str]
    """Event types that policy excludes items by."""
    record_bytes: int
    batch_age_seconds: float
    """A batch older than this may belong to somebody else by now: half the session timeout."""
    quiet_lag: int
    """More waiting item records than this: a first import, no fan-out."""


@dataclass(frozen=True, slots=True)
class World:
    """The ports that a batch touches."""

    index: Index
    publisher: Publisher
    ownership: Ownership
    clock: Clock
    randomness: Randomness


class Pipeline:
    """Processes batches one at a time. Holds no record between two calls."""

    def __init__(
        self, world: World, texts: TextVectors, catalogue: Catalogue, users: Users, learning: Learning,
        fan_out: FanOut, policy: Policy, limits: Limits, waiting_items: Callable[[], float],
        on_list: OnList = lambda _list, _seconds: None,
    ) -> None:  # fmt: skip
        self._world = world
        self._texts = texts
        self._catalogue = catalogue
        self._users = users
        self._learning = learning
        self._fan_out = fan_out
        self._policy = policy
        self._limits = limits
        self._waiting_items = waiting_items
        self._on_list = on_list
        self._items = Items(world.index, texts.encoder, world.clock, world.randomness)

    async def process(self, records: Sequence[Record]) -> BatchReport:
        """All the way to the acknowledgement.

        A record that makes a computation fail is found by running the batch singly, and buried. Raises `RetryableError`
        (nothing was acknowledged: call again), `AbandonedError` (give the batch up or, for its age, call again) and
        `FatalError`.
        """
        try:
            return await self._process(records)
        except _ComputeError as error:
            if len(records) == 1:
                poison = PoisonError("processing", f"{type(error.__cause__).__name__}: {error.__cause__}")
                return await self._bury_alone(records[0], poison)
        report = BatchReport()
        for record in records:
            report.add(await self.process([record]))
        return report

    async def _bury_alone(self, record: Record, error: PoisonError) -> BatchReport:
        report = BatchReport()
        report.records[record.topic.value] += 1
        report.dead_letters[error.reason] += 1
        await self._world.publisher.send([bury(record, error, self._world.clock.now())])
        self._world.ownership.acknowledge([record])
        return report

    async def _process(self, records: Sequence[Record]) -> BatchReport:
        clock = self._world.clock
        begun = clock.monotonic()

        def guard() -> None:
            if self._world.ownership.interrupted() == REBALANCE:  # a stop finishes the batch in hand
                raise AbandonedError(REBALANCE)
            if clock.monotonic() - begun > self._limits.batch_age_seconds:
                raise AbandonedError("age")

        report = BatchReport()
        items, users, dead = self._decode(records, report)
        with self._stage(report, "load"):
            item_works = await self._load_items(items)
            user_works = await self._load_users(users, report)
        with self._stage(report, "embed"):
            await self._embed(item_works, user_works, report)
        with self._stage(report, "items"):
            report.lost_writes += await self._items.write(item_works, self._texts.encode, guard)
            self._catalogue.put(item_works)
        with self._stage(report, "rank"):
            await self._rank(user_works)
        with self._stage(report, "signals"):
            guard()
            await self._send_signals(user_works, report)
        with self._stage(report, "persist"):
            await self._persist(user_works, guard, report)
        with self._stage(report, "emit"):
            guard()
            await self._emit(item_works, user_works, dead, report)
        self._world.ownership.acknowledge(records)
        self._count(item_works, user_works, report)
        return report

    def _decode(
        self, records: Sequence[Record], report: BatchReport
    ) -> tuple[list[ItemInput], list[UserInput], list[Message]]:
        items: list[ItemInput] = []
        users: list[UserInput] = []
        dead: list[Message] = []
        with self._stage(report, "decode"):
            for record in records:
                report.records[record.topic.value] += 1
                try:
                    entry = decode(record, self._limits.record_bytes)
                except PoisonError as error:
                    report.dead_letters[error.reason] += 1
                    dead.append(bury(record, error, self._world.clock.now()))
                    continue
                if isinstance(entry, ItemInput):
                    items.append(entry)
                else:
                    users.append(entry)
        return items, users, dead

    async def _load_items(self, inputs: Sequence[ItemInput]) -> list[ItemWork]:
        works = await self._items.load(inputs)
        with _computing():
            for work in works:
                work.apply(work.found, work.found_vector)
        return works

    async def _load_users(self, inputs: Sequence[UserInput], report: BatchReport) -> list[UserWork]:
        works: dict[str, UserWork] = {}
        for entry in inputs:
            works.setdefault(entry.user_id, UserWork(entry.user_id, [])).inputs.append(entry)
        states, cached = await self._users.load(list(works)) if works else ({}, 0)
        report.cached_users += cached
        report.loaded_users += len(works) - cached
        with _computing():
            for work in works.values():
                work.apply(states[work.user_id], self._limits.bounds, self._limits.excluding)
        return list(works.values())

    async def _embed(self, items: Sequence[ItemWork], users: Sequence[UserWork], report: BatchReport) -> None:
        """One call of the encoder for every text of the batch."""
        with _computing():
            pending = [(work, text) for work in items if (text := self._items.text_to_embed(work)) is not None]
            rows, _ = await self._texts.both([text for _, text in pending], wanted_texts(users))
        for (work, _), row in zip(pending, rows, strict=True):
            work.vector = row
        report.embedded_texts += len(pending)

    async def _rank(self, works: Sequence[UserWork]) -> None:
        """Tastes and lists of these users."""
        await self._catalogue.ensure(works)
        texts = await self._texts.vectors(wanted_texts(works))
        seeds = [self._world.randomness.integer() for _ in works]
        with _computing():
            rank_works(
                works, texts, self._catalogue.columns, self._learning.model, self._policy, self._world.clock.now(), seeds
            )

    async def _send_signals(self, works: Sequence[UserWork], report: BatchReport) -> None:
        sourced = [entry for work in works for entry in work.signals if entry.signals]
        if sourced:
            messages = signal_messages(sourced, self._world.publisher.partitions(Topic.SIGNALS))
            await self._world.publisher.send(messages)
        report.signals += sum(len(entry.signals) for entry in sourced)

    async def _persist(self, works: Sequence[UserWork], guard: Callable[[], None], report: BatchReport) -> None:
        """Compare-and-set of every user that changed. A loser is applied and ranked again; its signals are not resent."""
        by_id = {work.user_id: work for work in works}

        async def again(lost: Mapping[str, Point | None]) -> Sequence[Write]:
            redone = [by_id[user_id] for user_id in lost]
            with _computing():
                for work in redone:
                    work.apply(from_point(lost[work.user_id]), self._limits.bounds, self._limits.excluding)
            await self._rank(redone)
            return self._to_writes(redone)

        try:
            report.lost_writes += await persist(
                self._world.index, Collection.USERS, self._to_writes(works), again, guard
            )
        except ColdstreamError:
            self._users.forget(by_id)  # nobody knows which of the writes took effect
            raise
        self._users.keep(work.state for work in works if work.state.version)

    def _to_writes(self, works: Sequence[UserWork]) -> list[Write]:
        writes = []
        for work in works:
            if not (work.changed or work.sends_list or work.emits_tombstone):
                continue
            expected = None if work.found is None else work.found.version
            ranking = work.ranking if work.sends_list else None
            work.state = msgspec.structs.replace(
                mark_refreshes(work) if ranking is not None else work.state,
                list_ids=work.state.list_ids if ranking is None else ranking.item_ids,
                version=work.state.version + 1,
                write_id=self._world.randomness.token(),
            )
            writes.append(Write(to_point(work, work.state), expected))
        return writes

    async def _emit(
        self, items: Sequence[ItemWork], users: Sequence[UserWork], dead: Sequence[Message], report: BatchReport
    ) -> None:
        """Lists, tombstones, refreshes and dead letters, in one send; then a second look at what stands by now."""
        clock = self._world.clock
        now = clock.now()
        messages = list(dead)
        for work in users:
            message = self._to_message(work, now)
            if message is not None:
                messages.append(message)
        if self._waiting_items() <= self._limits.quiet_lag:
            refreshes, dropped = await self._fan_out.arrived([work.record for work in items if work.arrived], now)
            messages += refreshes
            report.refreshes_dropped += dropped
            report.refreshes_sent += len(refreshes)
        refreshes, dropped = await self._fan_out.withdrawn([work.item_id for work in items if work.withdrawn], now)
        report.refreshes_dropped += dropped
        report.refreshes_sent += len(refreshes)
        messages += refreshes
        messages += self._learning.lessons(users, self._catalogue.columns, self._policy, now)
        if messages:
            await self._world.publisher.send(messages)
        await self._repair(users)
        self._observe(users, clock.now(), report)

    def _to_message(self, work: UserWork, now: float) -> Message | None:
        if work.state.is_marker:
            return tombstone_message(work.state) if work.emits_tombstone else None
        if not work.sends_list or work.ranking is None:
            return None
        work.sent = to_recommendation(
            work.ranking,
            work.state,
            work.triggers,
            recommendation_id=self._world.randomness.token(),
            generated_at=now,
            encoder=self._texts.encoder.name,
        )
        return list_message(work.sent)

    async def _repair(self, works: Sequence[UserWork]) -> None:
        """Where others may write: a greater version that stands by now has its list (or tombstone) sent once more.

        A zombie may have written its older list after its successor's; compaction would keep the older one.
        """
        if not self._world.index.shared or not works:
            return
        points = await self._world.index.read(Collection.USERS, [work.user_id for work in works])
        newer = []
        for work, point in zip(works, points, strict=True):
            state = from_point(point)
            if state is not None and state.version > work.state.version:
                work.found = work.state = state
                work.emits_tombstone = state.is_marker
                work.refreshed_only = False
                newer.append(work)
        if not newer:
            return
        self._users.forget(work.user_id for work in newer)
        await self._rank(newer)
        messages = [self._to_message(work, self._world.clock.now()) for work in newer]
        await self._world.publisher.send([message for message in messages if message is not None])

    def _observe(self, works: Sequence[UserWork], delivered_at: float, report: BatchReport) -> None:
        for work in works:
            if work.state.is_marker:
                if work.emits_tombstone:
                    report.tombstones += 1
                    report.erased.append(work.user_id)
            elif work.sent is not None:
                seconds = tuple(delivered_at - trigger.record_time for trigger in work.fresh)
                report.emissions.append(
                    Emission(work.triggers[-1].kind, work.sent.strategy, seconds, work.sent.arm)
                )
                self._on_list(work.sent, seconds[-1] if seconds else None)
                report.conflated += len(work.triggers) - 1

    def _count(self, items: Sequence[ItemWork], users: Sequence[UserWork], report: BatchReport) -> None:
        for item in items:
            report.outcomes.update((Topic.ITEMS.value, outcome.value) for outcome in item.outcomes)
        for work in users:
            report.outcomes.update((topic.value, outcome.value) for topic, outcome in work.outcomes)
            home = work.state.home
            report.misrouted += sum(1 for entry in work.inputs if home is not None and entry.source.partition != home)

    @contextmanager
    def _stage(self, report: BatchReport, name: str) -> Iterator[None]:
        begun = self._world.clock.monotonic()
        try:
            yield
        finally:
            report.spend(name, self._world.clock.monotonic() - begun)


@contextmanager
def _computing() -> Iterator[None]:
    """Turns any error of a computation into `_ComputeError`; Coldstream's own errors pass."""
    try:
        yield
    except ColdstreamError:
        raise
    except Exception as error:
        raise _ComputeError from error
