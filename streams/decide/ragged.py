"""Rows of unequal length in flat arrays: neighbours, terms and facets of items, without an object for each entry."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

Rows = NDArray[np.int64]
"""Positions of items in the table."""

_LEAST_POOL: Final = 1024


class Ragged:
    """Named columns of entries, owned by rows. A row that outgrows its room moves to the end with twice as much."""

    def __init__(self, **columns: DTypeLike) -> None:
        self.columns: dict[str, NDArray[Any]] = {name: np.zeros(_LEAST_POOL, kind) for name, kind in columns.items()}
        self.length = np.zeros(0, np.int64)
        self._start = np.zeros(0, np.int64)
        self._room = np.zeros(0, np.int64)
        self._used = 0

    def reserve(self, rows: int) -> None:
        """Make rows 0 … rows − 1 exist."""
        missing = rows - len(self.length)
        if missing > 0:
            for name in ("length", "_start", "_room"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(missing, np.int64)]))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The flat column of a name, to be indexed by what `gather` and `span` return."""
        return self.columns[name]

    def span(self, row: int) -> slice:
        """Where a row's entries lie."""
        start = int(self._start[row])
        return slice(start, start + int(self.length[row]))

    def gather(self, rows: Rows) -> tuple[Rows, Rows]:
        """(owner, flat) of all entries of these rows: `owner` indexes `rows`, `flat` the columns; shape [entries]."""
        lengths = self.length[rows]
        total = int(lengths.sum())
        owner = np.repeat(np.arange(len(rows)), lengths)
        before = np.cumsum(lengths) - lengths
        return owner, np.arange(total) + np.repeat(self._start[rows] - before, lengths)

    def replace(self, row: int, /, **values: NDArray[Any]) -> None:
        """Give a row these entries instead of those it has."""
        count = len(next(iter(values.values())))
        self.length[row] = 0
        self._make_room(row, count)
        self.length[row] = count
        span = self.span(row)
        for name, entries in values.items():
            self.columns[name][span] = entries

    def append(self, rows: Rows, /, **values: NDArray[Any] | int) -> None:
        """Add one entry to each of these distinct rows."""
        for row in rows[self.length[rows] == self._room[rows]].tolist():
            self._make_room(row, int(self.length[row]) + 1)
        at = self._start[rows] + self.length[rows]
        for name, entries in values.items():
            self.columns[name][at] = entries
        self.length[rows] += 1

    def _make_room(self, row: int, count: int) -> None:
        if count <= self._room[row]:
            return
        room = max(4, count if self.length[row] == 0 else 2 * count)
        if self._used + room > self._size():
            self._compact(room)
        old, start = self.span(row), self._used
        for column in self.columns.values():
            column[start : start + old.stop - old.start] = column[old]
        self._start[row] = start
        self._room[row] = room
        self._used += room

    def _size(self) -> int:
        return len(next(iter(self.columns.values())))

    def _compact(self, room: int) -> None:
        """Close the gaps; keep half as much again free."""
        rows = np.flatnonzero(self._room)
        _, flat = self.gather(rows)
        lengths = self.length[rows]
        rooms = np.maximum(4, lengths + lengths // 4)  # more than it has: `append` may be amid giving rows their room
        starts = np.cumsum(rooms) - rooms
        total = int(rooms.sum())
        target = np.arange(len(flat)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        size = max(_LEAST_POOL, total + total // 2 + room)
        for name, column in self.columns.items():
            packed = np.zeros(size, column.dtype)
            packed[target] = column[flat]
            self.columns[name] = packed
        self._start[rows] = starts
        self._room[rows] = rooms
        self._used = total
