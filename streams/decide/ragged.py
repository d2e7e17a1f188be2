"""Rows of unequal length in flat arrays: neighbours, terms and facets of items, without an object for each entry; and back,
the rows by term.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Rows = NDArray[np.int64]
"""Positions of items in the table."""
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST_POOL: Final = 1024
_TAIL_SHARE: Final = 0.01
_TAIL_LEAST: Final = 4096
_SINGLY: Final = 4096
"""Entries that are taken out one by one; more of them by one look at all."""
_HOLE: Final = -1
_NOTHING: Final = (np.zeros(0, np.int64), np.zeros(0, np.int64))


class Posted(NamedTuple):
    """Rows by term, for compiled loops: those of a term from its end to the next one's, and some that came late."""

    ends: Rows
    rows: NDArray[np.int32]
    """−1: none."""
    late_rows: Rows
    late_terms: Rows


class Ragged:
    """Named columns of entries, owned by rows. A row that outgrows its room moves to the end with twice as much."""

    def __init__(self, **columns: DTypeLike) -> None:
        self.columns: dict[str, NDArray[Any]] = {name: np.zeros(_LEAST_POOL, kind) for name, kind in columns.items()}
        self.length = np.zeros(0, np.int64)
        self.start = np.zeros(0, np.int64)
        """Where each row's entries begin in the flat columns."""
        self._room = np.zeros(0, np.int64)
        self._used = 0

    def reserve(self, rows: int) -> None:
        """Make rows 0 … rows − 1 exist."""
        missing = rows - len(self.length)
        if missing > 0:
            for name in ("length", "start", "_room"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(missing, np.int64)]))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The flat column of a name, to be indexed by what `gather` and `span` return."""
        return self.columns[name]

    def span(self, row: int) -> slice:
        """Where a row's entries lie."""
        start = int(self.start[row])
        return slice(start, start + int(self.length[row]))

    def gather(self, rows: Rows) -> tuple[Rows, Rows]:
        """(owner, flat) of all entries of these rows: `owner` indexes `rows`, `flat` the columns; shape [entries]."""
        lengths = self.length[rows]
        total = int(lengths.sum())
        owner = np.repeat(np.arange(len(rows)), lengths)
        before = np.cumsum(lengths) - lengths
        return owner, np.arange(total) + np.repeat(self.start[rows] - before, lengths)

    def replace(self, row: int, /, **values: NDArray[Any]) -> None:
        """Give a row these entries instead of those it has."""
        count = len(next(iter(values.values())))
        self.length[row] = 0
        self._make_room(row, count)
        self.length[row] = count
        span = self.span(row)
        for name, entries in values.items():
            self.columns[name][span] = entries

    def extend(self, row: int, count: int, /, **values: NDArray[Any] | int) -> None:
        """Add `count` entries to one row."""
        self._make_room(row, int(self.length[row]) + count)
        end = int(self.start[row] + self.length[row])
        for name, entries in values.items():
            self.columns[name][end : end + count] = entries
        self.length[row] += count

    def _make_room(self, row: int, count: int) -> None:
        if count <= self._room[row]:
            return
        room = max(4, count if self.length[row] == 0 else 2 * count)
        if self._used + room > self._size():
            self._compact(room)
        old, start = self.span(row), self._used
        for column in self.columns.values():
            column[start : start + old.stop - old.start] = column[old]
        self.start[row] = start
        self._room[row] = room
        self._used += room

    def _size(self) -> int:
        return len(next(iter(self.columns.values())))

    def _compact(self, room: int) -> None:
        """Close the gaps; keep half as much again free."""
        rows = np.flatnonzero(self._room)
        _, flat = self.gather(rows)
        lengths = self.length[rows]
        rooms = np.maximum(4, lengths + lengths // 4)
        starts = np.cumsum(rooms) - rooms
        total = int(rooms.sum())
        target = np.arange(len(flat)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        size = max(_LEAST_POOL, total + total // 2 + room)
        for name, column in self.columns.items():
            packed = np.zeros(size, column.dtype)
            packed[target] = column[flat]
            self.columns[name] = packed
        self.start[rows] = starts
        self._room[rows] = rooms
        self._used = total


class Postings:
    """The rows that have a term: sorted by term, and a short unsorted tail that is merged in when it has grown.

    What is taken out leaves a hole until then, so that a single change never moves all entries.
    """

    def __init__(self, space: int) -> None:
        """`space`: terms are 0 … space − 1."""
        self.having = np.zeros(space, np.int64)
        """Rows by term."""
        self._rows = np.zeros(0, np.int32)
        self._ends = np.zeros(space + 1, np.int64)
        self._tail: list[tuple[Rows, Rows]] = []
        self._tail_entries = 0
        self._holes = 0

    def add(self, row: int, terms: Rows) -> None:
        """A row that isn't in yet has these distinct terms."""
        self.having[terms] += 1
        self._append(np.full(len(terms), row), terms)

    def extend(self, rows: Rows, terms: Rows) -> None:
        """Each of these rows, which aren't in yet, has the one term at its place."""
        self.having += np.bincount(terms, minlength=len(self.having))
        self._append(rows.copy(), terms)

    def remove(self, rows: Rows, terms: Rows) -> None:
        """Take rows out wholly: their entries are (row, term), one by one, all of them."""
        if not len(rows):
            return
        np.subtract.at(self.having, terms, 1)
        if len(rows) > _SINGLY:
            gone = np.unique(rows)
            self._rows[np.isin(self._rows, gone)] = _HOLE
            for tail_rows, _ in self._tail:
                tail_rows[np.isin(tail_rows, gone)] = _HOLE
        else:
            if self._tail:
                tail_rows, _ = self._tail_arrays()
                tail_rows[np.isin(tail_rows, rows)] = _HOLE
            for row, term in zip(rows.tolist(), terms.tolist(), strict=True):
                held = self._rows[self._ends[term] : self._ends[term + 1]]
                held[held == row] = _HOLE
        self._holes += len(rows)

    def posted(self) -> Posted:
        """All rows by term, until the next change."""
        self._tidy()
        return Posted(self._ends, self._rows, *(self._tail_arrays() if self._tail else _NOTHING))

    def _append(self, rows: Rows, terms: Rows) -> None:
        self._tail.append((rows, terms))
        self._tail_entries += len(terms)

    def _tail_arrays(self) -> tuple[Rows, Rows]:
        if len(self._tail) > 1:
            self._tail = [
                (np.concatenate([rows for rows, _ in self._tail]), np.concatenate([terms for _, terms in self._tail]))
            ]
        return self._tail[0]

    def _tidy(self) -> None:
        if self._tail_entries + self._holes > max(_TAIL_LEAST, int(_TAIL_SHARE * len(self._rows))):
            self._merge()

    def _merge(self) -> None:
        """Fill the holes and sort the tail in: what is sorted stays in its order, so that one pass does."""
        rows, ends = self._rows, self._ends
        if self._holes:
            there = rows != _HOLE
            ends = np.concatenate([[0], np.cumsum(there)])[ends]
            rows = rows[there]
        if self._tail:
            tail_rows, tail_terms = self._tail_arrays()
            there = tail_rows != _HOLE
            tail_rows, tail_terms = tail_rows[there], tail_terms[there]
            order = np.argsort(tail_terms, kind="stable")
            rows = _inserted(rows, ends[tail_terms[order] + 1], tail_rows[order])
        self._rows = rows
        self._ends = np.concatenate([[0], np.cumsum(self.having)])
        self._tail, self._tail_entries, self._holes = [], 0, 0


def _inserted(rows: NDArray[np.int32], before: Rows, added: Rows) -> NDArray[np.int32]:
    """`added[i]` put in before what stood at the sorted places `before[i]`."""
    places = before + np.arange(len(before))
    found = np.empty(len(rows) + len(added), np.int32)
    old = np.ones(len(found), np.bool_)
    old[places] = False
    found[places], found[old] = added, rows
    return found
