"""Lists: what they hold, what they may never hold, what they say of themselves."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from streams.decide.compiled import FOLDER, is_kept
from streams.decide.policy import Policy
from streams.decide.ranker import Model
from streams.decide.recommend import Request, floor_of, learn_vectors, lesson_of, recommend
from streams.decide.rerank import rerank
from streams.decide.table import Table
from streams.decide.taste import taste_of, taste_vector, texts_of
from streams.decide.warmup import warm_up
from streams.values import EventType, Exclusion, Interaction, Profile, Ranking, Strategy, UserState
from tests.unit.decide.catalogue import (
    DAY,
    DIMENSION,
    KINDS,
    NOW,
    filled,
    interaction,
    live_through,
    record,
    user,
    vector_of,
)

POLICY = Policy()
MODEL = Model.prior()


def ranked(table: Table, state: UserState, policy: Policy = POLICY, **more: object) -> Ranking:
    return recommend(table, [Request(state, NOW, **more)], MODEL, policy)[0]  # type: ignore[arg-type]


def kinds(ranking: Ranking) -> list[str]:
    return [item_id.split("-")[0] for item_id in ranking.item_ids]


@pytest.fixture
def lived() -> Table:
    table = filled()
    chance = np.random.default_rng(3)
    live_through(table, [[f"{KINDS[n % 2]}-{k}" for k in chance.permutation(20)[:8]] for n in range(40)])
    return table


def test_a_history_of_one_kind_leads_to_that_kind(lived: Table) -> None:
    ranking = ranked(lived, user("wine-1", "wine-2", "wine-3"))
    assert ranking.strategy is Strategy.PERSONAL or ranking.strategy is Strategy.SESSION
    assert len(ranking.items) == 10
    assert kinds(ranking).count("wine") >= 8


def test_parts_sum_to_the_score(lived: Table) -> None:
    for state in (user("wine-1"), user(), UserState("p", profile=Profile("good bread"))):
        for item in ranked(lived, state, texts={"good bread": vector_of("bread-1")}).items:
            assert sum(item.parts.values()) == pytest.approx(item.score, abs=1e-5)


def test_all_users_of_a_batch_get_what_they_would_get_alone(lived: Table) -> None:
    states = [user("wine-1", "bread-2"), user(), user("bread-3", "bread-4", "bread-9")] * 7
    together = recommend(lived, [Request(state, NOW) for state in states], MODEL, POLICY)
    for state, ranking in zip(states, together, strict=True):
        assert ranking.item_ids == ranked(lived, state).item_ids


def test_the_reason_names_an_item_of_the_history(lived: Table) -> None:
    for item in ranked(lived, user("wine-1", "wine-2")).items:
        if item.reason.kind in ("history", "similar_users"):
            assert item.reason.item_id in ("wine-1", "wine-2")
            title = lived.item(item.reason.item_id)
            assert title is not None
            assert title.title in item.reason.text


def test_excluded_blocked_and_withdrawn_items_are_never_there(lived: Table) -> None:
    gone = [("wine-4", {"deleted": True}), ("wine-5", {"available": False}), ("wine-6", {"expires_at": NOW - 1}),
            ("wine-7", {"published_at": NOW + 1})]  # fmt: skip
    lived.put([(record(item_id, **changes), vector_of(item_id)) for item_id, changes in gone])
    state = UserState(
        "u", history=user("wine-1").history,
        exclusions=(Exclusion(NOW - DAY, "wine-2", EventType.PURCHASE),),
        profile=Profile(blocked_items=("wine-3",), blocked_categories=("wines 0",)),
    )  # fmt: skip
    found = ranked(lived, state, limit=40, exclude=frozenset({"wine-9"})).item_ids
    assert found
    assert len(set(found)) == len(found)
    for item_id in ("wine-2", "wine-3", "wine-9", *(one for one, _ in gone)):
        assert item_id not in found
    records = [lived.item(item_id) for item_id in found]
    assert not any(one is not None and "wines 0" in one.categories for one in records)


def test_an_exclusion_ends_when_policy_says_so(lived: Table) -> None:
    state = UserState("u", exclusions=(Exclusion(NOW - DAY, "wine-2", EventType.PURCHASE),))
    for seconds, there in ((2 * DAY, False), (DAY / 2, True), (-1.0, False)):
        policy = Policy(exclude_seconds={"purchase": seconds}, category_cap=10)
        assert ("wine-2" in ranked(lived, state, policy, limit=40).item_ids) is there


def test_a_category_can_be_asked_for(lived: Table) -> None:
    ranking = ranked(lived, user("wine-1"), category="breads 1")
    assert ranking.items
    assert all("breads 1" in (lived.item(item_id) or record("x-0")).categories for item_id in ranking.item_ids)


def test_at_most_half_of_a_list_is_of_one_category_unless_the_user_takes_it() -> None:
    table = Table(DIMENSION)
    table.put(
        [(record(f"wine-{n}", categories=("same",)), vector_of(f"wine-{n}")) for n in range(20)]
        + [(record(f"bread-{n}", categories=(f"bread {n}",)), vector_of(f"bread-{n}")) for n in range(80)]
    )
    rows = np.arange(100)
    scores = np.linspace(2, 1, 100).astype(np.float32)  # all wines before all breads

    def same(state: UserState, limit: int = 10, **more: object) -> int:
        taste = taste_of(table, Request(state, NOW, limit, seed=1, **more), POLICY)  # type: ignore[arg-type]
        places, *_ = rerank(table, rows, scores, taste, POLICY)
        assert len(set(places)) == limit
        return sum(place < 20 for place in places)

    assert same(UserState("x")) == 5
    assert same(UserState("x"), limit=4) == 2
    assert same(user("bread-1", "bread-2", "bread-3")) == 5
    assert same(user("wine-1", "wine-2", "wine-3")) == 10
    assert same(UserState("x"), category="same") == 10


@pytest.mark.parametrize(
    ("state", "texts", "query", "strategy", "kind"),
    [
        (UserState("p", profile=Profile("good bread")), {"good bread": vector_of("bread-0")},
         None, Strategy.PROFILE, "bread"),
        (UserState("q"), {"red": vector_of("wine-0")}, "red", Strategy.SESSION, "wine"),
        (UserState("s", history=(interaction(None, kind=EventType.SEARCH, query="red"),)), {"red": vector_of("wine-0")},
         None, Strategy.SESSION, "wine"),
    ],
)  # fmt: skip
def test_words_alone_give_a_personal_list(
    lived: Table, state: UserState, texts: dict[str, np.ndarray], query: str | None, strategy: Strategy, kind: str
) -> None:
    ranking = ranked(lived, state, texts=texts, query=query)
    assert ranking.strategy is strategy
    assert kinds(ranking).count(kind) >= 8
    assert ranking.items[0].reason.kind == ("profile" if strategy is Strategy.PROFILE else "wish")


def test_a_stranger_gets_the_popular_and_before_all_events_the_newest(lived: Table) -> None:
    live_through(lived, [["bread-7"]] * 30, at=NOW - DAY)
    popular = ranked(lived, UserState("x"))
    assert (popular.strategy, popular.item_ids[0]) == (Strategy.POPULAR, "bread-7")
    table = Table(DIMENSION)
    table.put([(record(f"wine-{n}", published_at=NOW - n * DAY), vector_of(f"wine-{n}")) for n in range(1, 30)])
    newest = ranked(table, UserState("x"))
    assert newest.strategy is Strategy.NEWEST
    assert newest.item_ids[0] == "wine-1"


def test_new_items_get_the_last_two_places_of_one_list_in_ten_and_of_those_that_are_made_for_them(lived: Table) -> None:
    new = [f"wine-{number}" for number in range(50, 53)]
    lived.put([(record(item_id, published_at=NOW - 3600.0), vector_of(item_id)) for item_id in new])
    state = user(*(f"bread-{n}" for n in range(6)))
    ranking = ranked(lived, state)
    explored = [item for item in ranking.items if item.reason.kind == "explore"]
    assert 0 < len(explored) <= 2
    assert {item.item_id for item in explored} <= set(new)
    assert ranking.items[-len(explored) :] == tuple(explored)

    def explores(policy: Policy = POLICY, **more: object) -> bool:
        return any(item.reason.kind == "explore" for item in ranked(lived, state, policy, **more).items)

    assert [explores(seed=seed) for seed in range(12)] == [True, *[False] * 9, True, False]
    for item_id in (*new, "wine-49"):  # the list that is made for an item has it, whatever else is new
        lived.put([(record(item_id, published_at=NOW - 3600.0), vector_of(item_id))])
        assert item_id in ranked(lived, state, seed=1, came=frozenset({item_id})).item_ids
        assert not explores(Policy(explore=False), came=frozenset({item_id}))


def test_an_item_that_came_after_the_newest_event_is_new_too(lived: Table) -> None:
    lived.put([(record("wine-50", first_seen=NOW + 50 * DAY), vector_of("wine-50"))])
    state = user(*(f"wine-{n}" for n in range(6)))

    def explored(clock: float | None) -> list[str]:
        items = ranked(lived, state, seed=0, clock=clock).items
        return [item.item_id for item in items if item.reason.kind == "explore"]

    assert explored(NOW + 50 * DAY + 1) == ["wine-50"]
    assert explored(NOW + 58 * DAY) == []
    assert explored(None) == []


def test_a_wish_fades_with_what_comes_after_it_and_the_reason_names_the_one_that_counts(lived: Table) -> None:
    texts = {"red": vector_of("wine-0"), "loaf": vector_of("bread-0")}

    def asked(query: str, at: float) -> Interaction:
        return interaction(None, at, EventType.SEARCH, query=query)

    def wishes(*history: Interaction) -> int:
        ranking = ranked(lived, UserState("u", history=history), texts=texts, seed=1)
        return sum(item.reason.kind == "wish" for item in ranking.items)

    clicks = [interaction(f"bread-{n % 8}", NOW - 100 + n, offset=n) for n in range(24)]
    fresh = wishes(*clicks, asked("red", NOW))
    amid = wishes(*clicks[:15], asked("red", NOW - 85), *clicks[15:])
    assert fresh == 10
    assert amid < fresh
    assert wishes(asked("red", NOW - 200), *clicks) == 0
    assert wishes(*(one for one in clicks[:1]), asked("red", NOW - 9 * DAY)) == 0

    state = UserState("u", history=(asked("red", NOW - 2), asked("loaf", NOW - 1)))
    both = ranked(lived, state, texts=texts, seed=1, limit=30)
    named = {item.item_id.partition("-")[0]: item.reason.text for item in both.items if item.reason.kind == "wish"}
    assert named == {"wine": "fits your search: red", "bread": "fits your search: loaf"}


def test_nothing_is_too_little() -> None:
    empty = Table(DIMENSION)
    for state in (UserState("x"), user("wine-1"), UserState("p", profile=Profile("bread"))):
        assert ranked(empty, state).items == ()
    assert recommend(empty, [], MODEL, POLICY) == []
    one = Table(DIMENSION)
    one.put([(record("wine-1"), vector_of("wine-1"))])
    assert ranked(one, UserState("x")).item_ids == ("wine-1",)
    assert ranked(one, UserState("x"), limit=0).items == ()


def test_a_taste_points_where_the_history_does(lived: Table) -> None:
    taste = taste_vector(lived, user("wine-1", "wine-2"), {}, POLICY, NOW)
    assert taste is not None
    assert np.linalg.norm(taste) == pytest.approx(1.0, abs=1e-5)
    assert vector_of("wine-9") @ taste > vector_of("bread-9") @ taste
    assert taste_vector(lived, UserState("x"), {}, POLICY, NOW) is None
    ranking = ranked(lived, user("wine-1", "wine-2"))
    assert floor_of(lived, taste, ranking) == pytest.approx(
        min(float(vector_of(item_id) @ taste) for item_id in ranking.item_ids), abs=1e-2
    )
    assert floor_of(lived, None, ranking) == 1.0


def test_the_texts_of_a_user_are_profile_and_last_searches() -> None:
    searches = tuple(interaction(None, NOW + n, EventType.SEARCH, n, query=f"q{n}") for n in range(5))
    state = UserState("u", history=searches, profile=Profile("me", ("tea",)))
    assert texts_of(state) == ["me. tea", "q4", "q3", "q2"]
    assert texts_of(state, "now") == ["me. tea", "now", "q4", "q3"]


def test_a_lesson_holds_what_was_chosen_first_and_is_none_for_what_was_no_candidate(lived: Table) -> None:
    request = Request(user("wine-1", "wine-2"), NOW, exclude=frozenset({"wine-1", "wine-2"}))
    lesson = lesson_of(lived, request, ["wine-3", "beer-1"], POLICY)
    assert lesson is not None
    assert (lesson.targets, lesson.cold) == (1, False)
    assert len(lesson.grid) == 1 + min(64, lesson.pool - 1)
    assert lesson_of(lived, request, ["wine-1"], POLICY) is None


def signatures() -> dict[str, list[object]]:
    """What each compiled loop was compiled for, so far."""
    pages = [page for name, page in sys.modules.items() if name.startswith("streams.decide.")]
    loops = [one for page in pages for one in vars(page).values() if isinstance(one, Dispatcher)]
    return {f"{loop.py_func.__module__}.{loop.__name__}": list(loop.signatures) for loop in loops}


def test_what_was_compiled_at_the_start_is_all_that_lists_need(lived: Table) -> None:
    warm_up()
    before = signatures()
    assert len(before) > 20
    lived.put([(record("wine-90", published_at=NOW - DAY), vector_of("wine-90"))])
    lived.put([(record("bread-3", title="other words"), vector_of("bread-3"))])
    states = [user("wine-1", "bread-2"), user(), UserState("p", profile=Profile("good bread"))]
    among = np.ones(len(lived.live), np.bool_)
    ranked(lived, states[0], among=among, category="wines 1", query="wine", came=frozenset({"wine-90"}))
    recommend(
        lived, [Request(state, NOW, texts={"good bread": vector_of("bread-1")}) for state in states], MODEL, POLICY
    )
    lesson = lesson_of(lived, Request(states[0], NOW), ["wine-5"], POLICY)
    assert lesson is not None
    learn_vectors(lived, lesson)
    lived.put([(record("wine-91"), vector_of("wine-91"))])
    live_through(lived, [["wine-90", "bread-3", "wine-1"]])
    assert signatures() == before
    assert is_kept() == (FOLDER is not None)
