"""What an event and an item cost as the catalogue grows, how much memory it takes, and what its index finds.

    python -m benchmarks.scale --json            10,000, 100,000 and 1,000,000 items, each in a process of its own

Texts are real, most vectors made: benchmarks.inside says how, and how the sizes are measured in alternation. Events fall on
the whole catalogue by Zipf's law; users have histories of 20. The index is the one that lists are made with,
`decide.nearness`; recall@10 is the share of its ten best whose sum of dense and lexical cosine is among the ten greatest of
all items.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.inside import BATCH, PAST, Inside, beside, memory, serve
from benchmarks.rig import parser, show
from streams.decide.table import Table

ASKED: Final = 200
EQUAL: Final = 1e-5
WARM_UP: Final = 1_000
"""Events before anything is measured."""


async def measure(*, items: int, users: int, new: int, columns_only: bool) -> None:
    """A child: one size."""
    draw = random.Random(11)
    with tempfile.TemporaryDirectory(prefix="coldstream-scale-") as scratch:
        it = Inside(Path(scratch), columns_items=items + new + 1000, users_cache=users)
        await it.open()
        before = memory()
        columns, loaded = it.parts.catalogue.columns, 0.0
        filled = it.fill_columns(items) if columns_only else await it.fill_items(items)
        await it.fill_users(users, items, 20, draw)
        if not columns_only:
            began = time.process_time()
            await it.parts.catalogue.load()
            loaded = time.process_time() - began
        it.live_through(PAST, items, draw)
        numbers, fresh = iter(range(10**9)), iter(range(items, 10**9))

        async def event() -> float:
            return await it.step([it.event(next(numbers), users, items, draw) for _ in range(BATCH)])

        async def item() -> float:
            return await it.step([it.item(next(fresh), draw) for _ in range(BATCH)])

        def finish() -> dict[str, Any]:
            now = memory()
            return {
                "items": items, "import_ms_an_item": round(filled, 3), "load_ms_an_item": round(1000 * loaded / items, 3),
                **recall(columns, random.Random(3)), **now,
                "bytes_an_item": round((now["rss_anon_mib"] - before["rss_anon_mib"]) * 2**20 / items),
            }  # fmt: skip

        for _ in range(WARM_UP // BATCH):
            await event()
        await serve({"event": event, "item": item}, finish)
        await it.index.close()


def recall(table: Table, draw: random.Random) -> dict[str, float]:
    """Recall@10 of `nearness` beside exact, and milliseconds to find an item's neighbours for the first time and by looking
    at all items.
    """
    rows = np.array(draw.sample(sorted(table.rows.values()), ASKED))
    table.nearness.forget()
    began = time.process_time()
    near, scores = table.nearness.of(rows, len(table.ids), table.short, table.wording)
    indexed, began = time.process_time() - began, time.process_time()
    shares = []
    for row, places, values in zip(rows.tolist(), near, scores, strict=True):
        exact = table.short[: len(table.ids)] @ table.short[row]
        lexical = np.zeros(len(table.live), np.float32)
        table.wording.add_cosines(lexical, *table.wording.of_row(row))
        exact += lexical[: len(table.ids)]
        exact[row] = -np.inf
        tenth = -np.partition(-exact, 9)[9] - EQUAL  # of items alike to the last bit any may stand in the list
        found = places[np.argsort(-values)[:10]]
        shares.append(float((exact[found[found >= 0]] >= tenth).sum()) / 10)
    return {
        "recall_at_10": round(statistics.mean(shares), 4), "nearest_ms": round(1000 * indexed / ASKED, 3),
        "nearest_exact_ms": round(1000 * (time.process_time() - began) / ASKED, 3),
    }  # fmt: skip


def main() -> int:
    """Measure and print."""
    arguments = parser("scale", __doc__)
    arguments.add_argument("--sizes", default="10000,100000,1000000")
    arguments.add_argument("--events", type=int, default=4_000)
    arguments.add_argument("--new", type=int, default=800, help="new items")
    arguments.add_argument(
        "--columns-only", action="store_true",
        help="keep the catalogue out of Qdrant: quicker to fill, and no event reads it there",
    )  # fmt: skip
    arguments.add_argument("--serve", action="store_true", help="as a child: one size, asked by its parent")
    asked = arguments.parse_args()
    if asked.serve:
        asyncio.run(measure(items=asked.items, users=asked.users, new=asked.new, columns_only=asked.columns_only))
        return 0
    others = ["--users", str(asked.users), "--new", str(asked.new), *(["--columns-only"] if asked.columns_only else [])]
    rows = beside(
        "benchmarks.scale", "items", [int(size) for size in asked.sizes.split(",")],
        {"event": asked.events // BATCH, "item": asked.new // BATCH}, others,
    )  # fmt: skip
    sizes = [row.figures() for row in rows]
    found = {
        "sizes": sizes, "event_ratio": rows[-1].ratio_to(rows[0], "event"), "item_ratio": rows[-1].ratio_to(rows[0], "item"),
        "events_per_second": round(1000 / sizes[-1]["event_ms"], 1),
        "items_per_second": round(1000 / sizes[-1]["item_ms"], 1), "recall_at_10": min(row["recall_at_10"] for row in sizes),
    }  # fmt: skip
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
