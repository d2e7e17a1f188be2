"""What goes with what, following or preceding it: with integer weights, bounded, exact below the bound."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled
from streams.decide.ragged import Ragged, Rows
from streams.decide.statistics import COMPANIONS_KEPT, COMPANIONS_MOST, Companion, period_of

_COLUMNS: Final = ("row", "total", "period", "current", "previous", "either", "together")
Column = NDArray[np.int32]
"""Of the entries of all rows."""


class Companions:
    """For each row its companions: the in-memory side of `ItemStatistics.companions`."""

    def __init__(self) -> None:
        self._pool = Ragged(**dict.fromkeys(_COLUMNS, np.int32))

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self._pool.reserve(rows)

    @property
    def arrays(self) -> tuple[Rows, Rows, dict[str, Column]]:
        """(start, length, columns) of the entries of all rows, until the next change."""
        return self._pool.start, self._pool.length, self._pool.columns

    def precede(self, follower: int, rows: list[int], weights: list[int], *, positive: bool) -> None:
        """The items of `rows`, which are distinct, precede one, in an event of that one."""
        pool, others, added = self._pool, np.array(rows), np.array(weights)
        new, span = np.empty(len(rows), np.int64), pool.span(follower)
        count = _precede(
            others, added, span.start, span.stop, pool["row"], pool["either"], pool["together"], int(positive), new
        )
        if count:
            missing = new[:count]
            self._extend(follower, count, row=others[missing], either=added[missing], together=int(positive))

    def follow(self, rows: list[int], follower: int, weights: list[int], at: float, *, positive: bool) -> None:
        """One item follows those of `rows`, which are distinct, in an event of its own."""
        pool, period, owners, added = self._pool, period_of(at), np.array(rows), np.array(weights)
        new, columns = np.empty(len(rows), np.int64), pool.columns
        count = _follow(
            owners, follower, added, pool.start, pool.length, *(columns[name] for name in _COLUMNS), period,
            int(positive), new,
        )  # fmt: skip
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
def _precede(
    rows: Rows, weights: Rows, start: int, stop: int, held: Column, either: Column, together: Column, positive: int,
    new: Rows,
) -> int:  # fmt: skip
    """Counts pairs with `rows` that lie between start and stop; puts the places of others into `new`: how many."""
    missing = 0
    for one in range(len(rows)):
        at = start
        while at < stop and held[at] != rows[one]:
            at += 1
        if at < stop:
            either[at] += weights[one]
            together[at] += positive
        else:
            new[missing] = one
            missing += 1
    return missing


@compiled
def _follow(
    owners: Rows, follower: int, weights: Rows, start: Rows, length: Rows, held: Column, total: Column, period: Column,
    current: Column, previous: Column, either: Column, together: Column, now: int, positive: int, new: Rows,
) -> int:  # fmt: skip
    """Counts that one item follows `owners`; puts the places of those that have no such pair into `new`: how many."""
    missing = 0
    for one in range(len(owners)):
        at, stop, weight = start[owners[one]], start[owners[one]] + length[owners[one]], weights[one]
        while at < stop and held[at] != follower:
            at += 1
        if at == stop:
            new[missing] = one
            missing += 1
            continue
        total[at] += weight
        either[at] += weight
        together[at] += positive
        ahead = now - period[at]
        if ahead == 0:
            current[at] += weight
        elif ahead == -1:
            previous[at] += weight
        elif ahead > 0:
            previous[at] = current[at] if ahead == 1 else 0
            current[at], period[at] = weight, now
    return missing
