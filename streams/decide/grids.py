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


@dataclass(frozen=True, slots=True)
class Pairs:
    """Entries (user, interaction, candidate) where the candidate goes with the interaction's item; by user."""

    shape: tuple[int, int]
    """Users, candidates."""
    user: Rows
    place: Rows
    """Of the interaction in the user's past."""
    candidate: Rows
    """Place among the user's candidates."""
    cell: Rows
    """Where the candidate is among users × candidates."""
    weight: Grid
    """In pairs at distance 1. Shape [entries]."""
    recent: Grid
    either: Grid
    together: Grid

    def added(self, entries: Grid) -> Grid:
        """Sums of entries by (user, candidate)."""
        sums = np.bincount(self.cell, entries, self.shape[0] * self.shape[1])
        return sums.reshape(self.shape).astype(np.float32)

    def greatest(self, entries: Grid, least: Grid) -> Grid:
        """The greatest entry by (user, candidate), not below `least`."""
        found = least.ravel().copy()
        np.maximum.at(found, self.cell, entries)
        return found.reshape(self.shape)

    def of(self, user: int, candidates: Sequence[int]) -> Grid:
        """Weights in either order by interaction, for a few candidates of a user. Shape [interactions, candidates]."""
        mine = slice(*np.searchsorted(self.user, (user, user + 1)).tolist())
        column = np.full(self.shape[1], -1)
        column[candidates] = np.arange(len(candidates))
        columns = column[self.candidate[mine]]
        there = np.flatnonzero(columns >= 0)
        found = np.zeros((HISTORY, len(candidates)), np.float32)
        found[self.place[mine][there], columns[there]] = self.either[mine][there]
        return found


@dataclass(slots=True)
class Batch:
    """Users with candidates, and their features."""

    tastes: Sequence[Taste]
    rows: Rows
    """[users, candidates], 0 beyond `sizes`."""
    sizes: NDArray[np.int64]
    values: Grid
    """[features, users, candidates]; NaN: nothing to say, which counts as the average."""
    similarity: Grid
    """[users, interactions, candidates]: dense cosine, for reasons."""
    pairs: Pairs
    """Which candidate follows which interaction, for features and reasons."""


@dataclass(slots=True)
class Past:
    """The tastes of a batch, padded to the same length."""

    rows: Rows
    there: NDArray[np.bool_]
    weight: Grid
    brief: Grid
    liking: Grid
    count: NDArray[np.float32]
    """Interactions of each user."""

    now: NDArray[np.float64]
    """When each list is made."""
    unless_cold: Grid
    """0 for users with a past, NaN for those without: added to what only a past can say. Shape [users, 1]."""

    @classmethod
    def of(cls, tastes: Sequence[Taste]) -> Past:
        """The past of a batch of users."""
        shape = (len(tastes), HISTORY)
        rows = np.zeros(shape, np.int64)
        there = np.zeros(shape, np.bool_)
        weight, brief, liking = (np.zeros(shape, np.float32) for _ in range(3))
        for user, taste in enumerate(tastes):
            length = len(taste.rows)
            rows[user, :length], there[user, :length] = taste.rows, True
            weight[user, :length], brief[user, :length], liking[user, :length] = taste.weight, taste.brief, taste.liking
        now = np.array([taste.request.now for taste in tastes])
        unless_cold = np.where(there[:, :1], np.float32(0), np.float32(np.nan))
        return cls(rows, there, weight, brief, liking, there.sum(axis=1).astype(np.float32), now, unless_cold)

    def flat(self) -> Rows:
        """Where the interactions are among users × interactions."""
        return np.flatnonzero(self.there)


def mixed(weights: Grid, values: Grid) -> Grid:
    """Σ over interactions: [users, interactions] with [users, interactions, candidates]."""
    return np.asarray(np.matmul(weights[:, None, :], values)[:, 0, :])
