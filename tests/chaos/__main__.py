"""python -m tests.chaos: real workers on Apache Kafka, struck from a seed. One JSON line on stdout: the verdict."""

# ruff: noqa: T201 the verdict is printed
from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

from tests.chaos import changes, lives, neighbours
from tests.chaos.flood import flood
from tests.chaos.scenario import Context, Scenario
from tests.chaos.site import say
from tests.support.kafka import ApacheKafka

ALL: Final[dict[str, Scenario]] = {
    "kill": lives.kill,
    "terminate": lives.terminate,
    "sleep": lives.sleep,
    "rebalance": lives.rebalance,
    "twins": lives.twins,
    "silence": lives.silence,
    "brokers": neighbours.brokers,
    "network": neighbours.network,
    "output": neighbours.output,
    "index": neighbours.index_away,
    "disk": neighbours.disk,
    "encoder": neighbours.encoder,
    "clock": neighbours.clock,
    "again": changes.again,
    "rebuild": changes.rebuild,
    "grow": changes.grow,
    "upgrade": changes.upgrade,
    "flood": flood,
}


async def strike(
    names: list[str], *, seed: int, brokers: int, events: int, times: int, keep: Path | None
) -> dict[str, object]:
    """Run scenarios one after the other on a fresh cluster; returns the verdict."""
    verdict: dict[str, object] = {"seed": seed, "brokers": brokers, "events": events, "times": times}
    scenarios: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="coldstream-chaos-") as name:
        folder = keep or Path(name)
        cluster = ApacheKafka(Path(name) / "cluster", "--brokers", str(brokers))
        with cluster:
            for scenario in names:
                context = Context(cluster.servers, cluster, brokers, folder, seed, events, times)
                begun = time.monotonic()
                say(f"{scenario}: {(ALL[scenario].__doc__ or '').strip()}")
                try:
                    wrong = await ALL[scenario](context)
                except Exception as error:  # noqa: BLE001  # a scenario that can't be finished has failed; the others are still tried
                    traceback.print_exc()
                    wrong = [f"{type(error).__name__}: {error}"]
                for one in wrong[:10]:
                    say(f"WRONG: {one}")
                scenarios[scenario] = {
                    "passed": not wrong, "wrong": wrong[:5], "seconds": round(time.monotonic() - begun), **context.facts
                }  # fmt: skip
    return {**verdict, "passed": all(one["passed"] for one in scenarios.values()), "scenarios": scenarios}  # type: ignore[index]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", choices=[*ALL, []], help="which (all)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3))
    parser.add_argument("--events", type=int, default=5000, help="records of each scenario")
    parser.add_argument("--times", type=int, default=10, help="how often the world is struck in each scenario")
    parser.add_argument("--keep", type=Path, help="folder that keeps logs and indexes")
    options = parser.parse_args()
    verdict = asyncio.run(
        strike(
            options.scenarios or list(ALL), seed=options.seed, brokers=options.brokers, events=options.events,
            times=options.times, keep=options.keep,
        )
    )  # fmt: skip
    print(json.dumps(verdict))
    return int(not verdict["passed"])


if __name__ == "__main__":
    sys.exit(main())
