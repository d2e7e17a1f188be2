"""When items came, in order: how many came since one did, and which are the newest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Rows

Times = NDArray[np.float64]


class Arrivals:
    """Times of arrival by row (−∞: unknown), and the known ones sorted."""

    def __init__(self) -> None:
        self.at = np.zeros(0)
        self._times = np.zeros(0)
        self._rows = np.zeros(0, np.int64)

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        self.at = np.concatenate([self.at, np.full(max(0, rows - len(self.at)), -np.inf)])

    def put(self, rows: Rows, at: Times) -> None:
        """Set the arrival of rows, each once."""
        changed = at != self.at[rows]
        if not changed.any():
            return
        rows, at = rows[changed], at[changed]
        known = np.isfinite(self.at[rows])
        if known.any():
            self._drop(rows[known])
        self.at[rows] = at
        new = np.isfinite(at)
        order = np.argsort(at[new], kind="stable")
        times, added = at[new][order], rows[new][order]
        if not len(self._times) or (len(times) and times[0] >= self._times[-1]):
            self._times, self._rows = np.append(self._times, times), np.append(self._rows, added)
        else:
            places = np.searchsorted(self._times, times, side="right")
            self._times, self._rows = np.insert(self._times, places, times), np.insert(self._rows, places, added)

    def clear(self, rows: list[int]) -> None:
        """Forget rows that are given to other items."""
        self._drop(np.array(rows))
        self.at[rows] = -np.inf

    def newest(self, now: float, count: int) -> Rows:
        """Rows of the last `count` items that had come by `now`, newest first."""
        end = int(np.searchsorted(self._times, now, side="right"))
        return self._rows[max(0, end - count) : end][::-1]

    def since(self, at: Times, now: Times) -> Times:
        """How many items came after `at` and up to `now`, 0 for an item that came later; shapes broadcast."""
        came = np.searchsorted(self._times, now, side="right") - np.searchsorted(self._times, at, side="right")
        return np.asarray(np.maximum(came, 0), np.float64)

    def _drop(self, rows: Rows) -> None:
        stays = ~np.isin(self._rows, rows)
        self._times, self._rows = self._times[stays], self._rows[stays]
