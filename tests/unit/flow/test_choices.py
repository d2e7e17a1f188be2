"""What users choose is compared with the list that they had, with what is popular, and joined with the list they name."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest

from evaluation.beyond import _gini
from streams.decide.arms import Arm, Arms
from streams.decide.policy import Policy
from streams.flow.catalogue import Exposure, gini
from streams.flow.quality import Quality
from streams.flow.report import Made
from streams.metrics import Metrics
from streams.wire import Recommendation
from tests.support.service import Service, ids

ITEMS = [(f"tea{number}", f"green tea number {number}") for number in range(4)]
ITEMS += [(f"tool{number}", f"steel tool number {number}") for number in range(4)]


@pytest.fixture
async def service() -> Service:
    service = await Service().open()
    await service.feed(*(service.log.item(item_id, title) for item_id, title in ITEMS))
    return service


async def test_a_choice_is_counted_by_the_place_it_had_in_the_last_list(service: Service) -> None:
    await service.feed(service.log.user("ann", "green tea"))
    before = ids(service.lists()[-1])
    await service.feed(service.log.event("e1", "ann", "like", before[1]))
    report = service.reports[-1]
    assert report.choices["coldstream", "2", "cold"] == 1
    assert report.hits["coldstream", "profile", "", "cold", "yes"] == 1
    assert sum(count for (whose, _, _), count in report.choices.items() if whose == "popular") == 1
    await service.feed(service.log.event("e2", "ann", "like", before[1]))
    assert not service.reports[-1].choices, "somebody who has met it already chooses nothing new"


async def test_only_wanted_items_and_users_with_a_list_count(service: Service) -> None:
    await service.feed(service.log.event("e1", "bob", "like", "tea1"))
    assert not service.reports[-1].choices, "there was no list yet"
    await service.feed(
        service.log.event("e2", "bob", "dislike", "tea2"), service.log.event("e3", "bob", "search", query="tea")
    )
    assert not service.reports[-1].choices
    await service.feed(service.log.event("e4", "bob", "like", "never heard of"))
    assert service.reports[-1].choices["coldstream", "none", "known"] == 1


async def test_the_popular_list_leads_with_what_many_chose(service: Service) -> None:
    many = 70  # what is popular is found again after 64 events
    await service.feed(*(service.log.event(f"p{number}", f"u{number}", "like", "tool3") for number in range(many)))
    await service.settle()
    await service.feed(service.log.user("ann", "green tea"))
    await service.feed(service.log.event("e1", "ann", "like", "tool3"))
    assert service.reports[-1].choices["popular", "1", "cold"] == 1


async def test_an_event_is_joined_with_the_list_that_it_names(service: Service) -> None:
    await service.feed(service.log.user("ann", "green tea"))
    shown = service.lists()[-1]
    second = ids(shown)[1]
    made = Made("profile", "", "prior")
    assert service.reports[-1].list_outcomes == {("sent", made): 1}
    named = {"recommendation_id": shown["recommendation_id"]}
    await service.feed(
        service.log.event("e1", "ann", "click", second, **named),
        service.log.event("e2", "ann", "view", second, **named),
        service.log.event("e3", "ann", "purchase", second, **named),
        service.log.event("e4", "ann", "dislike", ids(shown)[0], **named),
    )
    report = service.reports[-1]
    assert report.attributed == {(kind, "listed"): 1 for kind in ("click", "view", "purchase", "dislike")}
    assert report.list_events == {("click", "2", "", "cold"): 3, ("conversion", "2", "", "cold"): 1}
    assert report.list_outcomes["clicked", made] == 1, "a list is clicked once, however often"
    assert report.list_outcomes["converted", made] == 1
    assert report.list_ranks == {("clicked", made): 2, ("converted", made): 2}
    metrics = Metrics()
    metrics.observe(report)
    expected = 'coldstream_list_outcomes_total{arm="",outcome="clicked",ranker="prior",strategy="profile"} 1.0'
    assert expected in metrics.render().decode()


async def test_what_names_no_list_or_another_item_is_told_apart(service: Service) -> None:
    await service.feed(service.log.user("ann", "green tea"))
    named = {"recommendation_id": service.lists()[-1]["recommendation_id"]}
    await service.feed(
        service.log.event("e1", "ann", "click", "tea1", recommendation_id="long ago"),
        service.log.event("e2", "ann", "click", "never heard of", **named),
        service.log.event("e3", "ann", "click", "tea2"),
    )
    report = service.reports[-1]
    assert report.attributed == {("click", "forgotten"): 1, ("click", "elsewhere"): 1}
    assert not report.list_events


async def test_memory_is_bounded_and_forgets_the_erased(service: Service) -> None:
    quality = Quality(service.parts.catalogue.columns, service.setting.arms, lists=3)
    service.parts = dataclasses.replace(service.parts, quality=quality)
    service.setting = dataclasses.replace(service.setting, parts=service.parts)
    service._make_worker()
    await service.worker.assigned({})
    for number in range(5):
        await service.feed(service.log.user(f"u{number}", "green tea"))
    assert len(quality._by_id) == len(quality._by_user) == 3
    await service.feed(service.log.user("u4", None))
    assert set(quality._by_user) == {"u2", "u3"}


async def test_lists_are_made_and_counted_by_arm(service: Service) -> None:
    policy = service.setting.arms.policy
    arms = Arms(policy, [Arm(policy, "short", 0.5), Arm(dataclasses.replace(policy, list_size=2), "shorter", 0.5)])
    service.setting = dataclasses.replace(service.setting, arms=arms)
    service._make_worker()
    users = [f"u{number}" for number in range(20)]
    await service.feed(*(service.log.user(user, "green tea") for user in users))
    lists = {one["user_id"]: one for one in service.lists()}
    assert {one["arm"] for one in lists.values()} == {"short", "shorter"}
    for user, one in lists.items():
        assert one["arm"] == arms.of_user(user).name
        assert len(ids(one)) == (2 if one["arm"] == "shorter" else 8)
    sent = {made.arm: count for (outcome, made), count in service.reports[-1].list_outcomes.items()}
    assert sum(sent.values()) == len(users)
    assert set(sent) == {"short", "shorter"}


async def test_what_lists_are_made_of_and_how_much_of_the_catalogue_they_show(service: Service) -> None:
    await service.feed(service.log.user("ann", "green tea"))
    report = service.reports[-1]
    assert report.places == {("cold", ""): 8, ("new", ""): 0, ("other", ""): 0}
    ((arm, diversity),) = report.diversities
    assert arm == ""
    assert 0.0 < diversity < 1.5
    census = service.parts.quality.exposure.census(service.clock.now(), service.encoder.name)
    assert census.reach[""].coverage == 1.0
    assert census.cold == 1.0
    assert census.foreign == 0.0
    assert service.parts.quality.exposure.census(service.clock.now() + 7200, "another").reach[""].coverage == 0.0
    assert service.parts.quality.exposure.census(service.clock.now(), "another").foreign == 1.0


async def test_places_of_groups_with_a_floor_are_counted_beside_what_they_were_promised(service: Service) -> None:
    arms = Arms(Policy(explore=False, list_size=4, floor_new=0.5))
    quality = Quality(service.parts.catalogue.columns, arms)
    service.parts = dataclasses.replace(service.parts, quality=quality)
    service.setting = dataclasses.replace(service.setting, parts=service.parts, arms=arms)
    service._make_worker()
    await service.worker.assigned({})
    await service.feed(service.log.user("ann", "green tea"))
    assert service.reports[-1].floors == {
        ("new", "all", ""): 4, ("new", "promised", ""): 2.0, ("new", "held", ""): 4, ("new", "short", ""): 0,
    }  # fmt: skip
    shown = service.lists()[-1]
    quality.remember(msgspec.convert(shown, Recommendation), service.clock.now(), known=False, short=("new", "new"))
    service.clock.at += 30 * 86_400.0
    await service.feed(service.log.user("bob", "green tea"))
    floors = service.reports[-1].floors
    assert (floors["new", "all", ""], floors["new", "held", ""]) == (8, 4), "after a month nothing is new any more"
    assert floors["new", "short", ""] == 2 + 2
    metrics = Metrics()
    metrics.observe(service.reports[-1])
    assert 'coldstream_floor_places_total{arm="",group="new",places="short"} 4.0' in metrics.render().decode()


async def test_a_worker_holds_a_floor_and_says_so_in_the_list(service: Service) -> None:
    policy = Policy(
        explore=False, list_size=3, floor_small=1 / 3, floor_provider="attributes.maker", floor_small_below=0.2
    )
    arms = Arms(policy)
    service.parts = dataclasses.replace(service.parts, quality=Quality(service.parts.catalogue.columns, arms))
    service.setting = dataclasses.replace(service.setting, parts=service.parts, arms=arms)
    service._make_worker()
    await service.worker.assigned({})
    for item_id, title in ITEMS:
        await service.feed(service.log.item(item_id, title, attributes={"maker": "Big" if "tea" in title else "Small"}))
    await service.feed(
        *(service.log.event(f"p{number}", f"u{number}", "like", f"tea{number % 4}") for number in range(40))
    )
    await service.settle()
    await service.feed(service.log.user("ann", "green tea"))
    items = service.lists()[-1]["items"]
    assert [item["item_id"][:-1] for item in items] == ["tea", "tea", "tool"]
    assert [item["reason"]["kind"] == "floor" for item in items] == [False, False, True]
    floors = service.reports[-1].floors
    assert (floors["small", "held", ""], floors["small", "promised", ""]) == (1, pytest.approx(1.0))
    await service.feed(*(service.log.item(f"tool{number}", None) for number in range(4)))
    await service.feed(service.log.user("bob", "green tea"))
    assert {item["item_id"][:-1] for item in service.lists()[-1]["items"]} == {"tea"}
    assert service.reports[-1].floors["small", "short", ""] >= 1, "nobody small is left"


async def test_lists_are_told_apart_by_whether_their_user_has_a_history(service: Service) -> None:
    await service.feed(service.log.user("ann", "green tea"), service.log.event("e1", "bob", "like", "tool1"))
    assert service.reports[-1].list_users == {("sent", "cold"): 1, ("sent", "known"): 1}
    ann, bob = sorted(service.lists(), key=lambda one: one["user_id"])
    await service.feed(
        service.log.event("e2", "ann", "like", ids(ann)[0], recommendation_id=ann["recommendation_id"]),
        service.log.event("e3", "bob", "click", ids(bob)[0], recommendation_id=bob["recommendation_id"]),
    )
    users = service.reports[-1].list_users
    assert (users["clicked", "cold"], users["converted", "cold"]) == (1, 1), "a list is its user's as it was made"
    assert (users["clicked", "known"], users["converted", "known"]) == (1, 0)


async def test_an_item_was_cold_if_it_was_so_when_it_was_shown(service: Service) -> None:
    await service.feed(service.log.user("ann", "green tea"), service.log.user("bob", "green tea"))
    item = ids(service.lists()[0])[0]
    named = [{"recommendation_id": one["recommendation_id"]} for one in service.lists()]
    await service.feed(service.log.event("e1", "ann", "click", item, **named[0]))
    await service.settle()
    await service.feed(service.log.event("e2", "bob", "click", item, **named[1]))
    assert {kind for _, _, _, kind in service.reports[-1].list_events} == {"cold"}
    await service.feed(service.log.user("cy", "green tea"))
    assert service.reports[-1].places["new", ""] == 1, "met by now"
    shown = service.lists()[-1]
    await service.feed(service.log.event("e3", "cy", "click", item, recommendation_id=shown["recommendation_id"]))
    assert {kind for _, _, _, kind in service.reports[-1].list_events} == {"warm"}


async def test_the_first_list_of_a_new_item_is_timed_and_no_later_one(service: Service) -> None:
    service.clock.at += 5.0
    await service.feed(service.log.user("ann", "green tea"))
    first = service.reports[-1].first_seconds
    assert len(first) == len(ITEMS)
    assert all(seconds == pytest.approx(5.0, abs=0.5) for seconds in first)
    await service.feed(service.log.user("bob", "green tea"))
    assert not service.reports[-1].first_seconds


async def test_what_came_before_the_process_is_no_new_item(service: Service) -> None:
    exposure = Exposure(service.parts.catalogue.columns, [""], service.clock.now() + 60)
    assert exposure.note("", np.arange(len(ITEMS)), service.clock.now() + 61) == []
    await service.feed(service.log.item("late", "green tea, late", published_at=service.clock.now() + 70))
    row = np.array([service.parts.catalogue.columns.rows["late"]])
    assert exposure.note("", row, service.clock.now() + 72) == pytest.approx([2.0], abs=0.1)


async def test_exposure_is_measured_by_arm_and_fades(service: Service) -> None:
    columns, now = service.parts.catalogue.columns, service.clock.now()
    rows = [columns.rows[item_id] for item_id, _ in ITEMS]
    exposure = Exposure(columns, ["even", "narrow", "idle"], 0.0)
    for _ in range(4):
        exposure.note("even", np.array(rows), now)
        exposure.note("narrow", np.array(rows[:1]), now)
    census = exposure.census(now, "")
    even, narrow, idle = (census.reach[arm] for arm in ("even", "narrow", "idle"))
    assert (even.coverage, narrow.coverage, idle.coverage) == (1.0, 1 / len(ITEMS), 0.0)
    assert even.gini == pytest.approx(0.0)
    assert narrow.gini == pytest.approx(1 - 1 / len(ITEMS))
    assert even.novelty == pytest.approx(math.log2(len(ITEMS))), "nobody has met any: all alike"
    assert math.isnan(idle.gini) and math.isnan(idle.novelty)  # noqa: PT018
    exposure.census(now + 7200, "")  # the app takes one every ten seconds: there exposure fades
    for _ in range(4):
        exposure.note("narrow", np.array(rows[1:2]), now + 7200)
    later = exposure.census(now + 7200, "").reach
    assert later["narrow"].gini == pytest.approx(_gini(np.array([1.0, 4.0, *[0.0] * 6]))), "faded to a quarter"
    assert later["even"].coverage == 0.0


async def test_what_many_have_met_is_less_of_a_novelty(service: Service) -> None:
    await service.feed(*(service.log.event(f"e{number}", f"u{number}", "like", "tea0") for number in range(40)))
    await service.settle()
    columns, now = service.parts.catalogue.columns, service.clock.now()
    exposure = Exposure(columns, ["popular", "rare"], 0.0)
    exposure.note("popular", np.array([columns.rows["tea0"]]), now)
    exposure.note("rare", np.array([columns.rows["tool0"]]), now)
    reach = exposure.census(now, "").reach
    assert reach["popular"].novelty == pytest.approx(-math.log2(41 / 48))
    assert reach["rare"].novelty == pytest.approx(-math.log2(1 / 48))


@pytest.mark.parametrize("amounts", [[1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 5.0], [0.3, 2.0, 0.0, 7.5, 1.0]])
def test_the_gini_coefficient_is_the_evaluations(amounts: list[float]) -> None:
    assert gini(np.array(amounts)) == pytest.approx(_gini(np.array(amounts)))
