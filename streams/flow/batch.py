"""One batch on its way (DELIVERY section 1):

    decode → load → apply → embed → items → rank → SIGNALS → PERSIST users → LISTS, refreshes, dead letters → ack

Everything before SIGNALS is invisible to others and may fail or be given up at any point (items are written before, for
they must be durable before anybody is shown them). Redelivered records change no state, but their lists are made and
sent again. This module awaits nothing but ports, so that the simulator can stop the world at each await.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from streams.decide.history import check_not_remade
from streams.decide.taste import texts_of
from streams.errors import AbandonedError, ColdstreamError, PoisonError
from streams.flow.decoded import ComputeError, ItemInput, UserInput, bury, computing, decode
from streams.flow.items import Items, ItemWork
from streams.flow.lists import Lists
from streams.flow.parts import REBALANCE, Setting
from streams.flow.persist import persist
from streams.flow.recommend import wanted_texts
from streams.flow.report import BatchReport
from streams.flow.signals import signal_messages
from streams.flow.users import UserWork, from_point, keeps_name, mark_refreshes, to_point
from streams.ports import Collection, Point, Write
from streams.values import Message, Record, Topic, UserState


class Pipeline:
    """Processes batches one at a time. Holds no record between two calls."""

    def __init__(self, setting: Setting) -> None:
        self._world = setting.world
        self._parts = setting.parts
        self._limits = setting.limits
        self._lists = Lists(setting)
        world = setting.world
        self._items = Items(world.index, setting.parts.texts.encoder, world.clock, world.randomness)

    async def process(self, records: Sequence[Record]) -> BatchReport:
        """All the way to the acknowledgement.

        A record that makes a computation fail is found by running the batch singly, and buried. Raises `RetryableError`
        (nothing was acknowledged: call again), `AbandonedError` (give the batch up or, for its age, call again) and
        `FatalError`.
        """
        try:
            return await self._process(records)
        except ComputeError as error:
            if len(records) == 1:
                poison = PoisonError("processing", str(error))
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
        begun, begun_at = clock.monotonic(), clock.now()

        def guard() -> None:
            if self._world.ownership.interrupted() == REBALANCE:  # a stop finishes the batch in hand
                raise AbandonedError(REBALANCE)
            if clock.monotonic() - begun > self._limits.batch_age_seconds:
                raise AbandonedError("age")

        report = BatchReport()
        items, users, dead = self._decode(records, report)
        with self._stage(report, "load"):
            item_works = await self._items.load(items)
            user_works, states = await self._load_users(users, report)
        with self._stage(report, "apply"), computing():
            for work in item_works:
                work.apply(work.found, work.found_vector, begun_at)
            for user in user_works:
                user.apply(states[user.user_id], self._limits.bounds, self._limits.excluding)
        with self._stage(report, "embed"):
            await self._embed(item_works, user_works, report)
        with self._stage(report, "items"):
            report.lost_writes += await self._items.write(item_works, self._parts.texts.encode, guard)
            self._parts.catalogue.put(item_works)
            await self._parts.catalogue.count(item_works)
        with self._stage(report, "rank"):
            await self._lists.make(user_works)
        with self._stage(report, "signals"):
            guard()
            await self._send_signals(user_works, report)
        with self._stage(report, "persist"):
            await self._persist(user_works, guard, report)
        with self._stage(report, "emit"):
            guard()
            await self._lists.emit(item_works, user_works, dead, report)
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
                    entry = decode(record, self._limits.largest(record.topic), self._limits.debezium)
                except PoisonError as error:
                    report.dead_letters[error.reason] += 1
                    dead.append(bury(record, error, self._world.clock.now()))
                    continue
                if isinstance(entry, ItemInput):
                    items.append(entry)
                else:
                    users.append(entry)
        return items, users, dead

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

    async def _send_signals(self, works: Sequence[UserWork], report: BatchReport) -> None:
        sourced = [entry for work in works for entry in work.signals if entry.signals]
        if sourced:
            messages = signal_messages(sourced, self._world.publisher.partitions(Topic.SIGNALS))
            await self._world.publisher.send(messages)
        report.signals += sum(len(entry.signals) for entry in sourced)

    async def _persist(self, works: Sequence[UserWork], guard: Callable[[], None], report: BatchReport) -> None:
        """Compare-and-set of every user that changed. A loser is applied and ranked again; its signals stay."""
        by_id = {work.user_id: work for work in works}

        async def again(lost: Mapping[str, Point | None]) -> Sequence[Write]:
            redone = [by_id[user_id] for user_id in lost]
            with computing():
                for work in redone:
                    found = from_point(lost[work.user_id], work.user_id)
                    work.apply(found, self._limits.bounds, self._limits.excluding)
            await self._lists.make(redone)
            return self._to_writes(redone)

        try:
            report.lost_writes += await persist(
                self._world.index, Collection.USERS, self._to_writes(works), again, guard
            )
        except ColdstreamError:
            self._parts.users.forget(by_id)  # nobody knows which of the writes took effect
            raise
        self._parts.users.keep(work.state for work in works if work.state.version)
        for work in works:
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
