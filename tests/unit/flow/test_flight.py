"""What becomes of a batch whose lists are on their way when the next one comes."""

from __future__ import annotations

from streams.errors import BrokerUnavailableError
from streams.flow.parts import REBALANCE
from streams.values import Topic
from tests.support.service import Service


async def test_the_next_batch_is_prepared_while_the_lists_of_the_last_are_on_their_way(monkeypatch):
    service = await Service().open()
    done: list[int] = []
    prepare = service.worker._flight._pipeline.prepare

    async def noted(records):
        done.append(len(service.ownership.done))
        return await prepare(records)

    monkeypatch.setattr(service.worker._flight._pipeline, "prepare", noted)
    first, second = (service.log.event(f"e{number}", "ann", "search", query="red") for number in range(2))
    await service.worker.step([first])
    assert service.worker.under_way
    assert service.ownership.done == []
    await service.worker.step([second])
    assert done == [0, 0], "the second was prepared before the first was acknowledged"
    assert service.ownership.done == [first]
    assert await service.worker.settle()
    assert service.ownership.done == [first, second]
    state = await service.state("ann")
    assert state is not None
    assert len(state.history) == 2, "it was prepared on what the first one wrote"


async def test_lists_that_were_not_taken_are_made_again_before_the_next_batch(monkeypatch):
    service = await Service().open()
    first, second = (service.log.event(f"e{number}", "ann", "search", query="red") for number in range(2))
    hand_over, failures = service.publisher.hand_over, [BrokerUnavailableError("away")]

    class Lost:
        def __await__(self):
            raise failures.pop()
            yield

    async def once_lost(messages):
        if failures and messages[0].topic is Topic.RECOMMENDATIONS:
            return Lost()
        return await hand_over(messages)

    monkeypatch.setattr(service.publisher, "hand_over", once_lost)
    await service.worker.step([first])
    await service.worker.step([second])
    await service.worker.settle()
    assert [one["trigger"]["id"] for one in service.lists()] == ["e0", "e1"]
    assert [one["version"] for one in service.lists()] == [2, 3], "the first was written once more, as a redelivery"
    assert service.ownership.done == [first, second]


async def test_a_finished_batch_is_told_of_before_the_next_one_is_given_up():
    service = await Service().open()
    told: list[tuple[str, int]] = []
    object.__setattr__(service.setting.hooks, "on_abandoned", lambda why: told.append((why, len(service.reports))))
    first, second = (service.log.event(f"e{number}", "ann", "search", query="red") for number in range(2))
    await service.worker.step([first])
    service.ownership.why = REBALANCE
    await service.worker.step([second])
    assert told == [(REBALANCE, 1)]
    assert service.ownership.done == [first]
