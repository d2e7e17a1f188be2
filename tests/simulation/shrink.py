"""A failing schedule made small: as few faults and records as still fail in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.simulation.planted import Bug
from tests.simulation.schedule import Result, run

TRIES = 400


def shrink(result: Result, bug: Bug | None = None, tries: int = TRIES) -> Result:
    """The smallest schedule found that fails at all, with its story; at most `tries` runs."""
    left = tries
    faults, records = list(range(1, result.faults + 1)), list(range(result.records))
    mute: set[int] = set()
    leave_out: set[int] = set()

    def fails(muted: set[int], left_out: set[int]) -> bool:
        nonlocal left
        left -= 1
        return left > 0 and bool(run(result.seed, bug, muted, left_out).failures)

    leave_out = _without(records, lambda gone: fails(mute, gone))
    mute = _without(faults, lambda gone: fails(gone, leave_out))
    leave_out = _without(records, lambda gone: fails(mute, gone), leave_out)
    return run(result.seed, bug, mute, leave_out, verbose=True)


def _without(parts: Sequence[int], fails: Callable[[set[int]], bool], gone: set[int] | None = None) -> set[int]:
    """The parts that can be done without: first large pieces are tried, then ever smaller ones (delta debugging)."""
    gone = set(gone or ())
    size = max(1, len(parts) // 2)
    while True:
        rest = [part for part in parts if part not in gone]
        for start in range(0, len(rest), size):
            tried = gone | set(rest[start : start + size])
            if tried != gone and fails(tried):
                gone = tried
        if size == 1:
            return gone
        size //= 2
