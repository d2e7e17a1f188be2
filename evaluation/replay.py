"""One pass over a data set: every method is tested on a step before any learns from its group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluation.baselines import Baseline
from evaluation.measures import Tally, top
from evaluation.ours import Ours
from evaluation.protocol import Group, Mask, Options, Past, Step, Stream, choose, is_kept
from evaluation.ratings import Ratings
from streams.values import Ranking

OURS = "coldstream"


@dataclass(slots=True)
class Tested:
    """A tested step with our lists: for `--lists` and what lies beyond accuracy."""

    step: Step
    items: list[int]
    new_item: tuple[list[int], list[int]] | None = None
    """(targets, list)."""
    unseen_item: tuple[list[int], list[int]] | None = None
    found: int = 0
    """Targets that were candidates."""
    protected: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """(places held, places owed in vain, targets) by group that may have an exposure floor."""


@dataclass(slots=True)
class Outcome:
    """What a replay found."""

    tally: Tally = field(default_factory=Tally)
    tested: list[Tested] = field(default_factory=list)
    ratings: Ratings = field(default_factory=Ratings)
    seconds: float = 0.0


class Replay:
    """The methods, and what has happened so far."""

    def __init__(self, stream: Stream, options: Options, ours: Ours, baselines: Mapping[str, Baseline]) -> None:
        self._stream = stream
        self._options = options
        self._ours = ours
        self._baselines = baselines
        self._past = Past()
        self._seen = np.zeros(len(stream.items), np.bool_)
        self._position = {record.item_id: place for place, record in enumerate(stream.items)}
        self._outcome = Outcome()

    def run(self, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Outcome:
        """Test, then learn, group by group, to the last tested one."""
        started = time.monotonic()
        steps = choose(self._stream, self._options)
        last = max((place for place, group in enumerate(self._stream.groups) if group.tested), default=-1)
        for place, group in enumerate(self._stream.groups[: last + 1]):
            progress(place, last + 1)
            self._group(group, steps)
        self._outcome.seconds = time.monotonic() - started
        return self._outcome

    def _group(self, group: Group, all_steps: int) -> None:
        self._ours.arrive(group.at)
        steps = self._past.steps(group, self._stream, self._options)
        tested = [step for step in steps if group.tested and is_kept(step, all_steps, self._options)]
        if tested:
            self._test(tested)
            self._outcome.ratings.test(self._ours, group, tested)
        self._outcome.ratings.learn(group)
        self._ours.learn(group, steps)
        for baseline in self._baselines.values():
            baseline.learn(group)
        self._past.note(group)
        for event in group.events:
            if not event.hidden and event.item >= 0:
                self._seen[event.item] = True

    def _test(self, steps: Sequence[Step]) -> None:
        for step in steps:
            allowed = self._allowed(step)
            slices = ["all", "known_user" if step.known else "cold_user"]
            if step.user_id in self._stream.elsewhere and step.user_id not in self._past.met:
                slices.append("cross_domain")
            items, found, ranking = self._test_among(step, allowed, None, step.targets, slices)
            tested = Tested(step, items, found=found, protected=self._ours.protected(ranking, step))
            self._outcome.tested.append(tested)
            if not step.known:
                continue
            late, unseen = self._stream.late, ~self._seen
            targets = [item for item in step.targets if late[item]]
            if targets:
                tested.new_item = (targets, self._test_among(step, allowed, late, targets, ["new_item"])[0])
            targets = [item for item in step.targets if unseen[item]]
            if targets:
                tested.unseen_item = (targets, self._test_among(step, allowed, unseen, targets, ["unseen_item"])[0])

    def _test_among(
        self, step: Step, allowed: Mask, among: Mask | None, targets: list[int], slices: list[str]
    ) -> tuple[list[int], int, Ranking]:
        """(our list, how many targets were candidates, the list as it was made); every method is noted in the tally."""
        ranking, candidates = self._ours.rank(step, among)
        items = [self._position[item_id] for item_id in ranking.item_ids]
        self._outcome.tally.add(OURS, slices, items, targets)
        mask = allowed if among is None else allowed & among
        for name, rival in self._ours.lists.items():
            self._outcome.tally.add(name, slices, rival, targets)
        for name, baseline in self._baselines.items():
            self._outcome.tally.add(name, slices, top(baseline.score(step), mask), targets)
        return items, sum(self._stream.items[item].item_id in candidates for item in targets), ranking

    def _allowed(self, step: Step) -> NDArray[np.bool_]:
        allowed = self._stream.opens <= step.at
        if not self._options.repeats:
            allowed[list(self._past.met.get(step.user_id, ()))] = False
        return allowed
