"""The arrays that features are computed in: users of a batch, their past, their candidates, padded alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streams.decide.ragged import Doubles, Floats, Rows
from streams.decide.taste import HISTORY, Taste


class Cells(NamedTuple):
    """What features are of, and what they are. What lies beyond a user's size means nothing."""

    rows: Rows
    """Candidates. Shape [users, candidates]."""
    sizes: Rows
    """How many candidates each user has."""
    values: Floats
    """[features, users, candidates]; NaN: nothing to say, which counts as the average."""


class Past(NamedTuple):
    """The tastes of a batch, padded to the same length. Shape [users, interactions], if nothing else is said."""

    rows: Rows
    weight: Floats
    brief: Floats
    liking: Floats
    at: Doubles
    """When each interaction was."""
    length: Rows
    """Interactions of each user; 0: cold. Shape [users]."""
    now: Doubles
    """When each list is made. Shape [users]."""


@dataclass(slots=True)
class Batch:
    """Users with candidates, and their features."""

    tastes: Sequence[Taste]
    cells: Cells
    past: Past
    similarity: Floats
    """[users, interactions, candidates]: dense cosine, for reasons."""

    def candidates(self, user: int) -> Rows:
        """The rows of a user's candidates."""
        return self.cells.rows[user, : self.cells.sizes[user]]


def past_of(tastes: Sequence[Taste]) -> Past:
    """The past of a batch of users."""
    shape = (len(tastes), HISTORY)
    rows, at = np.zeros(shape, np.int64), np.zeros(shape)
    weight, brief, liking = (np.zeros(shape, np.float32) for _ in range(3))
    for user, taste in enumerate(tastes):
        length = len(taste.rows)
        rows[user, :length], at[user, :length] = taste.rows, [one.at for one in taste.interactions]
        weight[user, :length], brief[user, :length], liking[user, :length] = taste.weight, taste.brief, taste.liking
    count = np.array([len(taste.rows) for taste in tastes], np.int64)
    return Past(rows, weight, brief, liking, at, count, np.array([taste.request.now for taste in tastes]))
