"""Coldstream in a replay: states, lists and learning by the same functions that a worker calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from evaluation.protocol import Group, Mask, Options, Step, Stream
from streams.decide.grids import Batch
from streams.decide.history import Bounds, apply_event
from streams.decide.lessons import Lesson
from streams.decide.policy import Policy, Protected
from streams.decide.prior import LearnerState
from streams.decide.ranker import FIRST_SQUARES, Learner
from streams.decide.recommend import batch_of, learn_vectors, lessons_of, rank
from streams.decide.rerank import members, rerank
from streams.decide.statistics import Signal, signals_of
from streams.decide.table import Table
from streams.decide.taste import Request
from streams.settings import Settings
from streams.values import Ranking, Source, UserState, Vector

AT_ONCE: Final = 16
"""Lessons whose features are computed together; what they say about items is counted after them, as in a batch."""
_PUT_AT_ONCE: Final = 4096


class Ours:
    """The worker's decisions without its neighbours. Items enter the table when they are published."""

    def __init__(
        self, stream: Stream, vectors: NDArray[np.float32], options: Options, learner: Learner,
        texts: Mapping[str, Vector] | None = None,
    ) -> None:  # fmt: skip
        settings = Settings()
        self._stream = stream
        self._vectors = vectors
        self._repeats = options.repeats
        self.learner = learner
        self.policy = Policy(
            exclude_seconds={}, liked_from=stream.liked_from, event_weights=settings.event_weights,
            floor_new=options.floor_new, floor_small=options.floor_small, floor_provider=options.floor_provider,
            floor_small_below=options.floor_small_below,
        )  # fmt: skip
        self._bounds = Bounds(settings.history_size, settings.event_ids_size, settings.exclusions_size)
        self.columns = Table(vectors.shape[1], capacity=max(len(stream.items), 1))
        self._order = np.argsort(stream.opens, kind="stable")
        self._opens = stream.opens[self._order]
        self._put = 0
        self._now = -np.inf
        self._texts = texts or {}
        self.states: dict[str, UserState] = {}
        self.lists: dict[str, list[int]] = {}
        """What others would have shown at the step that was ranked last, by method; positions in the catalogue."""
        self._met: dict[str, set[str]] = {}
        self._waiting: list[tuple[Request, list[str]]] = []
        self._signals: list[list[Signal]] = []
        self._offset = 0

    def rank(self, step: Step, among: Mask | None = None) -> tuple[Ranking, set[str]]:
        """(list, candidates by item id) for a step; `among`: of which items of the catalogue, by position."""
        self.flush()
        return self.rank_batch(batch_of(self.columns, [self._request(step, among)], self.policy))

    def rank_batch(self, batch: Batch) -> tuple[Ranking, set[str]]:
        """`rank` for a batch of one user."""
        found = {self.columns.ids[row] for row in batch.candidates(0).tolist()}
        return rank(self.columns, batch, self.learner.model(), self.policy)[0], found

    def listed(self, batch: Batch, scores: NDArray[np.float32]) -> list[int]:
        """The list, re-ranked as all are, that other scores of the candidates of one user give; positions in the catalogue."""
        rows = batch.candidates(0)
        places = rerank(self.columns, rows, scores[: len(rows)], batch.tastes[0], self.policy).places
        return [int(self._order[row]) for row in rows[places]]  # items enter the table in this order, and none leaves

    def protected(self, ranking: Ranking, step: Step) -> dict[str, tuple[int, int, int]]:
        """(places of a list that a group holds, places that its floor owed in vain, targets that belong to it), by group.

        Of small providers only where policy says who the provider is.
        """
        rows, ids = self.columns.rows, [self._stream.items[item].item_id for item in step.targets]
        shown, wanted = (np.array([rows[one] for one in each], np.int64) for each in (ranking.item_ids, ids))
        groups = [Protected.NEW] + [Protected.SMALL] * bool(self.policy.floor_provider)
        held, asked = (
            {group: int(members(self.columns, those, group, self.policy, step.at).sum()) for group in groups}
            for those in (shown, wanted)
        )
        return {group: (held[group], ranking.short.count(group), asked[group]) for group in groups}

    def arrive(self, now: float) -> None:
        """Time has come to `now`: what is published by then is in the table before it is next read."""
        self._now = now

    def learn(self, group: Group, steps: Sequence[Step]) -> None:
        """The group has happened: its steps are lessons, its events change states and statistics."""
        for step in steps:
            targets = [self._stream.items[item].item_id for item in step.targets]
            self._waiting.append((self._request(step, None), targets))
        for event in group.events:
            if event.hidden:
                continue
            state = self.state(event.user_id)
            self._signals.append(signals_of(state, event.interaction, self._stream.liked_from))
            self.states[event.user_id], _ = apply_event(
                state, str(self._offset), event.interaction, Source(0, self._offset, event.interaction.at),
                self._bounds, frozenset(),
            )  # fmt: skip
            self._offset += 1
            if not self._repeats and event.interaction.item_id is not None:
                self._met[event.user_id] = self._met.get(event.user_id, set()) | {event.interaction.item_id}
        if len(self._waiting) >= AT_ONCE or len(self._signals) >= 8 * AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Let items in, learn what waits, then count it."""
        end = int(np.searchsorted(self._opens, self._now, side="right"))
        for start in range(self._put, end, _PUT_AT_ONCE):
            places = self._order[start : min(start + _PUT_AT_ONCE, end)]
            self.columns.put([(self._stream.items[place], self._vectors[place]) for place in places])
        self._put = end
        if self._waiting:
            requests, targets = zip(*self._waiting, strict=True)
            self.teach(requests, targets)
            self._waiting.clear()
        for signals in self._signals:
            self.columns.observe(signals)
        self._signals.clear()

    def teach(self, requests: Sequence[Request], targets: Sequence[Sequence[str]]) -> None:
        """Learn from users who chose `targets` in the state of `requests`."""
        for lesson in lessons_of(self.columns, requests, targets, self.policy):
            if lesson is not None:
                self.learner.learn(lesson)
                learn_vectors(self.columns, lesson)

    def state(self, user_id: str) -> UserState:
        """A user's state now; with the profile that the data set gives them."""
        state = self.states.get(user_id)
        return UserState(user_id, profile=self._stream.profiles.get(user_id)) if state is None else state

    def _request(self, step: Step, among: Mask | None) -> Request:
        rows: Mask | None = None
        if among is not None:
            rows = np.zeros(len(self.columns.live), np.bool_)
            rows[: self._put] = among[self._order[: self._put]]
        return Request(
            state=self.state(step.user_id),
            now=step.at,
            texts=self._texts,
            exclude=self._met.get(step.user_id, frozenset()),
            seed=crc32(f"{step.user_id}:{step.stamp}".encode()),
            among=rows,
        )


class Widened(Learner):
    """The served ranker with one feature more, which is one more expert of the guard."""

    def __init__(self, prior: LearnerState) -> None:
        super().__init__(prior=prior)
        column, expert = ((0, 0), (0, 1)), ((0, 0), (0, 1), (0, 1))
        self._mean, self._square = np.append(self._mean, 0.0), np.append(self._square, 1.0)
        self._weights = np.pad(self._weights, column)
        self._squares = np.pad(self._squares, column, constant_values=FIRST_SQUARES)
        self._experts = np.pad(self._experts, expert)
        self._experts[:, -1, -1] = 1.0
        self._gains, self._spreads = np.pad(self._gains, column), np.pad(self._spreads, column, constant_values=1.0)
        self.experts = (*self.experts, "rival")


class Wider(Lesson, frozen=True):
    """A lesson with one feature more."""

    whole: NDArray[np.float32] = np.zeros((0, 0), np.float32)

    @property
    def grid(self) -> NDArray[np.float32]:
        """Shape [items, features + 1]."""
        return self.whole
