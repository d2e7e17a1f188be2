"""One batch on its way (DELIVERY section 1):

    prepare: decode → load → apply → embed → items → rank
    commit:  SIGNALS → PERSIST users → LISTS, refreshes, dead letters are handed over
    finish:  the broker has them → a second look at what stands → ack

Everything before SIGNALS is invisible to others and may fail or be given up at any point (items are written before, for
they must be durable before anybody is shown them), so that the next batch may be prepared while the lists of this one are
on their way; it is committed after this one is finished. Redelivered records change no state, but their lists are made
and sent again. This module awaits nothing but ports, so that the simulator can stop the world at each await.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from streams.decide.history import check_not_remade
from streams.decide.taste import texts_of
from streams.errors import ColdstreamError, PoisonError
from streams.flow.decoded import ComputeError, UserInput, bury, computing, decode_all
from streams.flow.items import Items, ItemWork
from streams.flow.lists import Lists
from streams.flow.parts import Meanwhile, Setting, nothing
from streams.flow.persist import persist
from streams.flow.recommend import wanted_texts
from streams.flow.report import BatchReport
from streams.flow.signals import signal_messages
from streams.flow.users import UserWork, from_point, keeps_name, mark_refreshes, to_point
from streams.ports import Collection, Point, Write
from streams.values import Message, Record, Topic, UserState, Vector


@dataclass(slots=True)
class Batch:
    """Records on their way, and what came of them so far."""

    records: Sequence[Record]
    report: BatchReport
    guard: Callable[[], None] = lambda: None
    """Raises `AbandonedError` where the batch may belong to somebody else by now."""
    items: Sequence[ItemWork] = ()
    users: Sequence[UserWork] = ()
    dead: Sequence[Message] = ()
    texts: Mapping[str, Vector] = field(default_factory=dict)
    lists: Awaitable[None] | None = None
    """Ends when the broker has all that the batch says."""
    delivered_at: float | None = None
    """Wall-clock time; None until it is finished."""


class Pipeline:
    """Takes batches through, one at a time but for what the module says. Holds no record between two calls."""

    def __init__(self, setting: Setting) -> None:
        self._world = setting.world
        self._parts = setting.parts
        self._limits = setting.limits
        self._lists = Lists(setting)
        world = setting.world
        self._items = Items(world.index, setting.parts.texts.encoder, world.clock, world.randomness)

    async def begin(
        self, records: Sequence[Record], prepared: Batch | None = None, meanwhile: Meanwhile = nothing
    ) -> Batch:
        """Prepare (where it was not) and commit; `finish` and `conclude` are to follow.

        A record that makes a computation fail is found by taking the records singly, and buried; then all is finished.
        Raises `RetryableError` (nothing was acknowledged: call again), `AbandonedError` (give the batch up or, for its
        age, call again) and `FatalError`.
        """
        try:
            batch = prepared or await self.prepare(records)
            await self._commit(batch, meanwhile)
        except ComputeError as error:
            if len(records) == 1:
                return await self._bury_alone(records[0], PoisonError("processing", str(error)))
        else:
            return batch
        whole = Batch(records, BatchReport(), delivered_at=self._world.clock.now())
        for record in records:
            one = await self.begin([record])
            await self.finish(one)
            whole.report.add(self.conclude(one))
        return whole

    async def prepare(self, records: Sequence[Record]) -> Batch:
        """All that nobody else sees. Raises `ComputeError`, and what `begin` raises."""
        batch = Batch(records, BatchReport(), self._world.guard(self._limits.batch_age_seconds))
        begun_at, report = self._world.clock.now(), batch.report
        report.records.update(record.topic.value for record in records)
        with self._stage(report, "decode"):
            items, users, dead = decode_all(records, self._limits.largest, self._limits.debezium)
        report.dead_letters.update(error.reason for _, error in dead)
        batch.dead = [bury(record, error, begun_at) for record, error in dead]
        with self._stage(report, "load"):
            batch.items = item_works = await self._items.load(items)
            batch.users, states = await self._load_users(users, report)
        with self._stage(report, "apply"), computing():
            for work in item_works:
                work.apply(work.found, work.found_vector, begun_at)
            for user in batch.users:
                user.apply(states[user.user_id], self._limits.bounds, self._limits.excluding)
        with self._stage(report, "embed"):
            await self._embed(item_works, batch.users, report)
        with self._stage(report, "items"):
            report.lost_writes += await self._items.write(item_works, self._parts.texts.encode, batch.guard)
            self._parts.catalogue.put(item_works)
            await self._parts.catalogue.count(item_works)
        with self._stage(report, "rank"):
            batch.texts = await self._lists.make(batch.users)
        return batch

    async def _commit(self, batch: Batch, meanwhile: Meanwhile) -> None:
        """What others see, in its order. `meanwhile` is done while the broker takes the signals."""
        report = batch.report
        with self._stage(report, "signals"):
            batch.guard()
            signals = await self._send_signals(batch.users, report)
        await meanwhile()
        with self._stage(report, "signals"):
            if signals is not None:
                await signals
        with self._stage(report, "persist"):
            await self._persist(batch)
        with self._stage(report, "emit"):
            batch.guard()
            batch.lists = await self._lists.hand_over(batch.items, batch.users, batch.dead, report)

    async def finish(self, batch: Batch) -> None:
        """Wait until the broker has the lists, look at what stands, acknowledge. Raises `RetryableError`: begin again."""
        if batch.delivered_at is not None:
            return
        with self._stage(batch.report, "emit"):
            if batch.lists is not None:
                await batch.lists
            await self._lists.repair([work for work in batch.users if work.emits_tombstone or work.sent is not None])
        batch.delivered_at = self._world.clock.now()
        self._world.ownership.acknowledge(batch.records)

    def conclude(self, batch: Batch) -> BatchReport:
        """What a finished batch teaches, and its report."""
        if batch.delivered_at is None:
            raise ValueError("the batch is not finished")
        self._lists.conclude(batch.users, batch.texts, batch.delivered_at, batch.report)
        self._count(batch.items, batch.users, batch.report)
        return batch.report

    async def _bury_alone(self, record: Record, error: PoisonError) -> Batch:
        batch = Batch([record], BatchReport())
        batch.report.records[record.topic.value] += 1
        batch.report.dead_letters[error.reason] += 1
        await self._world.publisher.send([bury(record, error, self._world.clock.now())])
        await self.finish(batch)
        return batch

    async def _load_users(
        self, inputs: Sequence[UserInput], report: BatchReport
    ) -> tuple[list[UserWork], Mapping[str, UserState | None]]:
        """The users of these records, and what is stored of each. Raises `TopicRemadeError`."""
        works: dict[str, UserWork] = {}
        for entry in inputs:
            works.setdefault(entry.user_id, UserWork(entry.user_id, [])).inputs.append(entry)
        states, cached = await self._parts.users.load(list(works)) if works else ({}, 0)
        report.cached_users += cached
        report.loaded_users += len(works) - cached
        ends = self._world.ownership.ends()
        for state in states.values():
            if state is not None:
                check_not_remade(state.applied, ends)
        return list(works.values()), states

    async def _embed(self, items: Sequence[ItemWork], users: Sequence[UserWork], report: BatchReport) -> None:
        """One call of the encoder for every text of the batch."""
        with computing():
            pending = [(work, text) for work in items if (text := self._items.text_to_embed(work)) is not None]
            rows, _ = await self._parts.texts.both([text for _, text in pending], wanted_texts(users))
        for (work, _), row in zip(pending, rows, strict=True):
            work.vector = row
        report.embedded_texts += len(pending)

    async def _send_signals(self, works: Sequence[UserWork], report: BatchReport) -> Awaitable[None] | None:
        sourced = [entry for work in works for entry in work.signals if entry.signals]
        report.signals += sum(len(entry.signals) for entry in sourced)
        if not sourced:
            return None
        messages = signal_messages(sourced, self._world.publisher.partitions(Topic.SIGNALS))
        return await self._world.publisher.hand_over(messages)

    async def _persist(self, batch: Batch) -> None:
        """Compare-and-set of every user that changed. A loser is applied and ranked again; its signals stay."""
        by_id = {work.user_id: work for work in batch.users}

        async def again(lost: Mapping[str, Point | None]) -> Sequence[Write]:
            redone = [by_id[user_id] for user_id in lost]
            with computing():
                for work in redone:
                    found = from_point(lost[work.user_id], work.user_id)
                    work.apply(found, self._limits.bounds, self._limits.excluding)
            batch.texts = {**batch.texts, **await self._lists.make(redone)}
            return self._to_writes(redone)

        try:
            batch.report.lost_writes += await persist(
                self._world.index, Collection.USERS, self._to_writes(batch.users), again, batch.guard
            )
        except ColdstreamError:
            self._parts.users.forget(by_id)  # nobody knows which of the writes took effect
            raise
        self._parts.users.keep(work.state for work in batch.users if work.state.version)
        for work in batch.users:
            if work.erases and work.found is not None:
                self._parts.texts.forget(texts_of(work.found))

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
            named = keeps_name(work.state, self._world.clock.now(), shared=self._world.index.shared)
            writes.append(Write(to_point(work, work.state, named=named), expected))
        return writes

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
