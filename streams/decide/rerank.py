"""The order of the list: score, a little diversity, a cap on categories, and now and then two places for what is new."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.policy import Policy
from streams.decide.ragged import Rows
from streams.decide.table import Table
from streams.decide.taste import Request, Taste

EXPLORED: Final = 2
EXPLORING: Final = 10
"""One list in so many has places for new items, besides those that are made because a new item came."""
_POOL: Final = 4
_LEAST_POOL: Final = 40
_SLACK: Final = 1.5
_NEW_EVENTS: Final = 3
_NEW_SECONDS: Final = 7 * 86_400.0


def rerank(
    table: Table, rows: Rows, scores: NDArray[np.float32], taste: Taste, policy: Policy
) -> tuple[list[int], frozenset[int]]:
    """(places of `rows` in the order of the list, those of them that are there to be explored).

    MMR (Carbonell and Goldstein 1998): λ score − (1 − λ) greatest similarity to what stands before, both in spreads
    of the pool's scores.
    """
    request = taste.request
    limit = min(request.limit, len(rows))
    if limit <= 0:
        return [], frozenset()
    count = min(len(rows), max(_POOL * limit, _LEAST_POOL))
    pool = np.argpartition(-scores, count - 1)[:count]
    pool = pool[np.argsort(-scores[pool], kind="stable")]
    caps = _caps(table, rows, pool, taste, limit, policy)
    chosen = _diverse(table, rows, scores, pool, limit, caps, policy)
    explores = bool(request.came) or request.seed % EXPLORING == 0
    if not policy.explore or not explores or limit <= EXPLORED + 2:
        return chosen, frozenset()
    return _with_new(table, rows, scores, chosen, request)


def _caps(
    table: Table, rows: Rows, pool: NDArray[np.int64], taste: Taste, limit: int, policy: Policy
) -> NDArray[np.int64]:
    """How many of the list may share the first category of each place of the pool, among `rows`, the candidates.

    The policy's share, or half as much again as the category's share of the history or of all candidates: who takes mostly
    red wine, where most wines are red, gets mostly red wine (calibration: Steck 2018).
    """
    if taste.request.category is not None:
        return np.full(len(pool), limit)
    categories = table.category[rows]
    ours = categories[pool][:, None]
    share = (categories == ours).sum(axis=1) / len(rows)
    if not taste.is_cold:
        share = np.maximum(share, ((table.category[taste.rows] == ours) * taste.weight).sum(axis=1))
    share = np.maximum(_SLACK * share, policy.category_cap / 10)
    return np.asarray(np.maximum(1, np.rint(limit * share)).astype(np.int64))


def _diverse(
    table: Table,
    rows: Rows,
    scores: NDArray[np.float32],
    pool: NDArray[np.int64],
    limit: int,
    caps: NDArray[np.int64],
    policy: Policy,
) -> list[int]:
    best = scores[pool]
    relevance = policy.diversity * (best - best[0]) / max(float(best.std()), 1e-6)
    vectors = table.short[rows[pool]]
    likeness = (1.0 - policy.diversity) * (vectors @ vectors.T)
    alike = np.zeros(len(pool), np.float32)
    categories = table.category[rows[pool]]
    labels = categories.tolist()
    taken: dict[int, int] = {}
    chosen: list[int] = []
    while len(chosen) < limit:
        place = int((relevance - alike).argmax())
        if relevance[place] == -np.inf:
            break
        relevance[place] = -np.inf
        chosen.append(place)
        category = labels[place]
        taken[category] = taken.get(category, 0) + 1
        if category >= 0 and taken[category] >= caps[place]:
            relevance[categories == category] = -np.inf
        np.maximum(alike, likeness[place], out=alike)
    there = set(chosen)
    chosen += [place for place in range(len(pool)) if place not in there][: limit - len(chosen)]
    return [int(place) for place in pool[chosen]]


def _with_new(
    table: Table, rows: Rows, scores: NDArray[np.float32], chosen: list[int], request: Request
) -> tuple[list[int], frozenset[int]]:
    """The last two places go to what the list is made for, else to the best new items unless it holds new ones already."""
    if request.came:
        new = np.isin(rows, [table.rows[item_id] for item_id in request.came if item_id in table.rows])
        wanted = EXPLORED
    else:
        new = _is_new(table, rows, request)
        wanted = EXPLORED - int(new[chosen].sum())
    others = np.setdiff1d(np.flatnonzero(new), chosen)
    if wanted <= 0 or not len(others):
        return chosen, frozenset()
    best = others[np.argsort(-scores[others], kind="stable")][:wanted]
    explored = [int(place) for place in best]
    return [*chosen[: len(chosen) - len(explored)], *explored], frozenset(explored)


def _is_new(table: Table, rows: Rows, request: Request) -> NDArray[np.bool_]:
    """Whether an item came within a week, and hardly anybody has met it."""
    came = table.arrivals.at[rows]
    recent = (came > request.now - _NEW_SECONDS) & (came <= request.now)
    if request.clock is not None:  # the stream's time is that of the newest event: an item may have come since
        recent |= (came > request.clock - _NEW_SECONDS) & (came <= request.clock)
    return np.asarray(recent & (table.counts.events[rows] < _NEW_EVENTS))
