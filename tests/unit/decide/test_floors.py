"""Exposure floors: what groups of items are owed, who takes the places, and who never does."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.decide.arms import Arms
from streams.decide.counts import SIXTY_DAYS
from streams.decide.policy import Policy, Protected
from streams.decide.ranker import Model
from streams.decide.recommend import batch_of, rank, recommend
from streams.decide.rerank import EXPLORE, members, places_owed, with_floors
from streams.decide.statistics import ItemStatistics, fold, signals_of
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.errors import ConfigurationError
from streams.settings import load
from streams.values import Profile, Ranking, UserState
from tests.unit.decide.catalogue import DAY, DIMENSION, NOW, filled, interaction, live_through, record, user, vector_of

MODEL = Model.prior()
MAKER = "attributes.maker"
SMALL = Policy(explore=False, floor_small=0.1, floor_provider=MAKER, floor_small_below=0.1)
LISTS = 600


@pytest.fixture
def lived() -> Table:
    """Nobody wants what makers 0 and 1 make, but for one; of the others' many do."""
    table = filled(60)
    chance = np.random.default_rng(3)
    wanted = [n for n in range(60) if n % 5 > 1]
    live_through(
        table,
        [[f"{kind}-{k}" for k in chance.permutation(wanted)[:8]] for kind in ("wine", "bread") for _ in range(30)],
    )
    live_through(table, [["wine-0"]])
    return table


def lists(table: Table, policy: Policy, count: int = LISTS, **more: object) -> list[Ranking]:
    """Lists of a user by many seeds; features are computed once."""
    state = user(*(f"wine-{number}" for number in (2, 3, 4, 7, 8)))
    batch = batch_of(table, [Request(state, NOW, **more)], policy)  # type: ignore[arg-type]
    found = []
    for seed in range(count):
        request = dataclasses.replace(batch.tastes[0].request, seed=seed)
        one = dataclasses.replace(batch, tastes=[dataclasses.replace(batch.tastes[0], request=request)])
        found += rank(table, one, MODEL, policy)
    return found


def share_of(table: Table, rankings: list[Ranking], group: Protected, policy: Policy) -> float:
    rows = np.array([table.rows[item_id] for ranking in rankings for item_id in ranking.item_ids])
    return float(members(table, rows, group, policy, NOW).mean())


def floored(rankings: list[Ranking]) -> list[str]:
    return [item.item_id for ranking in rankings for item in ranking.items if item.reason.kind == "floor"]


def test_without_floors_lists_are_the_same_to_the_last_digit(lived: Table) -> None:
    lived.put([(record("wine-90", published_at=NOW - 60.0), vector_of("wine-90"))])
    plain = lists(lived, Policy(), 40)
    assert lists(lived, Policy(floor_provider=MAKER, floor_small_below=1.0), 40) == plain
    assert any(item.reason.kind == EXPLORE for ranking in plain for item in ranking.items)


@pytest.mark.parametrize("floor", [0.05, 0.1, 0.2, 0.37])
def test_over_many_lists_a_group_has_its_share_and_no_list_more_than_that_rounded(lived: Table, floor: float) -> None:
    policy = dataclasses.replace(SMALL, floor_small=floor)
    assert share_of(lived, lists(lived, dataclasses.replace(policy, floor_small=0.0)), Protected.SMALL, policy) == 0.0
    found = lists(lived, policy)
    assert share_of(lived, found, Protected.SMALL, policy) == pytest.approx(floor, abs=0.01)
    assert all(len(set(ranking.item_ids)) == 10 and not ranking.short for ranking in found)
    counted = [sum(item.reason.kind == "floor" for item in ranking.items) for ranking in found]
    assert set(counted) <= {int(10 * floor), int(10 * floor) + 1}
    for ranking, count in zip(found, counted, strict=True):
        assert all(item.reason.kind == "floor" for item in ranking.items[10 - count :]), "they stand at the end"
        assert all(item.score == pytest.approx(sum(item.parts.values())) for item in ranking.items)
    assert lists(lived, policy) == found, "the same seed gives the same list"


def test_a_list_that_holds_the_group_already_is_left_as_it_is(lived: Table) -> None:
    policy = dataclasses.replace(SMALL, floor_small_below=1.0, floor_small=0.5)
    assert lists(lived, policy, 40) == lists(lived, dataclasses.replace(policy, floor_small=0.0), 40)


