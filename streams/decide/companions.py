"""What goes with what, following or preceding it: with integer weights, bounded, exact below the bound."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled
from streams.decide.ragged import Ragged, Rows
from streams.decide.statistics import COMPANIONS_KEPT, COMPANIONS_MOST, Companion, period_of

_COLUMNS: Final = ("row", "total", "period", "current", "previous", "either", "together")
Column = NDArray[np.int32]
"""Of the entries of all rows."""


class Pairs(NamedTuple):
    """The entries of all rows, for compiled loops: those of a row lie from its start, as many as its length."""

    start: Rows
    length: Rows
    item: Column
    """The other one."""
    total: Column
    """Σ of the weights of pairs in which the other one follows, …"""
    period: Column
    """… the last period in which it did, …"""
    current: Column
    """… what of it was in that period, …"""
    previous: Column
    """… and in the one before."""
    either: Column
    """Σ of the weights of pairs in either order."""
    together: Column
    """Number of pairs in either order, whatever their distance, whose later event was positive."""


class Companions:
    """For each row its companions: the in-memory side of `ItemStatistics.companions`."""

    def __init__(self) -> None:
        self._pool = Ragged(**dict.fromkeys(_COLUMNS, np.int32))

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self._pool.reserve(rows)

    @property
    def pairs(self) -> Pairs:
        """All entries, until the next change."""
        return Pairs(self._pool.start, self._pool.length, *(self._pool[name] for name in _COLUMNS))

    def precede(self, follower: int, rows: list[int], weights: list[int], *, positive: bool) -> None:
        """The items of `rows`, which are distinct, precede one, in an event of that one."""
        others, added = np.array(rows), np.array(weights)
        new = np.empty(len(rows), np.int64)
        count = _precede(others, added, follower, self.pairs, int(positive), new)
        if count:
            missing = new[:count]
            self._extend(follower, count, row=others[missing], either=added[missing], together=int(positive))

    def follow(self, rows: list[int], follower: int, weights: list[int], at: float, *, positive: bool) -> None:
        """One item follows those of `rows`, which are distinct, in an event of its own."""
        period, new = period_of(at), np.empty(len(rows), np.int64)
        count = _follow(np.array(rows), follower, np.array(weights), self.pairs, period, int(positive), new)
        for one in new[:count].tolist():
            weight = weights[one]
            self._extend(
                rows[one], 1, row=follower, total=weight, period=period, current=weight, either=weight,
                together=int(positive),
            )  # fmt: skip

    def _extend(self, owner: int, count: int, **values: NDArray[Any] | int) -> None:
        self._pool.extend(owner, count, **{name: values.get(name, 0) for name in _COLUMNS})
        if self._pool.length[owner] > COMPANIONS_MOST:
            self._cut(owner)

    def absorb(self, row: int, known: list[tuple[int, Companion]]) -> None:
        """Replace a row's companions by those of its statistics whose items are known: (row, companion)."""
        entries = [(o, f.total, f.period, f.current, f.previous, f.total + f.back, f.together) for o, f in known]
        values = np.array(entries, np.int64).reshape(-1, len(_COLUMNS))
        self._pool.replace(row, **{name: values[:, place] for place, name in enumerate(_COLUMNS)})

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items, as owners and as companions."""
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
        weight = columns["either"][span] + 4 * (columns["current"][span] + columns["previous"][span])
        self._keep(row, np.argsort(-weight, kind="stable")[:COMPANIONS_KEPT])

    def _keep(self, row: int, places: Rows) -> None:
        span = self._pool.span(row)
        for column in self._pool.columns.values():
            column[span.start : span.start + len(places)] = column[span][places]
        self._pool.length[row] = len(places)


@compiled
def _entry(pairs: Pairs, row: int, item: int) -> int:
    """Where a row holds its pair with an item; −1 for nowhere."""
    for entry in range(pairs.start[row], pairs.start[row] + pairs.length[row]):
        if pairs.item[entry] == item:
            return entry
    return -1


@compiled
def _precede(rows: Rows, weights: Rows, follower: int, pairs: Pairs, positive: int, new: Rows) -> int:
    """Counts that `rows` precede one; puts the places of those that have no pair with it yet into `new`: how many."""
    missing = 0
    for one in range(len(rows)):
        entry = _entry(pairs, follower, rows[one])
        if entry < 0:
            new[missing] = one
            missing += 1
        else:
            pairs.either[entry] += weights[one]
            pairs.together[entry] += positive
    return missing


@compiled
def _follow(owners: Rows, follower: int, weights: Rows, pairs: Pairs, now: int, positive: int, new: Rows) -> int:
    """Counts that one follows `owners`; puts the places of those that have no pair with it yet into `new`: how many."""
    missing = 0
    for one in range(len(owners)):
        entry, weight = _entry(pairs, owners[one], follower), weights[one]
        if entry < 0:
            new[missing] = one
            missing += 1
            continue
        pairs.total[entry] += weight
        pairs.either[entry] += weight
        pairs.together[entry] += positive
        ahead = now - pairs.period[entry]
        if ahead == 0:
            pairs.current[entry] += weight
        elif ahead == -1:
            pairs.previous[entry] += weight
        elif ahead > 0:
            pairs.previous[entry] = pairs.current[entry] if ahead == 1 else 0
            pairs.current[entry], pairs.period[entry] = weight, now
    return missing
