"""How good lists are, as the stream tells it: what users chose beside what they were shown, and what lists are made of.

Lists are remembered for as long as there is room, by recommendation id and by user, so that an event can be joined with
the list that it came from. Bounded memory, in this process only: after a restart or a rebalance, and for lists that were
asked of another worker, an event finds its list forgotten and is counted as such. Nothing here is the truth of anything.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.decide.arms import Arms
from streams.decide.policy import is_positive
from streams.decide.table import Table
from streams.flow.decoded import EventInput
from streams.flow.report import BatchReport, Made
from streams.flow.users import UserWork
from streams.values import EventType, Interaction, Strategy, UserState
from streams.wire import Recommendation

LISTS: Final = 20_000
"""Lists remembered: some 10 MB."""
PLACES: Final = 10
"""Choices are compared with so many places of a list."""
FORTNIGHT: Final = 3
"""Index of 14 days in `counts.HORIZONS`."""
NEW_SECONDS: Final = 7 * 86_400.0
COVERAGE_SECONDS: Final = 3600.0
SAMPLE: Final = 2000
"""Items that a census looks at one by one."""
UNKNOWN: Final = "unknown"
_CONVERTING: Final = frozenset({EventType.PURCHASE, EventType.LIKE})
_CLICKING: Final = frozenset({EventType.VIEW, EventType.CLICK, EventType.CART, EventType.RATING, *_CONVERTING})


@dataclass(slots=True)
class Shown:
    """A list that was delivered, and what came of it."""

    made: Made
    item_ids: tuple[str, ...]
    clicked: bool = False
    converted: bool = False


@dataclass(frozen=True, slots=True)
class Census:
    """Shares of the recommendable items, 0 … 1."""

    covered: float
    """That stood in a list of this worker within the last hour."""
    cold: float
    """That nobody has met yet."""
    foreign: float
    """Whose vectors another encoder made; of a sample."""


class Quality:
    """Joins events with lists, and counts into a batch's report."""

    def __init__(self, columns: Table, arms: Arms, lists: int = LISTS) -> None:
        self._columns = columns
        self._arms = arms
        self._most = lists
        self._by_id: OrderedDict[str, Shown] = OrderedDict()
        self._by_user: OrderedDict[str, Shown] = OrderedDict()
        self._delivered: Counter[Made] = Counter()
        """Lists since the last report."""
        self._shown_at = np.full(0, -np.inf)
        """When each row of the columns last stood in a list."""

    def remember(self, value: Recommendation, now: float, *, asked: bool = False) -> Shown:
        """A list that was delivered on the topic, or `asked` for."""
        shown = Shown(
            Made(value.strategy.value, value.arm, ranker_kind(value.ranker)),
            tuple(item.item_id for item in value.items),
        )
        _keep(self._by_id, value.recommendation_id, shown, self._most)
        self._delivered[shown.made] += 1
        if not asked:
            _keep(self._by_user, value.user_id, shown, self._most)
        rows = self._rows(shown.item_ids)
        if len(self._shown_at) < len(self._columns.live):
            grown = np.full(len(self._columns.live), -np.inf)
            grown[: len(self._shown_at)] = self._shown_at
            self._shown_at = grown
        self._shown_at[rows] = now
        return shown

    def forget(self, user_ids: Iterable[str]) -> None:
        """Drop the last lists of erased users; lists by id name nobody."""
        for user_id in user_ids:
            self._by_user.pop(user_id, None)

    def report(self, shown: Sequence[Shown], now: float, report: BatchReport) -> None:
        """Count what was delivered since the last report, and what one of the lists `shown` is made of."""
        for made, count in self._delivered.items():
            report.list_outcomes["sent", made] += count
        self._delivered.clear()
        if shown:
            self._sample(shown[-1], now, report)

    def _sample(self, shown: Shown, now: float, report: BatchReport) -> None:
        """How different a list's items are, and how many of them are new."""
        rows = self._rows(shown.item_ids)
        count = len(rows)
        if count < 2:
            return
        total = self._columns.short[rows].sum(axis=0)
        report.diversities.append(float(1.0 - (total @ total - count) / (count * (count - 1))))
        cold = self._columns.counts.events[rows] == 0
        new = ~cold & (self._columns.arrivals.at[rows] > now - NEW_SECONDS)
        report.places.update(cold=int(cold.sum()), new=int(new.sum()), other=int(count - cold.sum() - new.sum()))

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

    def census(self, now: float, encoder: str) -> Census:
        """Shares of the recommendable items as they are now. Some milliseconds for 100,000 items."""
        columns = self._columns
        rows = np.fromiter(columns.rows.values(), np.int64, len(columns.rows))
        rows = rows[columns.recommendable(rows, now)]
        if not len(rows):
            return Census(0.0, 0.0, 0.0)
        known = rows[rows < len(self._shown_at)]
        covered = float((self._shown_at[known] > now - COVERAGE_SECONDS).sum() / len(rows))
        cold = float((columns.counts.events[rows] == 0).mean())
        sample = [columns.records[row] for row in rows[:: -(-len(rows) // SAMPLE)].tolist()]
        foreign = sum(1 for record in sample if record is not None and record.encoder != encoder)
        return Census(covered, cold, foreign / len(sample))

    def _attribute(self, entry: EventInput, recommendation_id: str, report: BatchReport) -> None:
        """Join an event with the list that it names."""
        interaction = entry.interaction
        shown = self._by_id.get(recommendation_id)
        if shown is None or interaction.item_id not in shown.item_ids:
            found = "forgotten" if shown is None else "elsewhere"
            report.attributed[interaction.type.value, found] += 1
            return
        report.attributed[interaction.type.value, "listed"] += 1
        item = self._item_kind(interaction.item_id)
        place = place_of(shown.item_ids, interaction.item_id)
        if interaction.type in _CLICKING:
            report.list_events["click", place, shown.made.arm, item] += 1
            if not shown.clicked:
                shown.clicked = True
                report.list_outcomes["clicked", shown.made] += 1
                report.list_ranks["clicked", shown.made] += shown.item_ids.index(interaction.item_id) + 1
        if self._converts(interaction):
            report.list_events["conversion", place, shown.made.arm, item] += 1
            if not shown.converted:
                shown.converted = True
                report.list_outcomes["converted", shown.made] += 1
                report.list_ranks["converted", shown.made] += shown.item_ids.index(interaction.item_id) + 1

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

    def _rows(self, item_ids: Iterable[str]) -> list[int]:
        return [row for item_id in item_ids if (row := self._columns.rows.get(item_id)) is not None]


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


STRATEGIES: Final = (*(strategy.value for strategy in Strategy), UNKNOWN)
"""What the counts of choices name as strategy: `unknown` where the list is forgotten."""