def test_new_items_take_places_beside_those_that_are_explored(lived: Table) -> None:
    new = [f"wine-{number}" for number in range(90, 96)]
    lived.put([(record(item_id, published_at=NOW - 3600.0), vector_of(item_id)) for item_id in new])
    old = Policy(explore=False)
    before = share_of(lived, lists(lived, old), Protected.NEW, old)
    floor = before + 0.25
    assert share_of(lived, lists(lived, Policy(floor_new=floor)), Protected.NEW, old) == pytest.approx(floor, abs=0.03)
    both = Policy(floor_new=0.2, floor_small=0.3, floor_provider=MAKER, floor_small_below=0.1)
    found = lists(lived, both)
    assert share_of(lived, found, Protected.NEW, both) >= 0.2 - 0.02
    assert share_of(lived, found, Protected.SMALL, both) >= 0.3 - 0.02
    texts = {item.reason.text for ranking in found for item in ranking.items if item.reason.kind == "floor"}
    assert any("small provider" in text for text in texts)


def test_a_floor_shows_nobody_what_they_refused_met_or_can_not_have(lived: Table) -> None:
    small = [item_id for item_id in lived.rows if int(item_id.split("-")[1]) % 5 < 2]
    policy = dataclasses.replace(SMALL, floor_small=0.3)
    taken = set(floored(lists(lived, policy, 50)))
    assert taken <= set(small)
    left = taken
    while left:  # whoever steps in for those that are gone is of the group, and still none of these
        refused = frozenset(taken)
        left = set(floored(lists(lived, policy, 50, exclude=refused)))
        assert not left & refused
        taken |= left
    out = lists(lived, policy, 50, exclude=frozenset(taken))
    assert not floored(out)
    assert Counter(group for ranking in out for group in ranking.short)["small"] == 150, "what can't be held is told"
    for item_id in taken:
        lived.put([(record(item_id, available=False), vector_of(item_id))])
    assert not set(floored(lists(lived, policy, 50))) & taken


def test_what_a_user_blocks_stays_out(lived: Table) -> None:
    taken = set(floored(lists(lived, SMALL, 50)))
    state = UserState("u", profile=Profile("", blocked_items=tuple(taken)), history=user("wine-2", "wine-3").history)
    requests = [Request(state, NOW, seed=seed) for seed in range(50)]
    assert not {item for one in recommend(lived, requests, MODEL, SMALL) for item in one.item_ids} & taken


def test_what_is_owed_is_the_floor_on_average_and_the_same_for_the_same_seed() -> None:
    for floor, limit in ((0.05, 10), (0.2, 10), (0.13, 7), (1.0, 3)):
        owed = [places_owed(floor, limit, seed, "new") for seed in range(4000)]
        assert np.mean(owed) == pytest.approx(floor * limit, abs=0.03)
        assert set(owed) <= {int(floor * limit), min(limit, int(floor * limit) + 1)}
        assert owed == [places_owed(floor, limit, seed, "new") for seed in range(4000)]
    both = [(places_owed(0.05, 10, seed, "new"), places_owed(0.05, 10, seed, "small")) for seed in range(4000)]
    assert np.mean([first and second for first, second in both]) == pytest.approx(0.25, abs=0.03), "independent"


