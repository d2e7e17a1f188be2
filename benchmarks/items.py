"""Items a second embedded, indexed and durable, and the ratio to the naive way in the same run.

python -m benchmarks.items --json
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from benchmarks.rig import cluster, parser, real_items, rig, show
from benchmarks.throughput import naive_rates


async def measure(*, items: int, users: int) -> dict[str, Any]:
    """All figures of the benchmark."""
    catalogue = real_items(items)
    with cluster() as (kafka, folder):
        naive = [await naive_rates(kafka, folder / "naive-1", catalogue, users)]
        async with rig(kafka, folder) as it:
            await it.import_items(catalogue[:64])
            before = it.metrics()
            seconds = await it.import_items(catalogue[64:])
            stages = it.stages(before)
        naive.append(await naive_rates(kafka, folder / "naive-2", catalogue, users))
    rate, slow = (items - 64) / seconds, statistics.mean(one["items"] for one in naive)
    return {
        "items_per_second": round(rate, 1), "naive_items_per_second": round(slow, 2),
        "ratio_to_naive": round(rate / slow, 1), "items": items, "stages_ms_a_batch": stages,
    }  # fmt: skip


def main() -> int:
    """Measure and print."""
    asked = parser("items", __doc__).parse_args()
    show(asyncio.run(measure(items=asked.items, users=asked.users)), as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
