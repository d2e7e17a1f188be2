"""What other workers changed is looked at in slices, so that no batch waits for all of it."""

from __future__ import annotations

from typing import Any

import msgspec

from streams.decide.statistics import ItemStatistics
from streams.flow import catalogue
from streams.flow.items import item_to_point
from streams.index.exact import ExactIndex
from streams.ports import Collection, Page, Point, Write
from streams.values import ItemRecord
from tests.support.memory import ManualClock
from tests.support.service import Service

ITEMS, MET = 3, 2_000
SECONDS_A_PAGE = catalogue.SLICE_SECONDS * 1.1


class Away(ExactIndex):
    """A server, each page of which takes its time."""

    def __init__(self) -> None:
        super().__init__(shared=True)
        self.clock, self.pages = ManualClock(), 0

    async def scan(self, collection: Collection, **asked: Any) -> Page:
        self.clock.at += SECONDS_A_PAGE
        self.pages += 1
        return await super().scan(collection, **asked)


async def opened() -> tuple[Service, Away]:
    index = Away()
    service = Service(index=index)
    index.clock = service.clock
    return await service.open(), index


async def change(service: Service, *, available: bool, version: int) -> None:
    """As another worker would: a few items, and statistics of many."""
    now = service.clock.now()
    records = [ItemRecord(f"i{n}", title="tea", available=available, version=version) for n in range(ITEMS)]
    vectors = service.encoder.encode(["tea"] * ITEMS)
    old = version - 1 or None
    points = [item_to_point(record, vector, 1, now) for record, vector in zip(records, vectors, strict=True)]
    await service.index.write(Collection.ITEMS, [Write(point, old) for point in points])
    met = [ItemStatistics(f"i{n}", events=version, last_at=now, first_at=now) for n in range(MET)]
    body = msgspec.json.encode
    await service.index.write(
        Collection.STATISTICS,
        [
            Write(Point(one.item_id, version, "w", body(one).decode(), {"updated_ms": int(now * 1000)}), old)
            for one in met
        ],
    )


async def test_a_long_look_is_done_in_slices_and_misses_nothing():
    service, index = await opened()
    table = service.parts.catalogue.columns
    await change(service, available=True, version=1)
    service.clock.at += 2.0
    assert await service.parts.catalogue.reload() == []
    assert index.pages > 0
    assert service.parts.catalogue.look is not None
    calls = 1
    while service.parts.catalogue.look is not None:
        before = index.pages
        await service.parts.catalogue.reload()
        assert index.pages <= before + 1
        calls += 1
    assert calls > MET / catalogue.LOOK_PAGE
    assert [table.counts.events[table.rows[f"i{n}"]] for n in range(ITEMS)] == [1.0] * ITEMS
    await service.parts.catalogue.reload()
    assert service.parts.catalogue.look is None, "the next look is due after some seconds only"
    service.clock.at += 2.0
    await change(service, available=False, version=2)
    withdrawn = await service.parts.catalogue.reload()
    while service.parts.catalogue.look is not None:
        withdrawn += await service.parts.catalogue.reload()
    assert sorted(withdrawn) == [f"i{n}" for n in range(ITEMS)]
    assert table.counts.events[table.rows["i0"]] == 2.0
