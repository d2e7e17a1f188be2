"""The nearest items of an item by text: found when first asked for, kept up as items come."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Rows
from streams.decide.wording import Wording

NEAREST: Final = 32
_AT_ONCE: Final = 64

Matrix = NDArray[np.float32]


class Nearness:
    """For each row the nearest others by dense plus lexical cosine. Items that come enter the lists they belong in."""

    def __init__(self) -> None:
        self._rows = np.zeros((0, NEAREST), np.int32)
        self._scores = np.zeros((0, NEAREST), np.float32)
        self._known = np.zeros(0, np.bool_)

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        more = rows - len(self._known)
        self._rows = np.concatenate([self._rows, np.full((more, NEAREST), -1, np.int32)])
        self._scores = np.concatenate([self._scores, np.zeros((more, NEAREST), np.float32)])
        self._known = np.concatenate([self._known, np.zeros(more, np.bool_)])

    def forget(self) -> None:
        """Find all anew: vectors or rows have changed."""
        self._known[:] = False

    def put(self, rows: Rows, short: Matrix, wording: Wording) -> None:
        """Items came, or changed their text: they enter the lists that are known, and find their own when asked."""
        self._known[rows] = False
        known = np.flatnonzero(self._known)
        if not len(known):
            return
        for row in rows.tolist():
            scores = np.zeros(len(self._known), np.float32)
            wording.add_cosines(scores, *wording.of_row(row))
            near = scores[known] + short[known] @ short[row]
            weakest = self._scores[known].min(axis=1)
            for owner, score in zip(known[near > weakest].tolist(), near[near > weakest].tolist(), strict=True):
                place = int(self._scores[owner].argmin())
                self._rows[owner, place], self._scores[owner, place] = row, score

    def of(self, rows: Rows, used: int, short: Matrix, wording: Wording) -> tuple[NDArray[np.int32], Matrix]:
        """(neighbours, scores), both shape [len(rows), NEAREST], in no order; −1 where there are fewer items."""
        missing = np.unique(rows[~self._known[rows]])
        for start in range(0, len(missing), _AT_ONCE):
            self._find(missing[start : start + _AT_ONCE], used, short, wording)
        return self._rows[rows], self._scores[rows]

    def _find(self, rows: Rows, used: int, short: Matrix, wording: Wording) -> None:
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
        self._known[rows] = True
