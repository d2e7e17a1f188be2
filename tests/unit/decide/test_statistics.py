"""Signals fold into statistics in any order, each once; the table counts the same by either way."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from streams.decide.statistics import (
    COMPANIONS_KEPT,
    COMPANIONS_MOST,
    DAYS_KEPT,
    HOURS_KEPT,
    PAIR_UNIT,
    ItemStatistics,
    Signal,
    fold,
    period_of,
    signals_of,
)  # fmt: skip
from streams.decide.table import Table
from streams.values import EventType
from tests.unit.decide.catalogue import DAY, DIMENSION, NOW, filled, interaction, item_ids, live_through, user


def test_an_event_speaks_for_its_own_item_and_for_what_came_before_it() -> None:
    own, *pairs = signals_of(user("wine-1", "wine-2", "wine-1"), interaction("bread-1"))
    assert (own.item_id, own.follower, own.positive, own.gap_seconds) == ("bread-1", None, True, None)
    assert {pair.item_id: pair.weight for pair in pairs} == {"wine-1": PAIR_UNIT, "wine-2": PAIR_UNIT // 2}
    assert all(pair.follower == "bread-1" for pair in pairs)
    assert dict(own.before) == {pair.item_id: pair.weight for pair in pairs}


def test_a_pair_is_counted_by_both_of_its_items() -> None:
    own, pair = signals_of(user("wine-1"), interaction("bread-1"))
    first, second = (fold(None, signal.item_id, "0", 0, [signal]) for signal in (pair, own))
    assert first is not None
    assert second is not None
    follower, predecessor = first.companions["bread-1"], second.companions["wine-1"]
    assert (follower.total, follower.back, follower.together) == (PAIR_UNIT, 0, 1)
    assert (predecessor.total, predecessor.back, predecessor.together) == (0, PAIR_UNIT, 1)


def test_a_search_says_nothing_about_items_and_a_dislike_little() -> None:
    assert signals_of(user("wine-1"), interaction(None, kind=EventType.SEARCH, query="red")) == []
    own, pair = signals_of(user("wine-1"), interaction("wine-2", kind=EventType.DISLIKE))
    assert not own.positive
    assert pair.weight == round(0.3 * PAIR_UNIT)


def test_a_rating_is_positive_from_the_threshold_on() -> None:
    signals = [signals_of(user(), interaction("wine-1", kind=EventType.RATING, value=value))[0] for value in (3.5, 4.0)]
    assert [signal.positive for signal in signals] == [False, True]


def test_a_return_is_told_with_its_gap_and_nothing_is_its_own_follower() -> None:
    signals = signals_of(user("wine-1", at=NOW - DAY), interaction("wine-1"))
    assert [signal.gap_seconds for signal in signals] == [DAY]


def test_only_what_came_before_is_followed() -> None:
    late = interaction("bread-1", at=NOW - 2 * DAY)
    assert len(signals_of(user("wine-1", at=NOW - DAY), late)) == 1


def test_an_old_offset_changes_nothing() -> None:
    signal = Signal("a", NOW, positive=True)
    folded = fold(None, "a", "0", 7, [signal])
    assert folded is not None
    before = msgspec.json.encode(folded)
    assert msgspec.json.encode(fold(folded, "a", "0", 7, [signal])) == before
    assert msgspec.json.encode(fold(folded, "a", "0", 3, [signal])) == before
    assert fold(folded, "a", "1", 3, [signal]).events == 2


def pairs_held(table: Table) -> NDArray[np.float64]:
    """Every pair with all its weights, in the order of (item, other item); of the periods what still counts at NOW."""
    pairs, now, found = table.companions.pairs, period_of(NOW), []
    for owner in range(len(table)):
        for at in range(pairs.start[owner], pairs.start[owner] + pairs.length[owner]):
            current, previous = (pairs.current[at], pairs.previous[at]) if pairs.period[at] == now else (0, 0)
            if pairs.period[at] == now - 1:
                previous = pairs.current[at]
            weights = pairs.total[at], current, previous, pairs.either[at], pairs.together[at]
            found.append([owner, pairs.item[at], *weights])
    return np.array(sorted(found), np.float64)


def random_signals(count: int, seed: int) -> list[Signal]:
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        at = NOW + chance.uniform(-120, 0) * DAY
        if chance.random() < 0.5:
            rating = chance.choice([None, 3.0, 5.0])
            gap, before = chance.choice([None, 5e5]), ((f"wine-{chance.randrange(20)}", chance.randrange(1, 720)),)
            found.append(Signal("a", at, chance.random() < 0.7, rating=rating, gap_seconds=gap, before=before))
        else:
            follower = f"wine-{chance.randrange(20)}"
            found.append(Signal("a", at, positive=True, follower=follower, weight=chance.randrange(1, 720)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_arrival_makes_no_difference(seed: int) -> None:
    signals = random_signals(200, seed)

    def folded(order: list[Signal]) -> ItemStatistics:
        statistics = None
        for offset, signal in enumerate(order):
            statistics = fold(statistics, "a", "0", offset, [signal])
        assert statistics is not None
        return statistics

    shuffled = signals.copy()
    random.Random(seed + 99).shuffle(shuffled)
    first, second = folded(signals), folded(shuffled)
    assert first == second
    assert len(first.hours) <= HOURS_KEPT
    assert len(first.days) <= DAYS_KEPT
    assert min(first.days) > max(first.days) - DAYS_KEPT


def test_followers_are_bounded_and_the_heaviest_stay() -> None:
    statistics = None
    for number in range(COMPANIONS_MOST + 1):
        signal = Signal("a", NOW, positive=True, follower=str(number), weight=number)
        statistics = fold(statistics, "a", "0", number, [signal])
    assert statistics is not None
    assert len(statistics.companions) == COMPANIONS_KEPT
    assert min(map(int, statistics.companions)) == COMPANIONS_MOST + 1 - COMPANIONS_KEPT


def test_statistics_survive_their_json() -> None:
    statistics = None
    for offset, signal in enumerate(random_signals(50, 1)):
        statistics = fold(statistics, "a", "3", offset, [signal])
    assert msgspec.json.decode(msgspec.json.encode(statistics), type=ItemStatistics) == statistics


def test_observing_signals_and_absorbing_statistics_lead_to_the_same_table() -> None:
    lives = [item_ids()[start : start + 8] for start in range(0, 30, 3)]
    observed, absorbed = filled(), filled()
    stored: dict[str, ItemStatistics] = {}
    live_through(observed, lives)

    class Recorder(Table):
        def observe(self, signals: object) -> None:
            for signal in signals:  # type: ignore[attr-defined]
                offset = stored[signal.item_id].applied["0"] + 1 if signal.item_id in stored else 0
                folded = fold(stored.get(signal.item_id), signal.item_id, "0", offset, [signal])
                assert folded is not None
                stored[signal.item_id] = folded

    live_through(Recorder(DIMENSION), lives)
    absorbed.absorb(stored.values())
    rows = np.arange(len(observed))
    for name in ("events", "positives", "repeats", "first_at", "last_at"):
        assert np.array_equal(getattr(observed.counts, name)[rows], getattr(absorbed.counts, name)[rows]), name
    assert np.allclose(observed.counts.recent(rows, NOW)[:, 2:], absorbed.counts.recent(rows, NOW)[:, 2:], rtol=0.1)
    assert np.array_equal(*(pairs_held(table) for table in (observed, absorbed)))
    facets = np.flatnonzero(observed.wording.facet_counts)
    assert np.array_equal(facets, np.flatnonzero(absorbed.wording.facet_counts))
