"""The end of a batch's way: tastes and lists are made, and what others shall see is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from streams.flow.decoded import computing
from streams.flow.items import ItemWork
from streams.flow.parts import Setting, context_of
from streams.flow.recommend import list_message, rank_works, to_recommendation, tombstone_message, wanted_texts
from streams.flow.report import BatchReport, Emission
from streams.flow.users import UserWork, from_point
from streams.ports import Collection
from streams.values import Message, UserState, Vector


class Lists:
    """Makes and sends lists, tombstones and refreshes, and what is learned of them."""

    def __init__(self, setting: Setting) -> None:
        self._world = setting.world
        self._parts = setting.parts
        self._arms = setting.arms
        self._limits = setting.limits
        self._hooks = setting.hooks

    async def make(self, works: Sequence[UserWork]) -> Mapping[str, Vector]:
        """Give each of these users a taste, and a list to those who want one; returns vectors of their texts.

        Raises `ComputeError`.
        """
        await self._parts.catalogue.ensure(works)
        texts = await self._parts.texts.vectors(wanted_texts(works))
        seeds = [self._world.randomness.integer() for _ in works]
        now = self._world.clock.now()
        with computing():
            rank_works(works, texts, self._parts.catalogue.columns, self._parts.learning.model, self._arms, now, seeds)
        return texts

    async def hand_over(
        self, items: Sequence[ItemWork], users: Sequence[UserWork], dead: Sequence[Message], report: BatchReport
    ) -> Awaitable[None] | None:
        """Lists, tombstones, refreshes, dead letters, and the lessons of batches before: in one go, on their way to the
        broker. None where there is nothing to say.
        """
        now = self._world.clock.now()
        messages = [*dead, *(message for work in users if (message := self._to_message(work, now)) is not None)]
        messages += await self._refreshes(items, now, report)
        messages += self._parts.learning.outgoing()
        return await self._world.publisher.hand_over(messages) if messages else None

    def conclude(
        self, users: Sequence[UserWork], texts: Mapping[str, Vector], delivered_at: float, report: BatchReport
    ) -> None:
        """What is learned and measured of a batch that is done. Nobody waits for it, and to make a lesson takes as long
        as some lists.
        """
        self._parts.learning.observe(users, texts, self._parts.catalogue.columns, self._arms.policy)
        self._parts.quality.judge(users, report)
        self._observe(users, delivered_at, report)

    async def _refreshes(self, items: Sequence[ItemWork], now: float, report: BatchReport) -> list[Message]:
        """The fan-out of this batch's items; of new ones only where no import is under way."""
        fan_out = self._parts.fan_out
        arrived = [work.record for work in items if work.arrived]
        if arrived and self._hooks.waiting_items() > self._limits.quiet_lag:
            arrived = []
        headers = {work.item_id: context_of([entry.record for entry in work.inputs]) for work in items}
        messages, dropped = await fan_out.arrived(arrived, now, headers)
        gone = [work.item_id for work in items if work.withdrawn]
        withdrawn, dropped_too = await fan_out.withdrawn(gone, now, headers)
        report.refreshes_sent += len(messages) + len(withdrawn)
        report.refreshes_dropped += dropped + dropped_too
        return messages + withdrawn

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
            encoder=self._parts.texts.encoder.name,
        )
        return list_message(work.sent, self._hooks.trace([entry.record for entry in work.inputs], work.sent))

    async def repair(self, works: Sequence[UserWork]) -> None:
        """Where others may write: a greater version that stands by now has its list (or tombstone) sent once more, of
        those for whom something was just sent.

        A zombie may have written its older list after its successor's; compaction would keep the older one. What was
        sent late is looked at again: meanwhile the other may have gone on.
        """
        while self._world.index.shared and works:
            points = await self._world.index.read(Collection.USERS, [work.user_id for work in works])
            works = [
                work
                for work, point in zip(works, points, strict=True)
                if _is_behind(work, from_point(point, work.user_id))
            ]
            if not works:
                return
            self._parts.users.forget(work.user_id for work in works)
            await self.make(works)
            now = self._world.clock.now()
            messages = [message for work in works if (message := self._to_message(work, now)) is not None]
            if messages:
                await self._world.publisher.send(messages)

    def _observe(self, works: Sequence[UserWork], delivered_at: float, report: BatchReport) -> None:
        shown = []
        for work in works:
            if work.state.is_marker:
                if work.emits_tombstone:
                    report.tombstones += 1
                    report.erased.append(work.user_id)
            elif work.sent is not None:
                seconds = tuple(delivered_at - trigger.record_time for trigger in work.fresh)
                report.emissions.append(Emission(work.triggers[-1].kind, work.sent.strategy, seconds, work.sent.arm))
                report.conflated += len(work.triggers) - 1
                known = bool(work.state.history)
                short = work.ranking.short if work.ranking is not None else ()
                shown.append(self._parts.quality.remember(work.sent, delivered_at, known=known, short=short))
                self._hooks.on_list(work.sent, seconds[-1] if seconds else None)
        self._parts.quality.forget(report.erased)
        self._parts.quality.report(shown, report)


def _is_behind(work: UserWork, found: UserState | None) -> bool:
    """Whether another has written this user since; then the work goes on from what was found."""
    if found is None or found.version <= work.state.version:
        return False
    work.state = found
    work.emits_tombstone = found.is_marker
    work.refreshed_only = False
    return True
