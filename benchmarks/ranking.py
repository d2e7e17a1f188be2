"""What a list costs: CPU milliseconds a user by part, for batches of several sizes, in a table that a replay has filled.

    python -m benchmarks.ranking --json                            MovieLens 100K, 20,000 events
    python -m benchmarks.ranking ../shared/data/x-wines-slim       another data set

Vectors are those of a hashing encoder: their values make no difference to the cost. CPU time of this process, medians over
rounds; the users of a round are drawn anew, so that nothing is remembered from the round before. Memory and garbage
collection are set as in a worker.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from encoder import HashingEncoder
from evaluation.ours import Ours
from evaluation.protocol import Options, Past, Stream, read
from streams.app import keep_memory, set_aside
from streams.decide import candidates, recommend
from streams.decide.policy import Policy
from streams.decide.ranker import Learner
from streams.decide.taste import Request, taste_vector
from streams.movielens import write

PARTS: dict[str, ModuleType] = {
    "taste_of": recommend, "find": candidates, "compute": recommend, "rerank": recommend,
    "explain": recommend,
}  # fmt: skip
"""The functions that `recommend` calls for a batch, and where it finds them."""


def main() -> int:
    """Measure and print; 0 when done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__.split("\n", 1)[0])
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.dataset or Path(scratch)
        if asked.dataset is None:
            write(folder, lambda _line: None)
        found = measure(read(folder, Options(cut=0.0)), asked.events, asked.rounds)
    print(json.dumps(found) if asked.json else json.dumps(found, indent=2))
    return 0


def measure(stream: Stream, events: int, rounds: int) -> dict[str, Any]:
    """Fill a table by the first events of a stream, then make lists for users drawn from it."""
    keep_memory()
    ours = fill(stream, events)
    set_aside()
    model, policy, now = ours.learner.model(), Policy(), max(state.history[-1].at for state in ours.states.values())
    users = sorted(ours.states)
    found: dict[str, Any] = {"items": len(ours.columns), "events": events, "users": len(users)}
    draw = random.Random(7)
    for size in (1, 4, 16):
        whole: list[float] = []
        parts: dict[str, list[float]] = {name: [] for name in (*PARTS, "taste_vector")}
        widths: list[int] = []
        for _ in range(rounds):
            states = [ours.states[user] for user in draw.sample(users, size)]
            requests = [Request(state, now, 10, seed=number) for number, state in enumerate(states)]
            began = time.process_time()
            recommend.recommend(ours.columns, requests, model, policy)
            whole.append(time.process_time() - began)
            with watched(parts, widths):
                recommend.recommend(ours.columns, requests, model, policy)
            began = time.process_time()
            for state in states:
                taste_vector(ours.columns, state, {}, policy, now)
            parts["taste_vector"].append(time.process_time() - began)
        found[f"batch_{size}"] = {
            "ms_a_list": round(1000 * statistics.median(whole) / size, 3),
            "candidates": round(statistics.mean(widths)),
            "parts_ms": {name: round(1000 * statistics.median(times) / size, 3) for name, times in parts.items()},
        }
    return found


def fill(stream: Stream, events: int) -> Ours:
    """A replay of the first events, learning as it goes."""
    vectors = HashingEncoder(128).encode([item.title for item in stream.items])
    options = Options(cut=0.0)
    ours, past, seen = Ours(stream, np.asarray(vectors), options, Learner()), Past(), 0
    for group in stream.groups:
        ours.arrive(group.at)
        steps = list(past.steps(group, stream, options))
        ours.learn(group, steps)
        past.note(group)
        seen += len(group.events)
        if seen >= events:
            break
    ours.flush()
    return ours


@contextmanager
def watched(parts: dict[str, list[float]], widths: list[int]) -> Iterator[None]:
    """Sum the seconds spent in each part of a call, the calls of one round together."""
    sums = dict.fromkeys(PARTS, 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            result = function(*arguments, **named)
            sums[name] += time.process_time() - began
            if name == "find":
                widths.extend(len(rows) for rows in result)
            return result

        return call

    with ExitStack() as stack:
        for name, module in PARTS.items():
            stack.enter_context(mock.patch.object(module, name, timed(name, getattr(module, name))))
        yield
    for name, seconds in sums.items():
        parts[name].append(seconds)


if __name__ == "__main__":
    raise SystemExit(main())
