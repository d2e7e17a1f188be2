"""The number of series is bounded by the code, not by the shop: ten thousand users and items add none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streams.metrics import Metrics
from streams.values import Record
from tests.support.service import Service

MANY = 10_000
BATCH = 250
LARGEST_SERIES = 2000


def series(metrics: Metrics) -> set[str]:
    return {line.rpartition(" ")[0] for line in metrics.render().decode().splitlines() if not line.startswith("#")}


def batches(service: Service) -> Iterator[Sequence[Record]]:
    """All items, then an event of each user; every tenth is answered (the others are quiet)."""
    log = service.log
    for begin in range(0, MANY, BATCH):
        yield [log.item(f"i{number}", f"thing {number % 97}") for number in range(begin, begin + BATCH)]
    for begin in range(0, MANY, BATCH):
        yield [
            log.event(
                f"e{number}", f"u{number}", "like", f"i{number}", headers={"quiet": b"1"} if number % 10 else None
            )
            for number in range(begin, begin + BATCH)
        ]


async def test_ten_thousand_users_and_items_add_no_series() -> None:
    service = await Service().open()
    metrics = Metrics()
    found = []
    for records in batches(service):
        await service.feed(*records)
        for report in service.reports:
            metrics.observe(report)
        service.reports.clear()
        found.append(series(metrics))
    assert len(found) == 2 * MANY // BATCH
    assert found[-1] == found[MANY // BATCH], "series grow with users and items"
    assert len(found[-1]) <= LARGEST_SERIES
