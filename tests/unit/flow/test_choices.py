"""What users choose is compared with the list that they had, with what is popular, and joined with the list they name."""

from __future__ import annotations

import dataclasses

import pytest

from streams.decide.arms import Arm, Arms
from streams.flow.quality import Quality
from streams.flow.report import Made
from streams.metrics import Metrics
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
    assert report.places == {"cold": 8, "new": 0, "other": 0}
    (diversity,) = report.diversities
    assert 0.0 < diversity < 1.5
    census = service.parts.quality.census(service.clock.now(), service.encoder.name)
    assert census.covered == 1.0
    assert census.cold == 1.0
    assert census.foreign == 0.0
    assert service.parts.quality.census(service.clock.now() + 7200, "another").covered == 0.0
    assert service.parts.quality.census(service.clock.now(), "another").foreign == 1.0
