"""What an event costs, and how much memory the worker takes, as users become more.

    python -m benchmarks.users --json            10,000, 100,000 and 1,000,000 users, each in a process of its own

All users are in the index with histories of 20 on 10,000 items; events come from any of them alike, so that with many users
hardly one is in the worker's cache. Sizes are measured in alternation: see benchmarks.inside.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inside import BATCH, PAST, Inside, beside, memory, serve
from benchmarks.rig import parser, show
from benchmarks.scale import WARM_UP
from streams.ports import Collection


async def measure(*, items: int, users: int) -> None:
    """A child: one size."""
    draw = random.Random(11)
    with tempfile.TemporaryDirectory(prefix="coldstream-users-") as scratch:
        folder = Path(scratch)
        it = Inside(folder)
        await it.open()
        await it.fill_items(items)
        await it.parts.catalogue.load()
        it.live_through(PAST, items, draw)
        columns = it.parts.catalogue.columns
        columns.nearness.of(np.arange(len(columns)), len(columns), columns.short, columns.wording)  # as after some days
        before = memory()
        filled = await it.fill_users(users, items, 20, draw)
        numbers = iter(range(10**9))
        stored = await it.index.count(Collection.USERS)

        async def event() -> float:
            return await it.step([it.event(next(numbers), users, items, draw) for _ in range(BATCH)])

        def finish() -> dict[str, Any]:
            cached, loaded = (
                sum(getattr(one, name) for one in it.reports) for name in ("cached_users", "loaded_users")
            )
            after, files = memory(), (path for path in (folder / "index" / "users").rglob("*") if path.is_file())
            return {
                "users": users, "cached_share": round(cached / (cached + loaded), 3), "import_ms_a_user": round(filled, 3),
                **after, "bytes_a_user_held": round((after["rss_anon_mib"] - before["rss_anon_mib"]) * 2**20 / users),
                "bytes_a_user_on_disk": round(sum(path.stat().st_blocks * 512 for path in files) / stored),
            }  # fmt: skip

        for _ in range(WARM_UP // BATCH):
            await event()
        it.reports.clear()
        await serve({"event": event}, finish)
        await it.index.close()


def main() -> int:
    """Measure and print."""
    arguments = parser("users", __doc__)
    arguments.add_argument("--sizes", default="10000,100000,1000000")
    arguments.add_argument("--events", type=int, default=4_000)
    arguments.add_argument("--serve", action="store_true", help="as a child: one size, asked by its parent")
    asked = arguments.parse_args()
    if asked.serve:
        asyncio.run(measure(items=asked.items, users=asked.users))
        return 0
    sizes = [int(size) for size in asked.sizes.split(",")]
    rows = beside("benchmarks.users", "users", sizes, {"event": asked.events // BATCH}, ["--items", str(asked.items)])
    figures = [row.figures() for row in rows]
    found = {
        "sizes": figures, "event_ratio": rows[-1].ratio_to(rows[0], "event"),
        "events_per_second": round(1000 / figures[-1]["event_ms"], 1),
    }  # fmt: skip
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
