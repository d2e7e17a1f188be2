"""The nearest items of an item by text: found when first asked for, kept up as items come."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Rows
from streams.decide.wording import Wording

NEAREST: Final = 32
_AT_ONCE: Final = 64
_PROBES: Final = 32
"""Cells that are looked at for an item's neighbours, …"""
_PROBES_FOR_OWNERS: Final = 12
"""… for the items whose neighbour it may become, …"""
_PROBES_FOR_TEXTS: Final = 64
"""… and for a user's words, which lie farther from the items."""
_SHORTLIST: Final = 256
AXES: Final = 32
LEAST: Final = 50_000
"""Items from which on there are cells: below, a look at all takes no longer."""
_SAMPLE: Final = 32_768
_ROUNDS: Final = 8
_CHUNK: Final = 16_384
_ROOM: Final = 16
_NONE: Final = -1

Matrix = NDArray[np.float32]


class Nearness:
    """For each row the nearest others by dense plus lexical cosine. Items that come enter the lists they belong in.

    A catalogue of less than `LEAST` items is looked at whole; of a larger one what shares a cell or a word.
    How much of the truth that finds: `python -m benchmarks.scale`.
    """

    def __init__(self) -> None:
        self._rows = np.zeros((0, NEAREST), np.int32)
        self._scores = np.zeros((0, NEAREST), np.float32)
        self._weakest = np.zeros(0, np.float32)
        self._known = np.zeros(0, np.bool_)
        self._cells = Cells()

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        more = rows - len(self._known)
        self._rows = np.concatenate([self._rows, np.full((more, NEAREST), -1, np.int32)])
        self._scores = np.concatenate([self._scores, np.zeros((more, NEAREST), np.float32)])
        self._weakest = np.concatenate([self._weakest, np.zeros(more, np.float32)])
        self._known = np.concatenate([self._known, np.zeros(more, np.bool_)])
        self._cells.reserve(rows)

    def forget(self) -> None:
        """Find all anew."""
        self._known[:] = False

    def fit(self, used: Rows, short: Matrix) -> None:
        """All vectors have changed; `used` are the rows that hold items."""
        self._cells.fit(used, short)
        self.forget()

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items."""
        self._cells.clear(np.array(rows))
        self.forget()

    def put(self, rows: Rows, short: Matrix, wording: Wording) -> None:
        """Items came, or changed their text: they enter the lists that are known, and find their own when asked."""
        self._cells.put(np.unique(rows), short)
        self._known[rows] = False
        known = np.flatnonzero(self._known)
        if not len(known):
            return
        for row in rows.tolist():
            owners = known
            if self._cells.active:
                owners, likeness = self._cells.near(short[row], _PROBES_FOR_OWNERS)
                owners = _best(owners[self._known[owners]], likeness[self._known[owners]])
            if not len(owners):
                continue
            near = (short[owners] @ short[row] + wording.between(row, owners)).astype(np.float32)
            enters = near > self._weakest[owners]
            for owner, score in zip(owners[enters].tolist(), near[enters].tolist(), strict=True):
                place = int(self._scores[owner].argmin())
                self._rows[owner, place], self._scores[owner, place] = row, score
                self._weakest[owner] = self._scores[owner].min()

    def of(self, rows: Rows, used: int, short: Matrix, wording: Wording) -> tuple[NDArray[np.int32], Matrix]:
        """(neighbours, scores), both shape [len(rows), NEAREST], in no order; −1 where there are fewer items."""
        missing = np.unique(rows[~self._known[rows]])
        if self._cells.active:
            for row in missing.tolist():
                self._seek(row, short, wording)
        else:
            for start in range(0, len(missing), _AT_ONCE):
                self._find(missing[start : start + _AT_ONCE], used, short, wording)
        return self._rows[rows], self._scores[rows]

    def nearest(self, vector: NDArray[np.float32], used: int, short: Matrix) -> tuple[Rows, NDArray[np.float32]]:
        """(row, cosine) of the rows that are nearest to a short vector, in no order: all of them, or a shortlist."""
        if not self._cells.active:
            return np.arange(used), short[:used] @ vector
        rows = _best(*self._cells.near(vector, _PROBES_FOR_TEXTS))
        return rows, short[rows] @ vector

    def _find(self, rows: Rows, used: int, short: Matrix, wording: Wording) -> None:
        """By a look at all."""
        scores = short[rows] @ short[:used].T
        for place, row in enumerate(rows.tolist()):
            wording.add_cosines(scores[place], *wording.of_row(row))
            scores[place, row] = -np.inf
        count = min(NEAREST, used - 1)
        if count > 0:
            best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
            self._rows[rows[:, None], np.arange(count)] = best
            self._scores[rows[:, None], np.arange(count)] = np.take_along_axis(scores, best, axis=1)
        self._rows[rows, count:] = -1
        self._scores[rows, count:] = -1.0
        self._weakest[rows] = self._scores[rows].min(axis=1)
        self._known[rows] = True

    def _seek(self, row: int, short: Matrix, wording: Wording) -> None:
        """Among the best by vector and the best by words."""
        by_vector = _best(*self._cells.near(short[row], _PROBES))
        rows = np.union1d(by_vector, _best(*wording.cosines(*wording.of_row(row))))
        rows = rows[rows != row]
        scores = (short[rows] @ short[row] + wording.between(row, rows)).astype(np.float32)
        best = np.argsort(-scores)[:NEAREST]
        self._rows[row], self._scores[row] = -1, -1.0
        self._rows[row, : len(best)], self._scores[row, : len(best)] = rows[best], scores[best]
        self._weakest[row], self._known[row] = self._scores[row].min(), True


def _best(rows: Rows, scores: NDArray[np.float32]) -> Rows:
    return rows if len(rows) <= _SHORTLIST else rows[np.argpartition(-scores, _SHORTLIST)[:_SHORTLIST]]


class Cells:
    """An inverted file: rows in about √n cells of a two-level spherical k-means; a search looks at the nearest cells.

    Sivic and Zisserman 2003; Jégou, Douze and Schmid 2011. A cell holds its rows' vectors on the first `AXES` main axes
    side by side, so that looking at it is one pass over memory. None (`active` is False) until there are `LEAST` items.
    """

    def __init__(self) -> None:
        self.active = False
        self._of = np.zeros(0, np.int32)
        self._upper: Matrix = np.zeros((0, AXES), np.float32)
        self._centres: Matrix = np.zeros((0, AXES), np.float32)
        self._rows: list[NDArray[np.int32]] = []
        self._vectors: list[Matrix] = []
        self._count: list[int] = []

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self._of = np.concatenate([self._of, np.full(rows - len(self._of), _NONE, np.int32)])

    def fit(self, used: Rows, short: Matrix) -> None:
        """All vectors have changed; `used` are the rows that hold items."""
        self.active = len(used) >= LEAST
        if not self.active:
            return
        vectors = short[:, :AXES][used]
        sample = vectors[:: max(1, len(used) // _SAMPLE)]
        side = round(len(used) ** 0.25)
        self._upper = _means(sample, side)
        upper = (sample @ self._upper.T).argmax(axis=1)
        self._centres = np.concatenate([_means(sample[upper == one], side) for one in range(side)])
        cells = np.concatenate([
            self._assign(vectors[start : start + _CHUNK]) for start in range(0, len(used), _CHUNK)
        ])  # fmt: skip
        self._of[:] = _NONE
        self._of[used] = cells
        order = np.argsort(cells, kind="stable")
        parts = np.split(order, np.searchsorted(cells[order], np.arange(1, len(self._centres))))
        self._rows = [used[part].astype(np.int32) for part in parts]
        self._vectors = [vectors[part] for part in parts]
        self._count = [len(part) for part in parts]

    def put(self, rows: Rows, short: Matrix) -> None:
        """Rows, each once, got other vectors or came."""
        if not self.active:
            return
        self.clear(rows)
        vectors = short[rows, :AXES]
        for row, cell, vector in zip(rows.tolist(), self._assign(vectors).tolist(), vectors, strict=True):
            count = self._count[cell]
            if count == len(self._rows[cell]):
                room = _ROOM + count // 4
                self._rows[cell] = np.append(self._rows[cell], np.zeros(room, np.int32))
                self._vectors[cell] = np.concatenate([self._vectors[cell], np.zeros((room, AXES), np.float32)])
            self._rows[cell][count], self._vectors[cell][count] = row, vector
            self._count[cell], self._of[row] = count + 1, cell

    def clear(self, rows: Rows) -> None:
        """Forget rows that are given to other items."""
        if not self.active:
            return
        for row in rows[self._of[rows] != _NONE].tolist():
            cell = int(self._of[row])
            held, last = self._rows[cell], self._count[cell] - 1
            place = int(np.flatnonzero(held[: last + 1] == row)[0])
            held[place], self._vectors[cell][place] = held[last], self._vectors[cell][last]
            self._count[cell], self._of[row] = last, _NONE

    def near(self, vector: NDArray[np.float32], probes: int) -> tuple[Rows, NDArray[np.float32]]:
        """(row, likeness on the first axes) of all rows in the `probes` cells that are nearest to a vector."""
        vector = np.ascontiguousarray(vector[:AXES])
        likeness = self._centres @ vector
        probes = min(probes, len(likeness))
        cells = np.argpartition(-likeness, probes - 1)[:probes].tolist()
        rows = np.concatenate([self._rows[cell][: self._count[cell]] for cell in cells])
        return rows.astype(np.int64), np.concatenate(
            [self._vectors[cell][: self._count[cell]] @ vector for cell in cells]
        )

    def _assign(self, vectors: Matrix) -> Rows:
        """The cell of each vector: the nearest below its nearest upper centre."""
        side = len(self._upper)
        upper = (vectors @ self._upper.T).argmax(axis=1)
        cells = np.zeros(len(vectors), np.int64)
        for one in np.unique(upper).tolist():
            mine = np.flatnonzero(upper == one)
            below = self._centres[one * side : (one + 1) * side]
            cells[mine] = one * side + (vectors[mine] @ below.T).argmax(axis=1)
        return cells


def _means(vectors: Matrix, count: int) -> Matrix:
    """Spherical k-means: `count` unit centres (zero where there are too few vectors)."""
    centres = np.zeros((count, vectors.shape[1]), np.float32)
    drawn = np.random.default_rng(7).permutation(len(vectors))[:count]
    centres[: len(drawn)] = vectors[drawn]
    for _ in range(_ROUNDS):
        nearest = (vectors @ centres.T).argmax(axis=1)
        order = np.argsort(nearest, kind="stable")
        if not len(order):
            break
        held, starts = np.unique(nearest[order], return_index=True)
        centres[held] = _unit(np.add.reduceat(vectors[order], starts, axis=0))
    return centres


def _unit(vectors: Matrix) -> Matrix:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)
