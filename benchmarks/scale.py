"""What an event and an item cost as the catalogue grows, how much memory it takes, and what its index finds.

    python -m benchmarks.scale --json            10,000, 100,000 and 1,000,000 items, each in a process of its own

The smallest is measured again at the end; ratios are to the mean of both. Texts are real, most vectors made: benchmarks.inside
says how. Events fall on the whole catalogue by Zipf's law; users have histories of 20. The index is the one that lists are
made with, `decide.nearness`; recall@10 is its share of the ten greatest sums of dense and lexical cosine over all items.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.inside import Inside, child, memory
from benchmarks.rig import parser, show
from streams.decide.table import Table

BATCH: Final = 8
"""Events or items that are taken at once: at 500 events/s about what waits after a batch."""
ASKED: Final = 200
PAST: Final = 100_000
EQUAL: Final = 1e-5


async def measure(*, items: int, users: int, events: int, new: int) -> dict[str, Any]:
    """The figures of one size."""
    draw = random.Random(11)
    with tempfile.TemporaryDirectory(prefix="coldstream-scale-") as scratch:
        it = Inside(Path(scratch), columns_items=items + new + 1000, users_cache=users)
        await it.open()
        before = memory()
        filled = await it.fill_items(items)
        await it.fill_users(users, items, 20, draw)
        began = time.process_time()
        await it.parts.catalogue.load()
        loaded = time.process_time() - began
        it.live_through(PAST, items, draw)
        numbers = iter(range(10**9))

        async def turn() -> float:
            return await it.step([it.event(next(numbers), users, items, draw) for _ in range(BATCH)])

        for _ in range(max(20, events // BATCH // 4)):
            await turn()
        spent = sorted([await turn() for _ in range(events // BATCH)])
        fresh = iter(range(items, items + new))
        put = sorted([await it.step([it.item(next(fresh), draw) for _ in range(BATCH)]) for _ in range(new // BATCH)])
        found = {
            "items": items, "event_ms": mean_ms(spent), "event_p50_ms": at_ms(spent, 0.5), "event_p99_ms": at_ms(spent, 0.99),
            "item_ms": mean_ms(put), "item_p50_ms": at_ms(put, 0.5), "item_p99_ms": at_ms(put, 0.99),
            "import_ms_an_item": round(filled, 3), "load_ms_an_item": round(1000 * loaded / items, 3),
            **recall(it.parts.catalogue.columns, random.Random(3)), **memory(),
        }  # fmt: skip
        found["bytes_an_item"] = round((found["rss_anon_mib"] - before["rss_anon_mib"]) * 2**20 / items)
        await it.index.close()
    return found


def mean_ms(seconds: list[float]) -> float:
    """Milliseconds of CPU for each record of the batches."""
    return round(1000 * statistics.mean(seconds) / BATCH, 3)


def at_ms(seconds: list[float], share: float) -> float:
    """Of sorted batches the one at a share, in milliseconds a record."""
    return round(1000 * seconds[min(len(seconds) - 1, int(share * len(seconds)))] / BATCH, 3)


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
    arguments.set_defaults(items=0)
    arguments.add_argument("--sizes", default="10000,100000,1000000")
    arguments.add_argument("--events", type=int, default=4_000)
    arguments.add_argument("--new", type=int, default=800, help="new items")
    asked = arguments.parse_args()
    if asked.items:
        found = asyncio.run(measure(items=asked.items, users=asked.users, events=asked.events, new=asked.new))
        show(found, as_json=asked.json)
        return 0
    sizes = [int(size) for size in asked.sizes.split(",")]
    rows = []
    for size in [*sizes, sizes[0]]:
        rows.append(
            child(
                "benchmarks.scale", "--json", "--items", str(size), "--users", str(asked.users), "--events",
                str(asked.events), "--new", str(asked.new),
            )
        )  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    first = {name: (rows[0][name] + rows[-1][name]) / 2 for name in ("event_ms", "item_ms")}
    largest = rows[-2]
    found = {
        "sizes": rows, "event_ratio": round(largest["event_ms"] / first["event_ms"], 2),
        "item_ratio": round(largest["item_ms"] / first["item_ms"], 2),
        "events_per_second": round(1000 / largest["event_ms"], 1), "items_per_second": round(1000 / largest["item_ms"], 1),
        "recall_at_10": min(row["recall_at_10"] for row in rows),
    }  # fmt: skip
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
