"""A new item's way to the users whom it fits, without their doing: arrival → first list that has it; and what that costs events.

python -m benchmarks.fanout --json           10,000 users, 100 events a second meanwhile, a new item each second
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from benchmarks.rig import cluster, made_event, parser, percentiles, real_items, rig, show


async def measure(*, items: int, users: int, rate: float, seconds: float) -> dict[str, Any]:
    """All figures of the benchmark."""
    number_new = int(seconds)
    catalogue, draw = real_items(items + number_new), random.Random(11)
    known, new = catalogue[:items], catalogue[items:]
    with cluster() as (kafka, folder):
        async with rig(kafka, folder) as it:
            await it.import_items(known)
            profiles = [
                {"user_id": f"u{number}", "profile": draw.choice(catalogue)["title"]} for number in range(users)
            ]
            for profile in profiles:
                await it.send("users", profile["user_id"], profile)
            await it.taken("users", users)
            it.deliveries.watched = frozenset(item["item_id"] for item in new)
            arrived: dict[str, float] = {}

            async def arrive() -> None:
                for item in new:
                    arrived[item["item_id"]] = time.time()
                    await it.send("items", item["item_id"], item)
                    await asyncio.sleep(1.0)

            arriving = asyncio.create_task(arrive())
            planned = await it.load(rate, seconds, lambda number: made_event(number, draw, known, users))
            await arriving
            found = await it.answered(planned)
            await asyncio.sleep(3.0)
            waited = sorted(
                1000 * (it.deliveries.with_item[item] - at)
                for item, at in arrived.items()
                if item in it.deliveries.with_item
            )
            return {
                "arrival_to_first_list": percentiles(waited), "items_that_reached_a_list": len(waited),
                "items_new": number_new, "events": percentiles(found), "users": users, "p99_ms": percentiles(found)["p99_ms"],
            }  # fmt: skip


def main() -> int:
    """Measure and print."""
    arguments = parser("fanout", __doc__)
    arguments.set_defaults(users=10_000)
    arguments.add_argument("--rate", type=float, default=100.0)
    arguments.add_argument("--seconds", type=float, default=30.0)
    asked = arguments.parse_args()
    found = asyncio.run(measure(items=asked.items, users=asked.users, rate=asked.rate, seconds=asked.seconds))
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
