"""Why an item is in a list: the parts of its score, which sum to it, and the input whose part was largest."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

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
from streams.decide.table import Table
from streams.values import RankedItem, Reason

PARTS: Final = (HISTORY_PART, SIMILAR_USERS_PART, PROFILE_PART, WISH_PART, POPULAR_PART, NEW_PART)
_PART_OF: Final = np.array([PARTS.index(part) for part in FEATURES.values()])


def explain(
    table: Table, batch: Batch, user: int, place: int, contributions: NDArray[np.float32], *, explored: bool
) -> RankedItem:
    """A place of a list from what each feature contributed to its score."""
    sums = np.bincount(_PART_OF, contributions, minlength=len(PARTS))
    taste = batch.tastes[user]
    followed = bool(batch.follows[user, : len(taste.rows), place].any())  # else the part says how usual the item is
    open_parts = [
        part for part in range(len(PARTS))
        if not (PARTS[part] == HISTORY_PART and taste.is_cold)
        and not (PARTS[part] == SIMILAR_USERS_PART and not followed)
        and not (PARTS[part] == PROFILE_PART and not taste.profile)
        and not (PARTS[part] == WISH_PART and not taste.wishes)
    ]  # fmt: skip
    largest = PARTS[max(open_parts, key=lambda part: sums[part])]
    item_id = table.ids[batch.rows[user, place]]
    return RankedItem(
        item_id=item_id,
        score=float(sums.sum()),
        parts={name: float(value) for name, value in zip(PARTS, sums, strict=True) if value},
        reason=_explored() if explored else _reason(table, batch, user, place, largest),
    )


def _explored() -> Reason:
    return Reason("explore", "new here: shown to find out who likes it")


def _reason(table: Table, batch: Batch, user: int, place: int, part: str) -> Reason:
    taste = batch.tastes[user]
    if part in (HISTORY_PART, SIMILAR_USERS_PART):
        count = len(taste.rows)
        source = batch.similarity if part == HISTORY_PART else batch.follows
        shares = taste.weight * source[user, :count, place]
        if part == SIMILAR_USERS_PART:
            shares = shares / (table.counts.events[taste.rows] + 5.0)
        best = int(shares.argmax())
        record = table.records[taste.rows[best]]
        title = record.title if record is not None else ""
        said = "like" if part == HISTORY_PART else "often goes with"
        return Reason(part, f"{said} {title}", table.ids[taste.rows[best]])
    if part == PROFILE_PART:
        return Reason(part, f"fits your words: {taste.profile[:80]}")
    if part == WISH_PART:
        return Reason(part, f"fits your search: {taste.wishes[0][:80]}")
    return Reason(part, "popular lately" if part == POPULAR_PART else "came in lately")
