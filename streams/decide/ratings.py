"""What rating a user would give: biases, and what like-minded rows of the history say.

r̂ = μ + b_item + b_user + n(user, item), with b_item = Σ (r − μ) / (n + λ), b_user the same over the user's kept
ratings less their items' biases (Koren 2008, section 2.1), of which the latest count most, since what somebody calls good
changes from sitting to sitting (Koren 2009, section 3.2), and n the mean of the remaining errors of the history's
items, weighted by their likeness to the item and drawn to 0: so an item that nobody has rated borrows from its text.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from streams.decide.table import Table
from streams.values import EventType, UserState

ITEM_SHRINKAGE: Final = 6.0
USER_SHRINKAGE: Final = 3.0
USER_HALF_LIFE: Final = 3.0
"""After so many further ratings one counts half in the user's bias."""
LIKENESS_SHRINKAGE: Final = 2.0
LIKENESS_POWER: Final = 2.0
NEIGHBOURS: Final = 8


def predict_rating(table: Table, state: UserState, item_id: str) -> float | None:
    """The rating that a user is expected to give; None where nothing was ever rated, or the item isn't held."""
    row = table.rows.get(item_id)
    counts = table.counts
    rated = float(counts.ratings.sum())
    if row is None or not rated:
        return None
    mean = float(counts.rating_sum.sum()) / rated
    known = [
        (table.rows[one.item_id], one.value)
        for one in state.history
        if one.type is EventType.RATING and one.value is not None and one.item_id in table.rows
    ]
    bias = _item_bias(table, np.array([row]), mean)[0]
    if counts.ratings[row] < NEIGHBOURS:
        near, scores = table.nearness.of(np.array([row]), len(table.ids), table.short, table.wording)
        best = near[0][np.argsort(-scores[0])[:NEIGHBOURS]].astype(np.int64)
        best = best[best >= 0]
        if len(best):
            share = counts.ratings[row] / (counts.ratings[row] + ITEM_SHRINKAGE)
            bias += (1.0 - share) * float(_item_bias(table, best, mean).mean())
    if not known:
        return mean + float(bias)
    rows = np.array([place for place, _ in known])
    errors = np.array([value for _, value in known], np.float64) - mean - _item_bias(table, rows, mean)
    weight = 0.5 ** (np.arange(len(errors))[::-1] / USER_HALF_LIFE)
    user = float((weight * errors).sum() / (weight.sum() + USER_SHRINKAGE))
    likeness = np.maximum(table.short[rows] @ table.short[row], 0.0).astype(np.float64) ** LIKENESS_POWER
    rest = float((likeness * (errors - user)).sum() / (likeness.sum() + LIKENESS_SHRINKAGE))
    return mean + float(bias) + user + rest


def _item_bias(
    table: Table, rows: np.ndarray[tuple[int], np.dtype[np.int64]], mean: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = table.counts
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = (counts.rating_sum[rows] - mean * counts.ratings[rows]) / (
        counts.ratings[rows] + ITEM_SHRINKAGE
    )
    return found
