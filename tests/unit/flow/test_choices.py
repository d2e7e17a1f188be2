"""What users choose is compared with the list that they had, and with what is popular."""

from __future__ import annotations

import pytest

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
    choices = service.reports[-1].choices
    assert choices["coldstream", "2", "cold"] == 1
    assert sum(count for (whose, _, _), count in choices.items() if whose == "popular") == 1
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


async def test_events_that_name_a_list_are_counted_and_shown(service: Service) -> None:
    await service.feed(
        service.log.event("e1", "ann", "click", "tea1", recommendation_id="r1"),
        service.log.event("e2", "ann", "click", "tea2"),
    )
    report = service.reports[-1]
    assert report.attributed == {"click": 1}
    metrics = Metrics()
    metrics.observe(report)
    assert b'coldstream_attributed_events_total{type="click"} 1.0' in metrics.render()
