"""How often items are met, by horizon: exponentially forgetting counts that need no work while nothing happens.

A count of half-life d is kept as Σ 2^((t − t₀)/d) over its events; at `now` it is that times 2^(−(now − t₀)/d).
When the powers grow large, t₀ moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.decide.ragged import Rows
from streams.decide.statistics import ItemStatistics, Signal, log_gap

DAY_SECONDS: Final = 86_400.0
HORIZONS: Final = np.array([0.25, 1.0, 4.0, 14.0, 60.0]) * DAY_SECONDS
SIXTY_DAYS: Final = 4
"""Index of the longest horizon."""
_MOST_DOUBLINGS: Final = 200.0

Floats = NDArray[np.float64]


class Met(NamedTuple):
    """Counts by row, for compiled loops; what each is: `Counts`."""

    events: Floats
    positives: Floats
    repeats: Floats
    gap_log_sum: Floats
    last_at: Floats
    scaled: Floats


class Counts:
    """Counts of every item, by row."""

    def __init__(self) -> None:
        self.events = np.zeros(0)
        self.positives = np.zeros(0)
        self.ratings = np.zeros(0)
        self.rating_sum = np.zeros(0)
        self.repeats = np.zeros(0)
        self.gap_log_sum = np.zeros(0)
        self.first_at = np.zeros(0)
        self.last_at = np.zeros(0)
        self.newest_at = -math.inf
        """Time of the newest event of any item."""
        self.total = 0.0
        """Events of all items."""
        self.scaled = np.zeros((0, len(HORIZONS)))
        """Positive events by row and horizon, in the units that `decay` gives the worth of."""
        self._totals = np.zeros(len(HORIZONS))
        self._zero = np.zeros(len(HORIZONS))

    @property
    def met(self) -> Met:
        """The arrays, until more rows are reserved."""
        return Met(self.events, self.positives, self.repeats, self.gap_log_sum, self.last_at, self.scaled)

    def reserve(self, rows: int) -> None:
        """Make rows exist."""
        missing = rows - len(self.events)
        if missing <= 0:
            return
        for name in ("events", "positives", "ratings", "rating_sum", "repeats", "gap_log_sum"):
            setattr(self, name, np.concatenate([getattr(self, name), np.zeros(missing)]))
        self.first_at = np.concatenate([self.first_at, np.full(missing, np.inf)])
        self.last_at = np.concatenate([self.last_at, np.full(missing, -np.inf)])
        self.scaled = np.concatenate([self.scaled, np.zeros((missing, len(HORIZONS)))])

    def recent(self, rows: Rows, now: float | Floats) -> Floats:
        """Positive events of rows by horizon at `now` (one time, or one for each of the rows' first axis).

        Shape [*rows.shape, horizons].
        """
        return self.scaled[rows] * self.decay(now, rows.ndim)

    def column(self, horizon: int, now: float) -> Floats:
        """One horizon of all items at `now`. Shape [rows]."""
        return np.asarray(self.scaled[:, horizon] * self.decay(now, 0)[horizon])

    @property
    def sixty_total(self) -> float:
        """Positive events of all items of the longest horizon, in scaled units."""
        return float(self._totals[SIXTY_DAYS])

    def totals(self, now: float | Floats) -> Floats:
        """Sum over all items, by horizon."""
        return self._totals * self.decay(now, 0 if np.ndim(now) == 0 else 1)

    def observe(self, row: int, signal: Signal) -> float:
        """Count a signal of an item's own event; returns what its 60-day count grew by, in scaled units."""
        self.events[row] += 1
        self.total += 1
        if signal.rating is not None:
            self.ratings[row] += 1
            self.rating_sum[row] += signal.rating
        if signal.gap_seconds is not None:
            self.repeats[row] += 1
            self.gap_log_sum[row] += log_gap(signal.gap_seconds)
        self.first_at[row] = min(self.first_at[row], signal.at)
        self.last_at[row] = max(self.last_at[row], signal.at)
        self.newest_at = max(self.newest_at, signal.at)
        if not signal.positive:
            return 0.0
        self.positives[row] += 1
        self._move_zero(signal.at)
        grown = np.exp2((signal.at - self._zero) / HORIZONS)
        self.scaled[row] += grown
        self._totals += grown
        return float(grown[SIXTY_DAYS])

    def absorb(self, row: int, statistics: ItemStatistics) -> float:
        """Replace a row's counts by its statistics; returns what its 60-day count changed by, in scaled units."""
        self.total += statistics.events - self.events[row]
        self.events[row] = statistics.events
        self.positives[row] = statistics.positives
        self.ratings[row] = statistics.ratings
        self.rating_sum[row] = statistics.rating_hundredths / 100
        self.repeats[row] = statistics.repeats
        self.gap_log_sum[row] = statistics.gap_log_hundredths / 100
        self.first_at[row] = statistics.first_at
        self.last_at[row] = statistics.last_at
        self.newest_at = max(self.newest_at, statistics.last_at)
        times, counts = _moments(statistics)
        if len(times):
            self._move_zero(float(times.max()))
        scaled = (counts[:, None] * np.exp2((times[:, None] - self._zero) / HORIZONS)).sum(axis=0)
        change = scaled - self.scaled[row]
        self.scaled[row] = scaled
        self._totals = np.maximum(self._totals + change, 0.0)
        return float(change[SIXTY_DAYS])

    def clear(self, rows: Sequence[int]) -> None:
        """Forget rows that are given to other items."""
        self.total -= float(self.events[rows].sum())
        self._totals = np.maximum(self._totals - self.scaled[rows].sum(axis=0), 0.0)
        self.scaled[rows] = 0.0
        for name in ("events", "positives", "ratings", "rating_sum", "repeats", "gap_log_sum"):
            getattr(self, name)[rows] = 0.0
        self.first_at[rows] = np.inf
        self.last_at[rows] = -np.inf

    def sixty_day_decay(self, now: float | Floats) -> Floats:
        """What scaled units of the 60-day count are worth at `now`."""
        return np.asarray(np.exp2((self._zero[SIXTY_DAYS] - np.asarray(now)) / HORIZONS[SIXTY_DAYS]))

    def decay(self, now: float | Floats, axes: int = 1) -> Floats:
        """What scaled units are worth at `now` by horizon; shape [*now.shape, 1 …, horizons] of `axes` + 1 axes."""
        moments = np.asarray(now, np.float64)
        decay = np.exp2(np.minimum((self._zero - moments[..., None]) / HORIZONS, _MOST_DOUBLINGS))
        return decay.reshape(moments.shape + (1,) * (axes - moments.ndim) + (len(HORIZONS),))

    def _move_zero(self, at: float) -> None:
        """Keep the powers small. The 60-day zero is set once, so that facet counts in its units stay right."""
        far = (at - self._zero) / HORIZONS > _MOST_DOUBLINGS
        far[SIXTY_DAYS] = False  # its powers stay finite for 160 years
        if self._zero[SIXTY_DAYS] == 0.0:
            self._zero[:] = at
        elif far.any():
            shift = np.exp2((self._zero[far] - at) / HORIZONS[far])
            self.scaled[:, far] *= shift
            self._totals[far] *= shift
            self._zero[far] = at


def _moments(statistics: ItemStatistics) -> tuple[Floats, Floats]:
    """(time, positive events) of the buckets: hours as far as they go, before them days. At a bucket's middle."""
    hours = {(hour + 0.5) * 3600.0: counts[1] for hour, counts in statistics.hours.items()}
    days: dict[int, int] = {day: counts[1] for day, counts in statistics.days.items()}
    for hour, counts in statistics.hours.items():
        days[hour // 24] = days.get(hour // 24, 0) - counts[1]
    moments = hours | {(day + 0.5) * DAY_SECONDS: count for day, count in days.items() if count > 0}
    return np.array(list(moments), np.float64), np.array(list(moments.values()), np.float64)
