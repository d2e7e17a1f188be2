"""Moments of items in order (when they came, open or close): how many lie between two times, and which are the newest."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.decide.compiled import compiled, up_to
from streams.decide.ragged import Rows

Times = NDArray[np.float64]

_GONE_MOST: Final = 1024
_LATE_SHARE: Final = 1 / 64
_LATE_LEAST: Final = 1024


class Moments(NamedTuple):
    """Times for compiled loops: of each row, and sorted ones."""

    at: Times
    times: Times
    late: Times
    """More of them."""
    gone: Times
    """Those that count no more."""


class Arrivals:
    """A time by row (−∞: unknown), and the known ones sorted.

    What changes is kept apart until it has grown, so that one item's change doesn't move all others: `late` holds what
    isn't sorted in yet, `gone` the times of what is still there and counts no more.
    """

    def __init__(self) -> None:
        self.at = np.zeros(0)
        self._times, self._rows = np.zeros(0), np.zeros(0, np.int64)
        self._late_times, self._late_rows = np.zeros(0), np.zeros(0, np.int64)
        self._gone = np.zeros(0)
        self._is_late = np.zeros(0, np.bool_)

    @property
    def moments(self) -> Moments:
        """All times, until the next change."""
        return Moments(self.at, self._times, self._late_times, self._gone)

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        more = max(0, rows - len(self.at))
        self.at = np.concatenate([self.at, np.full(more, -np.inf)])
        self._is_late = np.concatenate([self._is_late, np.zeros(more, np.bool_)])

    def put(self, rows: Rows, at: Times) -> None:
        """Set the time of rows, each once."""
        changed = at != self.at[rows]
        if not changed.any():
            return
        rows, at = rows[changed], at[changed]
        self._drop(rows[np.isfinite(self.at[rows])])
        self.at[rows] = at
        new = np.isfinite(at)
        order = np.argsort(at[new], kind="stable")
        times, added = at[new][order], rows[new][order]
        self._late_times, self._late_rows = _merged(self._late_times, self._late_rows, times, added)
        self._is_late[added] = True
        if len(self._late_rows) > max(_LATE_LEAST, _LATE_SHARE * len(self._rows)) or len(self._gone) > _GONE_MOST:
            self._settle()

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items."""
        places = np.array(rows)
        self._drop(places[np.isfinite(self.at[places])])
        self.at[places] = -np.inf
        if len(self._gone) > _GONE_MOST:
            self._settle()

    def newest(self, now: float, count: int) -> Rows:
        """Rows of the last `count` items that had come by `now`, newest first."""
        end = int(np.searchsorted(self._times, now, side="right"))
        part = slice(max(0, end - count - len(self._gone)), end)
        times, rows = self._valid(part)
        late = slice(None, int(np.searchsorted(self._late_times, now, side="right")))
        if late.stop:
            times, rows = _merged(times, rows, self._late_times[late][-count:], self._late_rows[late][-count:])
        return rows[max(0, len(rows) - count) :][::-1]

    def between(self, since: float, until: float) -> Rows:
        """Rows with since < time ≤ until."""
        part = slice(*np.searchsorted(self._times, (since, until), side="right").tolist())
        late = slice(*np.searchsorted(self._late_times, (since, until), side="right").tolist())
        return np.concatenate([self._valid(part)[1], self._late_rows[late]])

    def _valid(self, part: slice) -> tuple[Times, Rows]:
        times, rows = self._times[part], self._rows[part]
        if not len(self._gone):
            return times, rows
        there = (self.at[rows] == times) & ~self._is_late[rows]
        return times[there], rows[there]

    def _drop(self, rows: Rows) -> None:
        if not len(rows):
            return
        late = self._is_late[rows]
        if late.any():
            stays = ~np.isin(self._late_rows, rows[late])
            self._late_times, self._late_rows = self._late_times[stays], self._late_rows[stays]
            self._is_late[rows[late]] = False
        self._gone = np.sort(np.concatenate([self._gone, self.at[rows[~late]]]))

    def _settle(self) -> None:
        times, rows = self._valid(slice(None))
        self._times, self._rows = _merged(times, rows, self._late_times, self._late_rows)
        self._is_late[self._late_rows] = False
        self._late_times, self._late_rows, self._gone = np.zeros(0), np.zeros(0, np.int64), np.zeros(0)


def _merged(times: Times, rows: Rows, added_times: Times, added: Rows) -> tuple[Times, Rows]:
    """Two sorted sequences as one; of equal times those of the second come later."""
    if not len(added):
        return times, rows
    if not len(times) or added_times[0] >= times[-1]:
        return np.concatenate([times, added_times]), np.concatenate([rows, added])
    places = np.searchsorted(times, added_times, side="right")
    return np.insert(times, places, added_times), np.insert(rows, places, added)


@compiled
def came_by(moments: Moments, at: float) -> int:
    """How many came by `at`."""
    return up_to(moments.times, at) + up_to(moments.late, at) - up_to(moments.gone, at)
