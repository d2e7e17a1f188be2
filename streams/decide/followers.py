"""What follows what: each item's followers with integer weights, bounded, exact below the bound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Ragged, Rows
from streams.decide.statistics import FOLLOWERS_KEPT, FOLLOWERS_MOST, PAIR_UNIT, PERIOD_SECONDS, Follower, period_of


class Followers:
    """For each row its followers: the in-memory side of `ItemStatistics.followers`."""

    def __init__(self) -> None:
        self._pool = Ragged(row=np.int32, total=np.int32, period=np.int32, current=np.int32, previous=np.int32)

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self._pool.reserve(rows)

    def gather(
        self, rows: Rows, now: NDArray[np.float64]
    ) -> tuple[Rows, Rows, NDArray[np.float64], NDArray[np.float64]]:
        """(owner, follower, weight, recent weight) of all followers of `rows`; `now` for each of the rows.

        Weights are in pairs at distance 1. Recent: the current period of 45 days and what is left of a sliding one
        behind it.
        """
        owner, flat = self._pool.gather(rows)
        periods = now / PERIOD_SECONDS
        period = np.floor(periods)
        fresh = (1.0 - (periods - period))[owner]
        age = period[owner] - self._pool["period"][flat]
        current, previous = self._pool["current"][flat], self._pool["previous"][flat]
        recent = np.where(age <= 0, current + fresh * previous, np.where(age == 1, fresh * current, 0.0))
        return (
            owner,
            self._pool["row"][flat].astype(np.int64),
            self._pool["total"][flat] / PAIR_UNIT,
            recent / PAIR_UNIT,
        )

    def observe(self, rows: list[int], follower: int, weights: list[int], at: float) -> None:
        """One item follows those of `rows`, which are distinct."""
        pool, period = self._pool, period_of(at)
        owners, added = np.array(rows), np.array(weights)
        owner, flat = pool.gather(owners)
        met = pool["row"][flat] == follower
        places, weight = flat[met], added[owner[met]]
        columns = pool.columns
        columns["total"][places] += weight
        ahead = period - columns["period"][places]
        columns["current"][places[ahead == 0]] += weight[ahead == 0]
        columns["previous"][places[ahead == -1]] += weight[ahead == -1]
        later = places[ahead > 0]
        if len(later):
            columns["previous"][later] = np.where(ahead[ahead > 0] == 1, columns["current"][later], 0)
            columns["current"][later] = weight[ahead > 0]
            columns["period"][later] = period
        missing = np.ones(len(owners), np.bool_)
        missing[owner[met]] = False
        new, weight = owners[missing], added[missing]
        if len(new):
            pool.append(new, row=follower, total=weight, period=period, current=weight, previous=0)
            for row in new[pool.length[new] > FOLLOWERS_MOST].tolist():
                self._cut(row)

    def absorb(self, row: int, known: list[tuple[int, Follower]]) -> None:
        """Replace a row's followers by those of its statistics whose items are known: (row, follower)."""
        values = np.array([(other, f.total, f.period, f.current, f.previous) for other, f in known], np.int64).reshape(
            -1, 5
        )
        names = ("row", "total", "period", "current", "previous")
        self._pool.replace(row, **{name: values[:, place] for place, name in enumerate(names)})

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items, as owners and as followers."""
        for row in rows:
            self._pool.length[row] = 0
        gone = np.zeros(len(self._pool.length) + 1, np.bool_)
        gone[rows] = True
        owners = np.flatnonzero(self._pool.length)
        owner, flat = self._pool.gather(owners)
        for row in np.unique(owners[owner[gone[self._pool["row"][flat]]]]).tolist():
            self._keep(row, np.flatnonzero(~gone[self._pool["row"][self._pool.span(row)]]))

    def _cut(self, row: int) -> None:
        span = self._pool.span(row)
        columns = self._pool.columns
        weight = columns["total"][span] + 4 * (columns["current"][span] + columns["previous"][span])
        self._keep(row, np.argsort(-weight, kind="stable")[:FOLLOWERS_KEPT])

    def _keep(self, row: int, places: Rows) -> None:
        span = self._pool.span(row)
        for column in self._pool.columns.values():
            column[span.start : span.start + len(places)] = column[span][places]
        self._pool.length[row] = len(places)
