"""Does it stay as it is? Memory, file handles and latency of a worker under a steady load, as slopes.

python -m benchmarks.soak --json --minutes 60          by hand; five minutes are the default
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np

from benchmarks.inside import memory
from benchmarks.rig import cluster, made_event, parser, percentiles, real_items, rig, show


async def measure(*, items: int, users: int, rate: float, minutes: float, step_seconds: float) -> dict[str, Any]:
    """All figures of the benchmark: one row a step, and the slopes over the second half.

    Of memory that of what the worker holds itself: files that Edge maps come and go as the kernel likes.
    """
    catalogue, draw = real_items(items), random.Random(11)
    rows: list[dict[str, float]] = []
    with cluster() as (kafka, folder):
        async with rig(kafka, folder) as it:
            await it.import_items(catalogue)
            first = 0
            while first < rate * minutes * 60:
                planned = await it.load(
                    rate, step_seconds, lambda number: made_event(number, draw, catalogue, users), first
                )
                found = await it.answered(planned)
                first += len(planned)
                values = {name: value for name, labels, value in it.metrics() if not labels}
                rows.append(
                    {
                        "minute": round(first / rate / 60, 2), "p99_ms": percentiles(found)["p99_ms"],
                        **memory(it.pid), "file_handles": values["process_open_fds"],
                    }
                )  # fmt: skip
    half = rows[len(rows) // 2 :]
    at = np.array([row["minute"] for row in half])

    def slope(name: str) -> float:
        """Least squares, a minute."""
        return round(float(np.polyfit(at, [row[name] for row in half], 1)[0]), 4) if len(half) > 1 else 0.0

    return {
        "rss_mib_a_minute": slope("rss_anon_mib"), "p99_ms_a_minute": slope("p99_ms"),
        "file_handles_a_minute": slope("file_handles"), "rows": rows, "rate": rate,
    }  # fmt: skip


def main() -> int:
    """Measure and print."""
    arguments = parser("soak", __doc__)
    arguments.add_argument("--rate", type=float, default=50.0)
    arguments.add_argument("--minutes", type=float, default=5.0)
    arguments.add_argument("--step-seconds", type=float, default=15.0)
    asked = arguments.parse_args()
    found = asyncio.run(
        measure(
            items=asked.items,
            users=asked.users,
            rate=asked.rate,
            minutes=asked.minutes,
            step_seconds=asked.step_seconds,
        )
    )
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
