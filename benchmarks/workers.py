"""Events a second of one worker and of two on this machine, several partitions, and where it saturates.

    python -m benchmarks.workers --json

A backlog of events is worked off by one worker and by two, in turns. They share an index: by default the tests' front of
Qdrant's gRPC over the exact index (a Python process, which takes a part of the machine), or a real server by --index. CPU
seconds are told apart by process, and what the machine had left idle: where it has none, more workers here can't help.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import Rig, cluster, made_event, parser, real_items, show
from tests.support.worker_process import free_port, worker

ROOT: Final = Path(__file__).parents[1]
TICKS: Final = os.sysconf("SC_CLK_TCK")


async def measure(*, items: int, users: int, backlog: int, partitions: int, rounds: int, index: str) -> dict[str, Any]:
    """All figures of the benchmark."""
    rows: list[dict[str, Any]] = []
    with cluster() as (kafka, folder):
        for _ in range(rounds):
            for workers in (1, 2):
                rows.append(await work_off(kafka, folder, workers, items, users, backlog, partitions, index))
                print(rows[-1], file=sys.stderr, flush=True)

    def median(workers: int, name: str) -> float:
        return float(statistics.median(row[name] for row in rows if row["workers"] == workers))

    return {
        "events_per_second": median(2, "events_per_second"), "events_per_second_of_one": median(1, "events_per_second"),
        "scaling": round(median(2, "events_per_second") / median(1, "events_per_second"), 2),
        "events_per_cpu_second": median(2, "events_per_cpu_second"),
        "events_per_cpu_second_of_one": median(1, "events_per_cpu_second"),
        "rounds": rows, "partitions": partitions, "index": index or "the tests' front of Qdrant's gRPC",
    }  # fmt: skip


async def work_off(
    kafka: str, folder: Path, workers: int, items: int, users: int, backlog: int, partitions: int, index: str
) -> dict[str, Any]:
    """One round: fresh topics, workers and index; a warm-up, then the backlog."""
    catalogue, draw = real_items(items), random.Random(11)
    with shared_index(index) as (url, server), ExitStack() as stack:
        it = Rig(kafka, folder, index=url)
        await it.create(partitions)
        environments = [{**it.environment, "COLDSTREAM_HTTP": f"127.0.0.1:{free_port()}"} for _ in range(workers)]
        processes = [
            stack.enter_context(worker(one, folder / f"worker-{number}.log")) for number, one in enumerate(environments)
        ]
        try:
            for item in catalogue:
                await it.send("items", item["item_id"], item, quiet=True)
            await it.producer.flush()
            deadline = time.monotonic() + 900.0
            while sum([await done(it, one, "items") for one in environments]) < items:
                if time.monotonic() > deadline:
                    raise TimeoutError("the items were not done in 900 s")
                await asyncio.sleep(0.1)
            numbers = iter(range(10**9))
            warm = await it.load(50.0, 6.0, lambda _: made_event(next(numbers), draw, catalogue, users))
            await it.answered(warm)
            events = [made_event(next(numbers), draw, catalogue, users) for _ in range(backlog)]
            shares = [await done(it, one, "events") for one in environments]
            pids = {f"worker_{number}": process.pid for number, process in enumerate(processes, 1)}
            if server is not None:
                pids["index"] = server
            spent, idle, began = {name: cpu(pid) for name, pid in pids.items()}, idle_seconds(), time.time()
            ours = time.process_time()
            for event in events:
                await it.send("events", event["user_id"], event)
            await it.producer.flush()
            await it.answered(dict.fromkeys((event["event_id"] for event in events), began), 900.0)
            seconds = max(it.deliveries.at[event["event_id"]] for event in events) - began
            used = {name: cpu(pid) - spent[name] for name, pid in pids.items()}
            return {
                "workers": workers, "events_per_second": round(backlog / seconds, 1), "seconds": round(seconds, 1),
                "events_per_cpu_second": round(backlog / sum(used[name] for name in used if name != "index"), 1),
                "cpu_share": {name: round(one / seconds, 2) for name, one in used.items()}
                | {"client": round((time.process_time() - ours) / seconds, 2)},
                "idle_cores": round((idle_seconds() - idle) / seconds, 2),
                "events_by_worker": [await done(it, one, "events") - was for one, was in zip(environments, shares, strict=True)],
            }  # fmt: skip
        finally:
            await it.close()


async def done(it: Rig, environment: dict[str, str], topic: str) -> float:
    """Records of a topic that a worker has done."""
    return it.done(await asyncio.to_thread(it.metrics, environment["COLDSTREAM_HTTP"]), topic)


@contextmanager
def shared_index(index: str) -> Iterator[tuple[str, int | None]]:
    """(URL, pid of the front): the server named, or a front of its own."""
    if index:
        yield index, None
        return
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.qdrant_server"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as front:
        assert front.stdout is not None
        try:
            yield front.stdout.readline().strip(), front.pid
        finally:
            front.kill()


def cpu(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def idle_seconds() -> float:
    """What all cores together have been idle for, waits for the disk included."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / TICKS


def main() -> int:
    """Measure and print."""
    arguments = parser("workers", __doc__)
    arguments.set_defaults(items=2_000)
    arguments.add_argument("--backlog", type=int, default=6_000)
    arguments.add_argument("--partitions", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--index", default="", help="URL of a Qdrant server that is empty under new prefixes")
    asked = arguments.parse_args()
    found = asyncio.run(
        measure(
            items=asked.items, users=asked.users, backlog=asked.backlog, partitions=asked.partitions, rounds=asked.rounds,
            index=asked.index,
        )
    )  # fmt: skip
    show(found, as_json=asked.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
