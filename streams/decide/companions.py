"""What goes with what, following or preceding it: with integer weights, bounded, exact below the bound."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Ragged, Rows
from streams.decide.statistics import COMPANIONS_KEPT, COMPANIONS_MOST, Companion, period_of

_COLUMNS: Final = ("row", "total", "period", "current", "previous", "either", "together")


class Companions:
    """For each row its companions: the in-memory side of `ItemStatistics.companions`."""

    def __init__(self) -> None:
        self._pool = Ragged(**dict.fromkeys(_COLUMNS, np.int32))

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self._pool.reserve(rows)

    @property
    def arrays(self) -> tuple[Rows, Rows, dict[str, NDArray[np.int32]]]:
        """(start, length, columns) of the entries of all rows, until the next change."""
        return self._pool.start, self._pool.length, self._pool.columns

    def precede(self, follower: int, rows: list[int], weights: list[int], *, positive: bool) -> None:
        """The items of `rows`, which are distinct, precede one, in an event of that one."""
        pool, others, added = self._pool, np.array(rows), np.array(weights)
        order = np.argsort(others)
        span = pool.span(follower)
        held = pool["row"][span]
        places = order[np.minimum(np.searchsorted(others, held, sorter=order), len(others) - 1)]
        met = np.flatnonzero(others[places] == held)
        pool["either"][span.start + met] += added[places[met]]
        pool["together"][span.start + met] += positive
        missing = np.ones(len(others), np.bool_)
        missing[places[met]] = False
        new = others[missing]
        if len(new):
            values: dict[str, NDArray[Any] | int] = {"row": new, "either": added[missing], "together": int(positive)}
            pool.extend(follower, len(new), **{name: values.get(name, 0) for name in _COLUMNS})
            if pool.length[follower] > COMPANIONS_MOST:
                self._cut(follower)

    def follow(self, rows: list[int], follower: int, weights: list[int], at: float, *, positive: bool) -> None:
        """One item follows those of `rows`, which are distinct, in an event of its own."""
        pool, period = self._pool, period_of(at)
        owners, added = np.array(rows), np.array(weights)
        owner, flat = pool.gather(owners)
        met = pool["row"][flat] == follower
        places, weight = flat[met], added[owner[met]]
        columns = pool.columns
        columns["total"][places] += weight
        columns["either"][places] += weight
        columns["together"][places] += positive
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
            values: dict[str, NDArray[Any] | int] = {
                "row": follower,
                "total": weight,
                "period": period,
                "current": weight,
                "either": weight,
                "together": int(positive),
            }
            pool.append(new, **{name: values.get(name, 0) for name in _COLUMNS})
            for row in new[pool.length[new] > COMPANIONS_MOST].tolist():
                self._cut(row)

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
