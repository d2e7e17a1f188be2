"""On a machine that is too slow for its batches they become smaller, so that none is begun anew for ever."""

from __future__ import annotations

from collections.abc import Sequence

from streams.index.exact import ExactIndex
from streams.ports import Collection, Point
from tests.support.memory import ManualClock
from tests.support.service import Service

SECONDS_A_USER = 0.2
"""Forty users in one batch are eight seconds; a batch is given up after five."""


class SlowIndex(ExactIndex):
    """Takes its time for every user read for the first time in a batch."""

    clock: ManualClock

    async def read(self, collection: Collection, keys: Sequence[str], *, vectors: bool = False) -> list[Point | None]:
        if collection is Collection.USERS and not vectors:
            self.clock.at += SECONDS_A_USER * len(keys) / 2  # read before, and read back after
        return await super().read(collection, keys, vectors=vectors)


async def test_a_batch_that_grows_too_old_is_done_in_halves():
    index = SlowIndex()
    service = Service(index=index)
    index.clock = service.clock
    await service.open()
    given_up = []
    object.__setattr__(service.setting.hooks, "on_abandoned", given_up.append)
    records = [service.log.event(f"e{number}", f"u{number}", "search", query="red") for number in range(80)]
    await service.feed(*records)
    assert given_up
    assert set(given_up) == {"age"}
    assert service.ownership.done == records
    for number in range(80):
        assert await service.state(f"u{number}") is not None


async def test_a_quick_machine_is_not_slowed_down():
    service = await Service().open()
    records = [service.log.event(f"e{number}", f"u{number}", "search", query="red") for number in range(80)]
    await service.feed(*records)
    assert [report.size for report in service.reports] == [80]
