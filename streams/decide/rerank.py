"""The order of the list: score, a little diversity, a cap on categories, now and then two places for what is new, and
the places that exposure floors owe.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled
from streams.decide.policy import Policy, Protected
from streams.decide.ragged import Floats, Rows
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


EXPLORE: Final = "explore"
"""Mark of a place that is there to be explored; places that a floor owes are marked by their group."""


class Order(NamedTuple):
    """A list as places of the candidates."""

    places: list[int]
    marks: Mapping[int, str]
    """Why the list has places that score and diversity wouldn't give them."""
    short: tuple[Protected, ...] = ()
    """The group of each place that was owed and that no candidate could take."""


def rerank(table: Table, rows: Rows, scores: NDArray[np.float32], taste: Taste, policy: Policy) -> Order:
    """The order of the list. `scores`: of the candidates `rows`.

    MMR (Carbonell and Goldstein 1998): λ score − (1 − λ) greatest similarity to what stands before, both in spreads
    of the pool's scores.
    """
    request = taste.request
    limit = min(request.limit, len(rows))
    if limit <= 0:
        return Order([], {})
    best = np.empty(limit, np.int64)
    _choose(
        rows, scores, min(len(rows), max(_POOL * limit, _LEAST_POOL)), table.short, table.category, taste.rows,
        taste.weight, np.float32(policy.diversity), policy.category_cap / 10 if request.category is None else 1.0,
        best,
    )  # fmt: skip
    chosen: list[int] = best.tolist()
    explores = bool(request.came) or request.seed % EXPLORING == 0
    explored: list[int] = []
    if policy.explore and explores and limit > EXPLORED + 2:
        chosen, explored = _with_new(table, rows, scores, chosen, request)
    marks = dict.fromkeys(explored, EXPLORE)
    owed = {group: places_owed(share, limit, request.seed, group) for group, share in policy.floors.items()}
    if not any(owed.values()):
        return Order(chosen, marks)
    there = {group: members(table, rows, group, policy, request.now, request.clock) for group in owed}
    return with_floors(scores, chosen, marks, owed, there)


def places_owed(share: float, limit: int, seed: int, group: str) -> int:
    """How many of a list's places a floor owes: share × limit on average over seeds, rounded up or down by chance.

    The same for the same seed; groups are independent of each other.
    """
    chance = int.from_bytes(sha256(f"{group}:{seed}".encode()).digest()[:6]) / 2**48
    return min(limit, int(share * limit + chance))


def members(
    table: Table, rows: Rows, group: Protected, policy: Policy, now: float, clock: float | None = None
) -> NDArray[np.bool_]:
    """Whether each of these rows belongs to a group; `now`, `clock`: as in a request."""
    if group is Protected.NEW:
        return _is_new(table, rows, now, clock)
    return table.of_small_providers(rows, policy.floor_provider, policy.floor_small_below)


def with_floors(
    scores: NDArray[np.float32],
    chosen: list[int],
    marks: Mapping[int, str],
    owed: Mapping[Protected, int],
    there: Mapping[Protected, NDArray[np.bool_]],
) -> Order:
    """A list in which each group has the places that it is owed, as far as there are candidates.

    The best of the group that aren't in the list come at its end, in place of the last that may go: not those that are
    marked, nor those that another group is owed. `there`: by group, whether each candidate belongs to it.
    """
    places, marked = list(chosen), dict(marks)
    kept = set(marked)
    for group, count in owed.items():
        kept.update([place for place in places if there[group][place]][:count])
    short: list[Protected] = []
    for group, count in owed.items():
        wanted = count - sum(bool(there[group][place]) for place in places)
        others = np.setdiff1d(np.flatnonzero(there[group]), places)
        going = [place for place in reversed(places) if place not in kept and not there[group][place]]
        coming = others[np.argsort(-scores[others], kind="stable")][: max(0, min(wanted, len(going)))].tolist()
        gone = set(going[: len(coming)])
        places = [place for place in places if place not in gone] + coming
        kept.update(coming)
        marked.update(dict.fromkeys(coming, group.value))
        short += [group] * max(0, wanted - len(coming))
    return Order(places, marked, tuple(short))


