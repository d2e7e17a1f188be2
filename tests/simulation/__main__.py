"""python -m tests.simulation --seeds N: run schedules, then see that planted bugs are found. Prints one JSON line."""

# ruff: noqa: T201 the result is printed
from __future__ import annotations

import argparse
import json
import logging
import sys
import time

from tests.simulation.planted import BUGS, Bug
from tests.simulation.schedule import Result, run
from tests.simulation.shrink import shrink

PLANTED_SEEDS = 1000


def search(bug: Bug, seeds: int = PLANTED_SEEDS) -> int | None:
    """How many seeds it takes to find a planted bug, counted from 1; None where none of `seeds` does."""
    return next((seed + 1 for seed in range(seeds) if run(seed, bug).failures), None)


def tell(result: Result, *, small: bool) -> str:
    """A failing schedule's story."""
    smallest = shrink(result) if small else run(result.seed, verbose=True)
    story = smallest if smallest.failures else run(result.seed, verbose=True)
    return "\n".join([f"seed {result.seed}:", *story.story, *(f"WRONG: {failure}" for failure in story.failures)])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--story", action="store_true", help="tell the story of seed FIRST, whether it fails or not")
    parser.add_argument("--no-planted", action="store_true", help="leave the planted bugs out")
    options = parser.parse_args()
    logging.getLogger("streams").setLevel(logging.CRITICAL)  # holds are what the simulator makes, not news
    if options.story:
        result = run(options.first, verbose=True)
        print("\n".join([*result.story, *(f"WRONG: {failure}" for failure in result.failures)]), file=sys.stderr)
        return int(bool(result.failures))
    failures: list[Result] = []
    begun = time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        result = run(seed)
        if result.failures:
            failures.append(result)
            print(f"seed {seed} fails: {result.failures[0]}", file=sys.stderr)
        if sys.stderr.isatty() and seed % 20 == 0:
            print(f"\r{seed - options.first} schedules, {len(failures)} failed", end="", file=sys.stderr)
    minutes = (time.monotonic() - begun) / 60
    if failures:
        print(tell(failures[0], small=True), file=sys.stderr)
    planted = {} if options.no_planted else {bug.name: search(bug) for bug in BUGS}
    print(
        json.dumps(
            {
                "seeds": options.seeds,
                "failures": len(failures),
                "schedules_per_minute": round(options.seeds / max(minutes, 1e-9)),
                "planted": planted,
            }
        )
    )
    return int(bool(failures) or None in planted.values())


if __name__ == "__main__":
    sys.exit(main())
