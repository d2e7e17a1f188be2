"""Why an item is in a list: the parts of its score, which sum to it, and the input whose part was largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
from streams.decide.grids import Batch
from streams.decide.policy import Protected
from streams.decide.ragged import Rows
from streams.decide.rerank import EXPLORE
from streams.decide.statistics import PAIR_UNIT
from streams.decide.table import Table
from streams.decide.taste import Taste
from streams.values import RankedItem, Reason

PARTS: Final = (HISTORY_PART, SIMILAR_USERS_PART, PROFILE_PART, WISH_PART, POPULAR_PART, NEW_PART)
_PART_OF: Final = np.zeros((len(PARTS), len(FEATURES)), np.float32)
_PART_OF[[PARTS.index(part) for part in FEATURES.values()], np.arange(len(FEATURES))] = 1.0
_MARKED: Final = {
    EXPLORE: Reason("explore", "new here: shown to find out who likes it"),
    Protected.NEW.value: Reason("floor", "new here: new items have their share of places"),
    Protected.SMALL.value: Reason("floor", "of a small provider: these have their share of places"),
}
"""Reasons of places that score and diversity wouldn't give an item."""


def explain(
    table: Table,
    batch: Batch,
    user: int,
    places: Sequence[int],
    contributions: NDArray[np.float32],
    marks: Mapping[int, str],
) -> tuple[RankedItem, ...]:
    """The places of a list, from what each feature contributed to their scores. Shape [features, places].

    A part can be the reason only where there is something to name: a history, a pair, a profile, a wish.
    """
    taste, count = batch.tastes[user], len(batch.tastes[user].rows)
    sums = _PART_OF @ contributions
    followed = pairs_with(table, taste.rows, batch.rows[user, places])
    open_parts = np.ones((len(PARTS), len(places)), np.bool_)
    open_parts[PARTS.index(HISTORY_PART)] = not taste.is_cold
    open_parts[PARTS.index(SIMILAR_USERS_PART)] = followed.any(axis=0) if count else False
    open_parts[PARTS.index(PROFILE_PART)] = bool(taste.profile)
    open_parts[PARTS.index(WISH_PART)] = bool(taste.wishes)
    largest = np.where(open_parts, sums, -np.inf).argmax(axis=0).tolist()
    met = table.counts.events[taste.rows][:, None] + 5.0
    inputs = {
        HISTORY_PART: taste.weight[:, None] * batch.similarity[user, :count, places].T,
        SIMILAR_USERS_PART: taste.weight[:, None] * followed / met,
    }
    if taste.wishes:
        inputs[WISH_PART] = _wished(table, taste, batch.rows[user, places])
    strongest = {part: brought.argmax(axis=0).tolist() for part, brought in inputs.items() if len(brought)}
    items = []
    for column, (place, row, values) in enumerate(
        zip(places, batch.rows[user, places].tolist(), sums.T.tolist(), strict=True)
    ):
        part = PARTS[largest[column]]
        parts = {name: value for name, value in zip(PARTS, values, strict=True) if value}
        mark = marks.get(place)
        reason = _reason(table, taste, part, strongest.get(part), column) if mark is None else _MARKED[mark]
        items.append(RankedItem(table.ids[row], sum(parts.values()), parts, reason))
    return tuple(items)


def pairs_with(table: Table, past: Rows, rows: Rows) -> NDArray[np.float32]:
    """Weights of the pairs, in either order, of each interaction with each of a few items. Shape [interactions, items]."""
    start, length, pairs = table.companions.arrays
    found = np.zeros((len(past), len(rows)), np.float32)
    _pairs_with(past, rows, start, length, pairs["row"], pairs["either"], np.float32(1 / PAIR_UNIT), table.local, found)
    return found


@compiled
def _pairs_with(
    past: Rows, rows: Rows, start: Rows, length: Rows, companions: NDArray[np.int32], either: NDArray[np.int32],
    unit: np.float32, local: NDArray[np.int32], found: NDArray[np.float32],
) -> None:  # fmt: skip
    """`local` [rows]: −1 before and after; `unit`: what one of the integer weights is worth."""
    for place in range(len(rows)):
        local[rows[place]] = place
    for one in range(len(past)):
        for entry in range(start[past[one]], start[past[one]] + length[past[one]]):
            place = local[companions[entry]]
            if place >= 0:
                found[one, place] = unit * either[entry]
    for place in range(len(rows)):
        local[rows[place]] = -1


def _reason(table: Table, taste: Taste, part: str, strongest: Sequence[int] | None, column: int) -> Reason:
    """`strongest`: by place, the interaction (or wish) that brought most to the part."""
    if strongest is not None and part == WISH_PART:
        return Reason(part, f"fits your search: {taste.wishes[strongest[column]][:80]}")
    if strongest is not None:
        row = int(taste.rows[strongest[column]])
        record = table.records[row]
        title = record.title if record is not None else ""
        return Reason(part, f"{'like' if part == HISTORY_PART else 'often goes with'} {title}", table.ids[row])
    if part == PROFILE_PART:
        return Reason(part, f"fits your words: {taste.profile[:80]}")
    return Reason(part, "popular lately" if part == POPULAR_PART else "came in lately")


def _wished(table: Table, taste: Taste, rows: Rows) -> NDArray[np.float32]:
    """How well each of `rows` fits each wish, by its share. Shape [wishes, rows]; the first wish where no text tells."""
    found = np.zeros((len(taste.wishes), len(rows)), np.float32)
    for place, (wish, share) in enumerate(zip(taste.wishes, taste.wish_shares, strict=True)):
        vector = taste.request.texts.get(wish)
        if vector is not None:
            found[place] = share * (table.short[rows] @ table.project(vector[None])[0])
    return found
