"""Why an item is in a list: the parts of its score, which sum to it, and the input whose part was largest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.companions import Pairs
from streams.decide.compiled import compiled
from streams.decide.features import (
    FEATURES,
    HISTORY_PART,
    NEW_PART,
    POPULAR_PART,
    PROFILE_PART,
    SIMILAR_USERS_PART,
    WISH_PART,
)
from streams.decide.grids import Batch, Past
from streams.decide.policy import Protected
from streams.decide.ragged import Doubles, Floats, Rows
from streams.decide.ranker import CLIP, Model
from streams.decide.rerank import EXPLORE
from streams.decide.table import Table
from streams.decide.taste import Taste
from streams.values import RankedItem, Reason

PARTS: Final = (HISTORY_PART, SIMILAR_USERS_PART, PROFILE_PART, WISH_PART, POPULAR_PART, NEW_PART)
_HISTORY, _SIMILAR, _PROFILE, _WISH = range(4)
_PART_OF: Final = np.array([PARTS.index(part) for part in FEATURES.values()])
_MARKED: Final = {
    EXPLORE: Reason("explore", "new here: shown to find out who likes it"),
    Protected.NEW.value: Reason("floor", "new here: new items have their share of places"),
    Protected.SMALL.value: Reason("floor", "of a small provider: these have their share of places"),
}
"""Reasons of places that score and diversity wouldn't give an item."""


def explain(
    table: Table, batch: Batch, user: int, places: Sequence[int], model: Model, marks: Mapping[int, str]
) -> tuple[RankedItem, ...]:
    """The places of a list, with the parts of their scores.

    A part can be the reason only where there is something to name: a history, a pair, a profile, a wish.
    """
    taste, chosen = batch.tastes[user], np.array(places, np.int64)
    rows, size = batch.cells.rows[user, chosen], len(chosen)
    sums = np.zeros((size, len(PARTS)), np.float32)
    weights, inverse = model.weights[int(taste.is_cold)], np.reciprocal(model.scale)
    _sum_parts(batch.cells.values, user, chosen, weights, model.mean, inverse, CLIP, _PART_OF, sums)
    can_be = np.array([not taste.is_cold, True, bool(taste.profile), bool(taste.wishes), True, True])
    why, strongest = np.zeros(size, np.int64), np.full(size, -1)
    _strongest_pair(user, batch.past, rows, table.counts.events, table.companions.pairs, table.local, strongest)
    _find_why(user, batch.past, chosen, sums, can_be, batch.similarity, why, strongest)
    if taste.wishes:
        strongest = np.where(why == _WISH, _wished(table, taste, rows).argmax(axis=0), strongest)
    items = []
    for place, row, values, part, input_ in zip(
        places, rows.tolist(), sums.tolist(), why.tolist(), strongest.tolist(), strict=True
    ):
        parts = {name: value for name, value in zip(PARTS, values, strict=True) if value}
        mark = marks.get(place)
        reason = _reason(table, taste, part, input_) if mark is None else _MARKED[mark]
        items.append(RankedItem(table.ids[row], sum(values), parts, reason))
    return tuple(items)


@compiled
def _sum_parts(
    values: Floats, user: int, places: Rows, weights: Floats, mean: Floats, inverse: Floats, clip: float, part_of: Rows,
    sums: Floats,
) -> None:  # fmt: skip
    """What the features of each part bring to the scores of places. Shape [places, parts]."""
    most = np.float32(clip)
    for place in range(len(places)):
        for feature in range(len(part_of)):
            value = values[feature, user, places[place]]
            if not math.isnan(value):
                scaled = min(max((value - mean[feature]) * inverse[feature], -most), most)
                sums[place, part_of[feature]] += weights[feature] * scaled


@compiled
def _strongest_pair(
    user: int, past: Past, rows: Rows, events: Doubles, pairs: Pairs, local: NDArray[np.int32], strongest: Rows
) -> None:
    """The interaction whose pair with each row, in either order, weighs most; −1 where there is none.

    `local` [rows]: −1 before and after.
    """
    most = np.zeros(len(rows))
    for place in range(len(rows)):
        local[rows[place]] = place
    for one in range(past.length[user]):
        row = past.rows[user, one]
        for entry in range(pairs.start[row], pairs.start[row] + pairs.length[row]):
            place = local[pairs.item[entry]]
            brought = past.weight[user, one] * pairs.either[entry] / (events[row] + 5.0)
            if place >= 0 and brought > most[place]:
                most[place], strongest[place] = brought, one
    for row in rows:
        local[row] = -1


@compiled
def _find_why(
    user: int, past: Past, places: Rows, sums: Floats, can_be: NDArray[np.bool_], similarity: Floats, why: Rows,
    strongest: Rows,
) -> None:  # fmt: skip
    """The greatest part that can be; `strongest` comes as that of the pairs, and becomes that of this part."""
    for place in range(len(places)):
        best = -1
        for part in range(len(can_be)):
            possible = can_be[part] and (part != _SIMILAR or strongest[place] >= 0)
            if possible and (best < 0 or sums[place, part] > sums[place, best]):
                best = part
        why[place] = best
        if best != _SIMILAR:
            cosines = past.weight[user] * similarity[user, :, places[place]]
            strongest[place] = cosines[: past.length[user]].argmax() if past.length[user] else 0


def _reason(table: Table, taste: Taste, why: int, strongest: int) -> Reason:
    """`strongest`: the interaction (or wish) that brought most to the part."""
    part = PARTS[why]
    if why == _WISH:
        return Reason(part, f"fits your search: {taste.wishes[strongest][:80]}")
    if why in (_HISTORY, _SIMILAR):
        row = int(taste.rows[strongest])
        record = table.records[row]
        title = record.title if record is not None else ""
        return Reason(part, f"{'like' if why == _HISTORY else 'often goes with'} {title}", table.ids[row])
    if why == _PROFILE:
        return Reason(part, f"fits your words: {taste.profile[:80]}")
    return Reason(part, "popular lately" if part == POPULAR_PART else "came in lately")


def _wished(table: Table, taste: Taste, rows: Rows) -> Floats:
    """How well each of `rows` fits each wish, by its share. Shape [wishes, rows]; the first wish where no text tells."""
    found = np.zeros((len(taste.wishes), len(rows)), np.float32)
    for place, (wish, share) in enumerate(zip(taste.wishes, taste.wish_shares, strict=True)):
        vector = taste.request.texts.get(wish)
        if vector is not None:
            found[place] = share * (table.short[rows] @ table.project(vector[None])[0])
    return found
