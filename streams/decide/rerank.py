"""The order of the list: score, a little diversity, a cap on categories, and at most two places for what is new."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.policy import Policy
from streams.decide.ragged import Rows
from streams.decide.table import Table
from streams.decide.taste import Request

EXPLORED: Final = 2
_POOL: Final = 4
_NEW_EVENTS: Final = 3
_NEW_SECONDS: Final = 7 * 86_400.0


def rerank(
    table: Table, rows: Rows, scores: NDArray[np.float32], request: Request, policy: Policy
) -> tuple[list[int], frozenset[int]]:
    """(places of `rows` in the order of the list, those of them that are there to be explored).

    MMR (Carbonell and Goldstein 1998): λ score − (1 − λ) greatest similarity to what stands before, both in spreads
    of the pool's scores.
    """
    limit = min(request.limit, len(rows))
    if limit <= 0:
        return [], frozenset()
    count = min(len(rows), _POOL * limit)
    pool = np.argpartition(-scores, count - 1)[:count]
    pool = pool[np.argsort(-scores[pool], kind="stable")]
    cap = max(1, round(policy.category_cap * limit / 10)) if request.category is None else limit
    chosen = _diverse(table, rows, scores, pool, limit, cap, policy)
    if not policy.explore or limit <= EXPLORED + 2:
        return chosen, frozenset()
    return _with_new(table, rows, scores, chosen, request)


def _diverse(
    table: Table, rows: Rows, scores: NDArray[np.float32], pool: NDArray[np.int64], limit: int, cap: int, policy: Policy
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
        if category >= 0 and taken[category] >= cap:
            relevance[categories == category] = -np.inf
        np.maximum(alike, likeness[place], out=alike)
    there = set(chosen)
    chosen += [place for place in range(len(pool)) if place not in there][: limit - len(chosen)]
    return [int(place) for place in pool[chosen]]


def _with_new(
    table: Table, rows: Rows, scores: NDArray[np.float32], chosen: list[int], request: Request
) -> tuple[list[int], frozenset[int]]:
    """The last two places go to the best new items, unless the list holds new ones already."""
    came = table.arrivals.at[rows]
    new = (table.counts.events[rows] < _NEW_EVENTS) & (came > request.now - _NEW_SECONDS) & (came <= request.now)
    wanted = EXPLORED - int(new[chosen].sum())
    others = np.setdiff1d(np.flatnonzero(new), chosen)
    if wanted <= 0 or not len(others):
        return chosen, frozenset()
    best = others[np.argsort(-scores[others], kind="stable")][:wanted]
    explored = [int(place) for place in best]
    return [*chosen[: len(chosen) - len(explored)], *explored], frozenset(explored)
