"""Event → recommendation delivered, at a steady rate: p50, p95, p99, p99.9, and milliseconds a batch by stage.

python -m benchmarks.latency --json          10,000 items, 1,000 users, 500 events a second for 60 s after a warm-up
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from benchmarks.rig import cluster, made_event, parser, percentiles, real_items, rig, show


async def measure(*, items: int, users: int, rate: float, seconds: float, warm_up: float) -> dict[str, Any]:
    """All figures of the benchmark."""
    catalogue, draw = real_items(items), random.Random(11)
    with cluster() as (kafka, folder):
        async with rig(kafka, folder) as it:
            imported = await it.import_items(catalogue)
            warm = await it.load(rate, warm_up, lambda number: made_event(number, draw, catalogue, users))
            await it.answered(warm)
            before, lists, cpu = it.metrics(), it.deliveries.lists, it.cpu_seconds()
            planned = await it.load(rate, seconds, lambda number: made_event(number, draw, catalogue, users), len(warm))
            found = await it.answered(planned)
            cpu = it.cpu_seconds() - cpu
            return {
                **percentiles(found), "events": len(planned), "rate": rate, "items": items, "users": users,
                "lists": it.deliveries.lists - lists, "stages_ms_a_batch": it.stages(before),
                "cpu_ms_an_event": round(1000 * cpu / len(planned), 3),
                "import_items_per_second": round(items / imported, 1),
            }  # fmt: skip


def main() -> int:
    """Measure and print."""
    arguments = parser("latency", __doc__)
    arguments.add_argument("--rate", type=float, default=500.0)
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--warm-up", type=float, default=15.0)
    asked = arguments.parse_args()
    found = asyncio.run(
        measure(items=asked.items, users=asked.users, rate=asked.rate, seconds=asked.seconds, warm_up=asked.warm_up)
    )
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
