"""Items that come and go: withdrawn, expired and published ones, and the lists that hold or lack them."""

from __future__ import annotations

import pytest

from streams.flow.upkeep import LOOK_BACK_SECONDS
from streams.values import Topic
from tests.support.service import Service, ids

DAY = 86_400.0


@pytest.fixture
async def service() -> Service:
    """Ann wants a saw, and has three of four in her list (the fourth opens tomorrow)."""
    service = await Service().open()
    now = service.clock.at
    await service.feed(
        service.log.item("saw", "hand saw for wood"),
        service.log.item("saw-of-today", "hand saw for wood and bone", expires_at=now + DAY),
        service.log.item("saw-of-tomorrow", "hand saw for wood, new", published_at=now + DAY, partition=1),
        service.log.item("tea", "green tea from japan"),
    )
    await service.feed(service.log.user("ann", "a hand saw for wood"))
    await service.settle()
    assert set(ids(service.lists()[-1])) == {"saw", "saw-of-today", "tea"}
    return service


async def _day_after(service: Service) -> None:
    service.clock.at += DAY
    await service.worker.maintain()
    await service.settle()


async def test_time_alone_opens_and_closes_items_and_refreshes_lists(service: Service) -> None:
    lists = len(service.lists())
    await service.worker.maintain()
    assert len(service.lists()) == lists
    await _day_after(service)
    assert set(ids(service.lists()[-1])) == {"saw", "saw-of-tomorrow", "tea"}
    assert service.lists()[-1]["trigger"]["kind"] == "item"
    sent = len(service.publisher.sent)
    await service.worker.maintain()
    assert len(service.publisher.sent) == sent, "once is enough"


async def test_what_came_or_went_while_nobody_owned_it_is_made_up_for(service: Service) -> None:
    service.clock.at += DAY + LOOK_BACK_SECONDS / 2
    successor = await Service(index=service.index).open()
    successor.clock.at = service.clock.at
    await successor.worker.maintain()
    await successor.settle()
    assert set(ids(successor.lists()[-1])) == {"saw", "saw-of-tomorrow", "tea"}


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"available": False}, True),
        ({"expires_at": 1.0}, True),
        ({"published_at": 1_900_000_000}, True),
        ({"price": 5}, False),
    ],
)
async def test_an_item_that_a_record_puts_out_of_reach_leaves_last_lists(
    service: Service, changes: dict[str, object], *, gone: bool
) -> None:
    lists = len(service.lists())
    await service.feed(service.log.item("saw", "hand saw for wood", **changes))
    await service.settle()
    assert (len(service.lists()) > lists) is gone
    assert ("saw" in ids(service.lists()[-1])) is not gone
    before = len(service.publisher.sent)
    await service.feed(service.log.item("saw", "hand saw for wood", **changes))
    assert len(service.publisher.sent) == before, "said again it is no news"


async def test_an_item_that_is_published_sooner_than_was_said_is_fanned_out(service: Service) -> None:
    await service.feed(
        service.log.item("saw-of-tomorrow", "hand saw for wood, new", published_at=service.clock.at, partition=1)
    )
    await service.settle()
    assert "saw-of-tomorrow" in ids(service.lists()[-1])


async def test_withdrawals_beyond_the_budget_wait_and_none_is_forgotten(service: Service) -> None:
    service.parts.fan_out._budget.per_second = 2.0
    for number in range(10):
        await service.feed(service.log.user(f"u{number}", "a hand saw for wood"))
    service.clock.at += 1.0
    before = len(service.lists())
    await service.feed(service.log.record(Topic.ITEMS, "saw", None))
    refreshes = [message for message in service.publisher.sent if message.topic is Topic.REFRESHES]
    assert 0 < len(refreshes) < 11
    for _ in range(10):
        await service.settle()
    assert len(service.lists()) - before == 11
    assert not any("saw" in ids(one) for one in service.lists()[before:])