@given(st.data())
def test_places_go_to_the_best_of_a_group_as_far_as_there_are_candidates(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    limit = data.draw(st.integers(1, count))
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    scores = chance.normal(size=count).astype(np.float32)
    chosen = chance.permutation(count)[:limit].tolist()
    marks = dict.fromkeys(chosen[limit - data.draw(st.integers(0, min(2, limit))) :], EXPLORE)
    there = {group: chance.random(count) < chance.random() for group in Protected}
    first = data.draw(st.integers(0, limit))
    owed = {Protected.NEW: first, Protected.SMALL: data.draw(st.integers(0, limit - first))}
    order = with_floors(scores, chosen, marks, owed, there)
    assert len(set(order.places)) == len(order.places) == limit
    assert marks.items() <= order.marks.items()
    assert set(marks) <= set(order.places)
    came = [place for place in order.places if place not in chosen]
    assert [place for place in order.places if place in chosen] == [place for place in chosen if place in order.places]
    assert order.places[limit - len(came) :] == came
    assert {place: mark for place, mark in order.marks.items() if place not in marks}.keys() == set(came)
    short = Counter(order.short)
    for group in Protected:
        held = sum(bool(there[group][place]) for place in order.places)
        before = sum(bool(there[group][place]) for place in chosen)
        assert held + short[group] >= owed[group]
        mine = [place for place in came if order.marks[place] == group.value]
        assert all(there[group][place] for place in mine)
        assert len(mine) <= max(0, owed[group] - before)
        if not marks and not owed[next(other for other in Protected if other is not group)]:
            assert held >= min(owed[group], int(there[group].sum()))
            passed = [place for place in range(count) if there[group][place] and place not in order.places]
            assert not mine or not passed or scores[mine].min() >= scores[passed].max()
    if not any(owed.values()):
        assert order.places == chosen


def brute(table: Table, below: float) -> dict[str, bool]:
    """Which items are of small providers, from nothing but the records and their counts."""
    makers = {
        item_id: held.attributes.get("maker") for item_id in table.rows if (held := table.item(item_id)) is not None
    }
    wanted: Counter[object] = Counter()
    for item_id, maker in makers.items():
        wanted[maker] += table.counts.recent(np.array([table.rows[item_id]]), NOW)[0, SIXTY_DAYS]
    total = table.counts.totals(NOW)[SIXTY_DAYS]
    return {
        item_id: maker is not None and (total == 0 or wanted[maker] < below * total)
        for item_id, maker in makers.items()
    }


def told(table: Table, below: float) -> dict[str, bool]:
    rows = np.array(list(table.rows.values()))
    return dict(zip(table.rows, table.of_small_providers(rows, MAKER, below).tolist(), strict=True))


def test_who_is_small_is_counted_along_whatever_happens_to_items() -> None:
    table, chance = Table(DIMENSION, capacity=60), np.random.default_rng(8)
    table.of_small_providers(np.zeros(0, np.int64), MAKER, 0.1)
    stored: dict[str, ItemStatistics | None] = {}
    for step in range(300):
        item_id = f"{('wine', 'bread')[step % 2]}-{chance.integers(0, 60)}"
        if step % 3 == 0 or item_id not in table:
            changes = [
                {},
                {"attributes": {"maker": f"maker {chance.integers(0, 40)}"}},
                {"attributes": {}},
                {"deleted": True},
            ]
            table.put(
                [(record(item_id, first_seen=NOW + step, **changes[int(chance.integers(0, 4))]), vector_of(item_id))]
            )
        signals = signals_of(user(at=NOW), interaction(item_id, NOW - DAY * chance.integers(0, 90), offset=step))
        if step % 7 == 0:
            stored[item_id] = fold(stored.get(item_id), item_id, "events-0", step, signals)
            table.absorb([one for one in [stored[item_id]] if one is not None])
        else:
            table.observe(signals)
        if step % 20 == 0:
            for below in (0.003, 0.01, 0.05):
                assert told(table, below) == brute(table, below)
    assert set(told(table, 0.02).values()) == {False, True}
    kept = told(table, 0.02)
    table.of_small_providers(np.zeros(0, np.int64), "categories", 0.02)
    assert told(table, 0.02) == kept, "counted from the start, it is the same"
    providers = table.wording.providers(MAKER, table.records)
    assert len(providers._names) <= len(table.rows), "numbers of providers who left are given anew"


def test_before_all_events_every_provider_is_small_and_who_names_none_never() -> None:
    table = filled(5)
    table.put(
        [
            (record("wine-9", attributes={}), vector_of("wine-9")),
            (record("wine-8", attributes={"maker": [" Maker 1 ", "x"]}), vector_of("wine-8")),
        ]
    )
    assert all(small == (item_id != "wine-9") for item_id, small in told(table, 0.01).items())
    live_through(table, [["wine-8"]] * 3)
    small = told(table, 0.5)
    assert (small["wine-8"], small["wine-1"], small["wine-2"], small["wine-9"]) == (False, False, True, False)


def test_settings_and_arms_carry_floors_and_refuse_what_can_not_be_held() -> None:
    given = {"COLDSTREAM_FLOOR_SMALL": "0.1", "COLDSTREAM_FLOOR_PROVIDER": "attributes.brand"}
    trial = '{"plain": {"share": 0.5, "floor_small": 0}, "floor": {"share": 0.5, "floor_new": 0.2}}'
    plain, floor = Arms.of(load(given | {"COLDSTREAM_ARMS": trial})).all
    assert plain.policy.floors == {}
    assert plain.policy.watched == (Protected.SMALL,)
    assert floor.policy.floors == {Protected.NEW: 0.2, Protected.SMALL: 0.1}
    for wrong, sentence in (
        ({"COLDSTREAM_FLOOR_SMALL": "0.1"}, "floor_provider"),
        (given | {"COLDSTREAM_FLOOR_NEW": "0.95"}, "more than all places"),
        ({"COLDSTREAM_FLOOR_PROVIDER": "brand"}, "attributes.NAME"),
        ({"COLDSTREAM_FLOOR_PROVIDER": "attributes."}, "attributes.NAME"),
        ({"COLDSTREAM_FLOOR_NEW": "1.5"}, "range"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            Arms.of(load(wrong))
