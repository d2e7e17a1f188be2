"""The number of series is bounded by the code, not by the shop: ten thousand users and items add none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from streams.decide.arms import MOST_ARMS
from streams.decide.history import Outcome
from streams.decide.items import ItemOutcome
from streams.http.routes import ROUTES
from streams.metrics import MEASURES, Kind, Metrics
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


OPEN_LABELS = {
    "version": 1,
    "python": 1,
    "encoder": 1,
    "dimension": 1,
    "arm": MOST_ARMS,
    "outcome": len({*Outcome, *ItemOutcome}),
    "route": len(ROUTES) + 10,  # /metrics, /openapi.json, none, and the live page's
    "partition": 64,
}
"""How many values a label may have that is not listed in the code; of partitions so many are owned by one worker."""
OF_THE_PROCESS = 40


def test_even_with_everything_in_use_series_are_bounded() -> None:
    """All arms, routes, outcomes and 64 partitions of each topic, every combination of labels, likely or not."""
    total = OF_THE_PROCESS
    for measure in MEASURES:
        values = (OPEN_LABELS[name] if isinstance(found, str) else len(found) for name, found in measure.labels.items())
        total += prod(values) * (len(measure.buckets) + 3 if measure.kind is Kind.HISTOGRAM else 1)
    assert total <= LARGEST_SERIES, total
