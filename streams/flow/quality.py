"""How good lists are, as the stream tells it: what users chose beside what they were shown, and what lists are made of.

Lists are remembered for as long as there is room, by recommendation id and by user, so that an event can be joined with
the list that it came from. Bounded memory, in this process only: after a restart or a rebalance, and for lists that were
asked of another worker, an event finds its list forgotten and is counted as such. Nothing here is the truth of anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.decide.arms import Arms
from streams.decide.policy import is_positive
from streams.decide.ragged import Rows
from streams.decide.rerank import members
from streams.decide.table import Table
from streams.flow.catalogue import Exposure
from streams.flow.decoded import EventInput
from streams.flow.report import BatchReport, Made
from streams.flow.users import UserWork
from streams.values import EventType, Interaction, UserState
from streams.wire import Recommendation

LISTS: Final = 20_000
"""Lists remembered: some 10 MB."""
PLACES: Final = 10
"""Choices are compared with so many places of a list."""
FORTNIGHT: Final = 3
"""Index of 14 days in `counts.HORIZONS`."""
NEW_SECONDS: Final = 7 * 86_400.0
UNKNOWN: Final = "unknown"
_CONVERTING: Final = frozenset({EventType.PURCHASE, EventType.LIKE})
_CLICKING: Final = frozenset({EventType.VIEW, EventType.CLICK, EventType.CART, EventType.RATING, *_CONVERTING})


@dataclass(slots=True)
class Shown:
    """A list that was delivered, and what came of it."""

    made: Made
    item_ids: tuple[str, ...]
    user: str
    """known (with a history) or cold, when the list was made."""
    cold: frozenset[str]
    """Items that nobody had met then."""
    clicked: bool = False
    converted: bool = False


class Quality:
    """Joins events with lists, and counts into a batch's report."""

    def __init__(self, columns: Table, arms: Arms, since: float = 0.0, lists: int = LISTS) -> None:
        """`since`: when this process began, seconds; what came before may have been shown by another."""
        self._columns = columns
        self.exposure = Exposure(columns, [arm.name for arm in arms.all], since)
        self._arms = arms
        self._policies = {arm.name: arm.policy for arm in arms.all}
        self._most = lists
        self._by_id: OrderedDict[str, Shown] = OrderedDict()
        self._by_user: OrderedDict[str, Shown] = OrderedDict()
        self._delivered = BatchReport()
        """What lists delivered since the last report add to the next one."""

    def remember(
        self, value: Recommendation, now: float, *, known: bool, asked: bool = False, short: Sequence[str] = ()
    ) -> Shown:
        """A list that was delivered on the topic, or `asked` for; `known`: its user has a history; `short`: see `Ranking`."""
        item_ids = tuple(item.item_id for item in value.items)
        rows = self._rows(item_ids)
        cold = self._columns.counts.events[rows] == 0
        new = ~cold & (self._columns.arrivals.at[rows] > now - NEW_SECONDS)
        shown = Shown(
            Made(value.strategy.value, value.arm, ranker_kind(value.ranker)),
            item_ids,
            "known" if known else "cold",
            frozenset(self._columns.ids[row] for row in rows[cold].tolist()),
        )
        _keep(self._by_id, value.recommendation_id, shown, self._most)
        if not asked:
            _keep(self._by_user, value.user_id, shown, self._most)
        report, arm = self._delivered, value.arm
        report.list_outcomes["sent", shown.made] += 1
        report.list_users["sent", shown.user] += 1
        for kind, count in (("cold", cold.sum()), ("new", new.sum()), ("other", (~cold & ~new).sum())):
            report.places[kind, arm] += int(count)
        self._count_floors(arm, rows, short, now)
        report.first_seconds += self.exposure.note(arm, rows, now)
        return shown

    def _count_floors(self, arm: str, rows: Rows, short: Sequence[str], now: float) -> None:
        """What a list's places were promised to groups of items, and what went to them."""
        policy, floors = self._policies.get(arm, self._arms.policy), self._delivered.floors
        at = min(now, self._columns.counts.newest_at)
        for group in policy.watched:
            held = members(self._columns, rows, group, policy, at, now)
            promised = policy.floors.get(group, 0.0) * len(rows)
            counted = {"all": len(rows), "promised": promised, "held": int(held.sum()), "short": short.count(group)}
            for places, count in counted.items():
                floors[group, places, arm] = floors.get((group, places, arm), 0.0) + count

    def forget(self, user_ids: Iterable[str]) -> None:
        """Drop the last lists of erased users; lists by id name nobody."""
        for user_id in user_ids:
            self._by_user.pop(user_id, None)

    def report(self, shown: Sequence[Shown], report: BatchReport) -> None:
        """Count what was delivered since the last report, and how different the items of the last list `shown` are."""
        report.add(self._delivered)
        self._delivered = BatchReport()
        rows = self._rows(shown[-1].item_ids) if shown else ()
        count = len(rows)
        if count > 1:
            total = self._columns.short[rows].sum(axis=0)
            diversity = float(1.0 - (total @ total - count) / (count * (count - 1)))
            report.diversities.append((shown[-1].made.arm, diversity))

    def judge(self, works: Sequence[UserWork], report: BatchReport) -> None:
        """Count what users did with lists. Called before this batch's lists are remembered."""
        popular: list[str] | None = None
        for work in works:
            for before, entry in work.chosen:
                interaction = entry.interaction
                if entry.recommendation_id is not None:
                    self._attribute(entry, entry.recommendation_id, report)
                met = {other.item_id for other in before.history}
                wanted = is_positive(interaction, self._arms.policy.liked_from) and interaction.item_id not in met
                if interaction.item_id is None or not wanted or not before.list_ids:
                    continue
                if popular is None:
                    popular = self._popular(interaction.at)
                unmet = [item_id for item_id in popular if item_id not in met][: len(before.list_ids)]
                self._choose(before, interaction.item_id, unmet, report)

    def _attribute(self, entry: EventInput, recommendation_id: str, report: BatchReport) -> None:
        """Join an event with the list that it names."""
        interaction = entry.interaction
        shown = self._by_id.get(recommendation_id)
        if shown is None or interaction.item_id not in shown.item_ids:
            found = "forgotten" if shown is None else "elsewhere"
            report.attributed[interaction.type.value, found] += 1
            return
        report.attributed[interaction.type.value, "listed"] += 1
        item = "cold" if interaction.item_id in shown.cold else "warm"
        place = place_of(shown.item_ids, interaction.item_id)
        first = []
        if interaction.type in _CLICKING:
            report.list_events["click", place, shown.made.arm, item] += 1
            first += [] if shown.clicked else ["clicked"]
            shown.clicked = True
        if self._converts(interaction):
            report.list_events["conversion", place, shown.made.arm, item] += 1
            first += [] if shown.converted else ["converted"]
            shown.converted = True
        for outcome in first:
            report.list_outcomes[outcome, shown.made] += 1
            report.list_users[outcome, shown.user] += 1
            report.list_ranks[outcome, shown.made] += shown.item_ids.index(interaction.item_id) + 1

    def _converts(self, interaction: Interaction) -> bool:
        """Whether the shop got what it wanted: a purchase, a like, a good rating."""
        if interaction.type is EventType.RATING:
            return is_positive(interaction, self._arms.policy.liked_from)
        return interaction.type in _CONVERTING

    def _choose(self, before: UserState, item_id: str, popular: Sequence[str], report: BatchReport) -> None:
        """A first positive event: where its item stood in the user's last list, and in one of what is popular."""
        shown = self._by_user.get(before.user_id)
        current = shown is not None and shown.item_ids == before.list_ids
        strategy = shown.made.strategy if shown is not None and current else UNKNOWN
        arm = self._arms.of_user(before.user_id).name
        item = self._item_kind(item_id)
        user = "known" if before.history else "cold"
        for whose, list_ids in (("coldstream", before.list_ids), ("popular", popular)):
            place = place_of(list_ids, item_id)
            report.choices[whose, place, user] += 1
            report.hits[whose, strategy, arm, item, "no" if place == "none" else "yes"] += 1

    def _item_kind(self, item_id: str) -> str:
        row = self._columns.rows.get(item_id)
        return "warm" if row is not None and self._columns.counts.events[row] else "cold"

    def _popular(self, now: float) -> list[str]:
        """Items by popularity of 14 days, the most popular first: the baseline that lists are compared with."""
        rows = self._columns.popular(now)
        recent = self._columns.counts.recent(rows, now)[:, FORTNIGHT]
        return [self._columns.ids[row] for row in rows[np.argsort(-recent)].tolist()]

    def _rows(self, item_ids: Iterable[str]) -> Rows:
        return np.array([row for item_id in item_ids if (row := self._columns.rows.get(item_id)) is not None], np.int64)


def ranker_kind(version: str) -> str:
    """What ranked, of a bounded number of words: `prior` before anything was learned, `learned` after."""
    return "prior" if version.startswith("linear-0-") else "learned"


def place_of(item_ids: Sequence[str], item_id: str) -> str:
    """The place (from 1) in the first ten of a list; none."""
    return str(item_ids.index(item_id) + 1) if item_id in item_ids[:PLACES] else "none"


def _keep(lists: OrderedDict[str, Shown], key: str, shown: Shown, most: int) -> None:
    lists[key] = shown
    lists.move_to_end(key)
    if len(lists) > most:
        lists.popitem(last=False)