@compiled
def _choose(
    rows: Rows, scores: Floats, count: int, short: Floats, category: Rows, past: Rows, weight: Floats,
    diversity: np.float32, cap: float, chosen: Rows,
) -> None:  # fmt: skip
    """Fills `chosen`, of at most `count` places, by MMR from the `count` best; `cap`: see `_most_of`, 1 for none."""
    pool = _best(scores, count)
    relevance = scores[pool]
    relevance = (relevance - relevance[0]) * (diversity / max(relevance.std(), np.float32(1e-6)))
    alike, apart = np.zeros(count, np.float32), np.float32(1) - diversity
    is_open = np.ones(count, np.bool_)
    for step in range(len(chosen)):
        best = -1
        for one in range(count):
            if is_open[one] and (best < 0 or relevance[one] - alike[one] > relevance[best] - alike[best]):
                best = one
        if best < 0:
            _fill(pool, chosen, step)
            return
        chosen[step], is_open[best] = pool[best], False
        row = rows[pool[best]]
        kind, shown = category[row], 0
        for one in range(step + 1):
            shown += category[rows[chosen[one]]] == kind
        full = kind >= 0 and cap < 1 and shown >= _most_of(kind, len(chosen), rows, category, past, weight, cap)
        for one in range(count):
            other = rows[pool[one]]
            if full and category[other] == kind:
                is_open[one] = False
            if is_open[one]:
                likeness = np.float32(0)
                for axis in range(short.shape[1]):
                    likeness += short[row, axis] * short[other, axis]
                alike[one] = max(alike[one], apart * likeness)


@compiled
def _best(scores: Floats, count: int) -> Rows:
    """Places of the `count` greatest scores, the greatest first, of equal ones the first."""
    found, size = np.empty(count, np.int64), 0
    for place in range(len(scores)):
        if size == count and scores[place] <= scores[found[count - 1]]:
            continue
        at = min(size, count - 1)
        while at > 0 and scores[found[at - 1]] < scores[place]:
            found[at] = found[at - 1]
            at -= 1
        found[at] = place
        size = min(size + 1, count)
    return found


@compiled
def _most_of(kind: int, limit: int, rows: Rows, category: Rows, past: Rows, weight: Floats, cap: float) -> int:
    """How many of the list may be of a category: the policy's share, or half as much again as the category's share of the
    history or of all candidates. Who takes mostly red wine, where most wines are red, gets mostly red wine (calibration:
    Steck 2018).
    """
    there, lived = 0, 0.0
    for row in rows:
        there += category[row] == kind
    for one in range(len(past)):
        if category[past[one]] == kind:
            lived += weight[one]
    return max(1, round(limit * max(_SLACK * max(there / len(rows), lived), cap)))


@compiled
def _fill(pool: Rows, chosen: Rows, step: int) -> None:
    """The best that are left, from `step` on: the categories are full."""
    for place in pool:
        if step == len(chosen):
            return
        if not (chosen[:step] == place).any():
            chosen[step] = place
            step += 1


def _with_new(
    table: Table, rows: Rows, scores: NDArray[np.float32], chosen: list[int], request: Request
) -> tuple[list[int], list[int]]:
    """(the list, what came into it).

    The last two places go to what the list is made for, else to the best new items unless it holds new ones already.
    """
    if request.came:
        new = np.isin(rows, [table.rows[item_id] for item_id in request.came if item_id in table.rows])
        wanted = EXPLORED
    else:
        new = _is_new(table, rows, request.now, request.clock)
        wanted = EXPLORED - int(new[chosen].sum())
    others = np.setdiff1d(np.flatnonzero(new), chosen)
    if wanted <= 0 or not len(others):
        return chosen, []
    best = others[np.argsort(-scores[others], kind="stable")][:wanted]
    explored = [int(place) for place in best]
    return [*chosen[: len(chosen) - len(explored)], *explored], explored


def _is_new(table: Table, rows: Rows, now: float, clock: float | None) -> NDArray[np.bool_]:
    """Whether an item came within a week, and hardly anybody has met it."""
    came = table.arrivals.at[rows]
    recent = (came > now - _NEW_SECONDS) & (came <= now)
    if clock is not None:  # the stream's time is that of the newest event: an item may have come since
        recent |= (came > clock - _NEW_SECONDS) & (came <= clock)
    return np.asarray(recent & (table.counts.events[rows] < _NEW_EVENTS))
