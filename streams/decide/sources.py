"""The loops of retrieval: what goes with a history, what shares its rare facets, what may stand in a list."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.companions import Pairs
from streams.decide.compiled import compiled, heaviest
from streams.decide.counts import SIXTY_DAYS
from streams.decide.ragged import Doubles, Floats, Mask, Posted, Rows
from streams.decide.wording import Kinds

_RARE_FACET: Final = 200
_FACETS: Final = 8


@compiled
def heaviest_companions(past: Rows, share: Doubles, pairs: Pairs, among: Mask, sums: Doubles, found: Rows) -> int:
    """Fills `found`; returns how many. `sums` [rows]: zero before and after; `among`: empty for all."""
    most = 0
    for one in range(len(past)):
        most += pairs.length[past[one]]
    rows, size, item, either = np.empty(most, np.int64), 0, pairs.item, pairs.either
    for one in range(len(past)):
        first, loud = pairs.start[past[one]], share[one]
        for entry in range(first, first + pairs.length[past[one]]):
            row = item[entry]
            if sums[row] == 0:
                rows[size] = row
                size += either[entry] > 0
            sums[row] += loud * either[entry]
    return _best_sums(rows[:size], sums, among, found)


@compiled
def _best_sums(rows: Rows, sums: Doubles, among: Mask, found: Rows) -> int:
    """The rows of the greatest sums into `found`, as many as it holds; returns how many. Zeroes all sums.

    `rows`: distinct, and changed; `among`: empty for all.
    """
    scores, held = np.empty(len(rows)), 0
    for row in rows:
        if not len(among) or among[row]:
            rows[held], scores[held] = row, sums[row]
            held += 1
        sums[row] = 0
    count = heaviest(scores[:held], len(found), found)
    for place in range(count):
        found[place] = rows[found[place]]
    return count


@compiled
def popular_in_facets(
    past: Rows, weight: Floats, kinds: Kinds, posted: Posted, scaled: Doubles, decay: float, among: Mask, shares: Floats,
    sums: Doubles, found: Rows,
) -> int:  # fmt: skip
    """Fills `found`; returns how many. `shares` [facets] and `sums` [rows]: zero before and after; `among`: empty for all."""
    facets = np.empty(_FACETS, np.int64)
    facets = facets[: _rare_facets(past, weight, kinds, shares, facets)]
    most = len(posted.late_rows)
    for facet in facets:
        most += posted.ends[facet + 1] - posted.ends[facet]
    rows, size = np.empty(most, np.int64), 0
    for facet in facets:
        there = posted.rows[posted.ends[facet] : posted.ends[facet + 1]]
        size = _add(there, shares[facet], rows, size, sums)
    for place in range(len(posted.late_rows)):
        share = shares[posted.late_terms[place]]
        if share > 0:
            size = _add(posted.late_rows[place : place + 1], share, rows, size, sums)
    for facet in facets:
        shares[facet] = 0
    for place in range(size):
        sums[rows[place]] *= math.log(scaled[rows[place], SIXTY_DAYS] * decay + 1.5)
    return _best_sums(rows[:size], sums, among, found)


@compiled
def _add(added: NDArray[np.integer], share: float, rows: Rows, size: int, sums: Doubles) -> int:
    """Adds a share to the sum of each row (−1 is none); `rows` names each once, so far `size`; returns how many now."""
    for row in added:
        if row >= 0:
            if sums[row] == 0:
                rows[size] = row
                size += 1
            sums[row] += share
    return size


@compiled
def _rare_facets(past: Rows, weight: Floats, kinds: Kinds, shares: Floats, found: Rows) -> int:
    """The rare facets with the greatest shares of the history into `found`; returns how many. `shares` is left with theirs."""
    most = 0
    for one in range(len(past)):
        most += kinds.length[past[one]]
    met, size = np.empty(most, np.int64), 0
    for one in range(len(past)):
        for entry in range(kinds.start[past[one]], kinds.start[past[one]] + kinds.length[past[one]]):
            facet = kinds.facet[entry]
            if 1 < kinds.having[facet] <= _RARE_FACET:
                if shares[facet] == 0:
                    met[size] = facet
                    size += 1
                shares[facet] += weight[one]
    loud = np.empty(size)
    for place in range(size):
        loud[place], shares[met[place]] = shares[met[place]], 0
    count = heaviest(loud, len(found), found)
    for place in range(count):
        facet = met[found[place]]
        shares[facet], found[place] = loud[found[place]], facet
    return count


@compiled
def keep_allowed(
    rows: Rows, refused: Rows, now: float, live: Mask, opens: Doubles, closes: Doubles, among: Mask,
    local: NDArray[np.int32],
) -> int:  # fmt: skip
    """Moves what may be kept of `rows` to their front; returns how many. `local` [rows]: −1 before and after."""
    for row in refused:
        local[row] = 0
    count = 0
    for place in range(len(rows)):
        row = rows[place]
        if local[row] < 0 and live[row] and opens[row] <= now < closes[row] and (not len(among) or among[row]):
            local[row] = 0
            rows[count] = row
            count += 1
    for place in range(count):
        local[rows[place]] = -1
    for row in refused:
        local[row] = -1
    return count
