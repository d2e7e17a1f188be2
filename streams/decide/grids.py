"""The arrays that features are computed in: users of a batch, their past, their candidates, padded alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Rows
from streams.decide.taste import HISTORY, Taste

Grid = NDArray[np.float32]
"""Shape [users, candidates], if nothing else is said."""


@dataclass(slots=True)
class Batch:
    """Users with candidates, and their features. What lies beyond `sizes` means nothing."""

    tastes: Sequence[Taste]
    rows: Rows
    """[users, candidates], 0 beyond `sizes`."""
    sizes: NDArray[np.int64]
    values: Grid
    """[features, users, candidates]; NaN: nothing to say, which counts as the average."""
    similarity: Grid
    """[users, interactions, candidates]: dense cosine, for reasons."""


@dataclass(slots=True)
class Past:
    """The tastes of a batch, padded to the same length. Shape [users, interactions], if nothing else is said."""

    rows: Rows
    weight: Grid
    brief: Grid
    liking: Grid
    at: NDArray[np.float64]
    """When each interaction was."""
    count: NDArray[np.int64]
    """Interactions of each user; 0: cold. Shape [users]."""
    now: NDArray[np.float64]
    """When each list is made. Shape [users]."""

    @classmethod
    def of(cls, tastes: Sequence[Taste]) -> Past:
        """The past of a batch of users."""
        shape = (len(tastes), HISTORY)
        rows, at = np.zeros(shape, np.int64), np.zeros(shape)
        weight, brief, liking = (np.zeros(shape, np.float32) for _ in range(3))
        for user, taste in enumerate(tastes):
            length = len(taste.rows)
            rows[user, :length], at[user, :length] = taste.rows, [one.at for one in taste.interactions]
            weight[user, :length], brief[user, :length], liking[user, :length] = taste.weight, taste.brief, taste.liking
        count = np.array([len(taste.rows) for taste in tastes], np.int64)
        return cls(rows, weight, brief, liking, at, count, np.array([taste.request.now for taste in tastes]))
