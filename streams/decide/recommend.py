"""From requests to rankings: retrieval, features, score, re-ranking, reasons; all users of a batch in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide import candidates
from streams.decide.features import compute
from streams.decide.grids import Batch
from streams.decide.lessons import Lesson
from streams.decide.policy import Policy
from streams.decide.ragged import Rows
from streams.decide.ranker import Model
from streams.decide.reasons import explain
from streams.decide.rerank import rerank
from streams.decide.table import Table
from streams.decide.taste import Request, Taste, taste_of
from streams.values import EventType, Ranking, Strategy, Vector

AT_ONCE: Final = 32
"""Users whose features are computed together; from here on more of them would save nothing."""
LESSON_OTHERS: Final = 64
LESSON_TARGETS: Final = 8


def recommend(columns: Table, requests: Sequence[Request], model: Model, policy: Policy) -> list[Ranking]:
    """One ranking a request, in order. Never fails: without items the list is empty."""
    return recommend_tastes(columns, [taste_of(columns, request, policy) for request in requests], model, policy)


def recommend_tastes(columns: Table, tastes: Sequence[Taste], model: Model, policy: Policy) -> list[Ranking]:
    """`recommend` for tastes that are known already."""
    rankings: list[Ranking] = []
    for start in range(0, len(tastes), AT_ONCE):
        rankings += rank(columns, _batch(columns, tastes[start : start + AT_ONCE], policy), model, policy)
    return rankings


def rank(columns: Table, batch: Batch, model: Model, policy: Policy) -> list[Ranking]:
    """One ranking for each user of a batch."""
    scores = model.scores(batch.cells.values, batch.cells.sizes, batch.past.length == 0)
    return [_ranking(columns, batch, user, scores[user], model, policy) for user in range(len(batch.tastes))]


def batch_of(columns: Table, requests: Sequence[Request], policy: Policy) -> Batch:
    """Tastes, candidates and features of requests."""
    return _batch(columns, [taste_of(columns, request, policy) for request in requests], policy)


def _batch(columns: Table, tastes: Sequence[Taste], policy: Policy) -> Batch:
    return compute(columns, tastes, candidates.find(columns, tastes, policy))


def lessons_of(
    columns: Table, requests: Sequence[Request], targets: Sequence[Sequence[str]], policy: Policy
) -> list[Lesson | None]:
    """What is learned from users who chose `targets` in the state of `requests`; None where none was a candidate."""
    return draw(columns, requests, targets, policy).lessons(columns.ids)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What users chose, and what they could have been shown instead, before it is packed into lessons."""

    batch: Batch
    """Of each user the targets that were candidates come first, then some of the other candidates."""
    targets: list[int]
    """How many of a user's rows are targets; 0: no lesson, and no rows."""
    pools: list[int]
    """Candidates of each user that the others were drawn from."""

    def lessons(self, ids: Sequence[str]) -> list[Lesson | None]:
        """A lesson for each user; None where no target was a candidate."""
        batch = self.batch
        values, sizes = np.clip(batch.cells.values, -60000, 60000).astype(np.float16), batch.cells.sizes
        return [
            Lesson(
                count, taste.is_cold, pool, values[:, user, : sizes[user]].T.tobytes(), taste.request.now,
                tuple(ids[row] for row in batch.candidates(user).tolist()), tuple(ids[row] for row in taste.rows.tolist()),
                taste.weight.tobytes(),
            ) if count else None
            for user, (taste, count, pool) in enumerate(zip(batch.tastes, self.targets, self.pools, strict=True))
        ]  # fmt: skip


def draw(columns: Table, requests: Sequence[Request], targets: Sequence[Sequence[str]], policy: Policy) -> Drawn:
    """Targets and others for users who chose `targets` in the state of `requests`, with their features."""
    tastes = [taste_of(columns, request, policy) for request in requests]
    found = candidates.find(columns, tastes, policy)
    drawn: list[Rows] = []
    counts: list[int] = []
    for taste, rows, wanted in zip(tastes, found, targets, strict=True):
        chosen = np.array([columns.rows[one] for one in dict.fromkeys(wanted) if one in columns.rows], np.int64)
        wished = set(chosen.tolist())
        there = np.array([row in wished for row in rows.tolist()], np.bool_)
        hits, others = rows[there][:LESSON_TARGETS], rows[~there]
        if len(others) > LESSON_OTHERS:
            others = np.random.default_rng(taste.request.seed).choice(others, LESSON_OTHERS, replace=False)
        counts.append(len(hits) if len(others) else 0)
        drawn.append(np.concatenate([hits, others]) if counts[-1] else np.zeros(0, np.int64))
    return Drawn(compute(columns, tastes, drawn), counts, [len(rows) for rows in found])


def learn_vectors(columns: Table, lesson: Lesson) -> None:
    """What a lesson teaches of its items' vectors; those that aren't held are left out."""
    known = columns.rows
    rows = np.array([known.get(one, -1) for one in lesson.items], np.int64)
    history = np.array([known.get(one, -1) for one in lesson.history], np.int64)
    held, targets = rows >= 0, int((rows[: lesson.targets] >= 0).sum())
    if 0 < targets < held.sum():
        past, shares = history >= 0, np.frombuffer(lesson.shares, np.float32)
        columns.learned.learn(columns.short, rows[held], targets, history[past], shares[past])


def lesson_of(columns: Table, request: Request, targets: Sequence[str], policy: Policy) -> Lesson | None:
    """`lessons_of` for one user."""
    return lessons_of(columns, [request], [targets], policy)[0]


def floor_of(columns: Table, taste: Vector | None, ranking: Ranking | None) -> float:
    """The cosine (centred) with the taste from which a new item might enter this list: that of its weakest dense match.

    −1 for a list that isn't full, 1 for a user without a taste.
    """
    if taste is None:
        return 1.0
    if ranking is None or not ranking.items:
        return -1.0
    rows = [columns.rows[item_id] for item_id in ranking.item_ids if item_id in columns.rows]
    if not rows:
        return -1.0
    centred = columns.vectors[rows].astype(np.float32) - columns.mean
    norms = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    return float((centred @ taste / np.maximum(norms, 1e-6)).min())


def _ranking(
    table: Table, batch: Batch, user: int, scores: NDArray[np.float32], model: Model, policy: Policy
) -> Ranking:
    taste, rows = batch.tastes[user], batch.candidates(user)
    places, marks, short = rerank(table, rows, scores[: len(rows)], taste, policy)
    items = explain(table, batch, user, places, model, marks)
    return Ranking(_strategy(table, taste, policy), items, model.version, short=short)


def _strategy(table: Table, taste: Taste, policy: Policy) -> Strategy:
    state = taste.request.state
    if not taste.is_cold:
        strong = any(abs(policy.event_weights.get(one.type, 0.0)) > 0.5 for one in taste.interactions)
        return Strategy.PERSONAL if strong else Strategy.SESSION
    if taste.wishes or any(one.type is EventType.SEARCH for one in state.history):
        return Strategy.SESSION
    if taste.profile:
        return Strategy.PROFILE
    return Strategy.POPULAR if table.counts.total else Strategy.NEWEST
