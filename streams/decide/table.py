"""The catalogue as arrays by integer position: all that ranking sees of items. Bounded memory, incremental.

Two ways lead to the same counts (a test compares them): `observe` takes signals as they come, `absorb` replaces an
item's counts by the statistics that were stored. Vectors are kept twice: as they are (half precision), and short, which
is centred by the catalogue's mean, turned onto its main axes and renormalised; ranking reads only the short ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.arrivals import Arrivals
from streams.decide.companions import Companions
from streams.decide.counts import Counts
from streams.decide.items import TEXT
from streams.decide.nearness import Nearness
from streams.decide.ragged import Rows
from streams.decide.statistics import ItemStatistics, Signal
from streams.decide.vectors import Vectors
from streams.decide.wording import Wording
from streams.values import ItemRecord, Vector

Matrix = NDArray[np.float32]

SHORT: Final = 128
"""Dimensions of the short vectors."""
_FIRST_FIT: Final = 64
_GROWTH: Final = 1.1
_LARGE: Final = 100_000
_LARGE_GROWTH: Final = 1.5
"""Of a large catalogue mean and axes are those of a sample: they hardly change, and to turn all vectors takes seconds."""
_SAMPLE: Final = 10_000
_LATEST: Final = 128
_FREED: Final = 0.05
POPULAR: Final = 60
POPULAR_HORIZONS: Final = (1, 3, 4)
"""Indices of the horizons by which popular items are found: 1, 14 and 60 days."""
_FRESH_EVENTS: Final = 64
_FRESH_SECONDS: Final = 3600.0


class Table:
    """Items by row. Rows of evicted items are given to new ones; nothing outside may keep a row across `put`."""

    def __init__(self, dimension: int, capacity: int = 200_000) -> None:
        self.dimension = dimension
        self.capacity = capacity
        self.ids: list[str] = []
        self.records: list[ItemRecord | None] = []
        self.rows: dict[str, int] = {}
        self.counts = Counts()
        self.companions = Companions()
        self.wording = Wording()
        self.nearness = Nearness()
        self.learned = Vectors(min(SHORT, dimension))
        self.arrivals = Arrivals()
        self.opening = Arrivals()
        """When items open that have a date of publication."""
        self.closing = Arrivals()
        """When items close that expire."""
        self.latest: list[int] = []
        """Rows of the last events, newest last."""
        self.vectors = np.zeros((0, dimension), np.float16)
        self.short = np.zeros((0, min(SHORT, dimension)), np.float32)
        self.log_price = np.zeros(0, np.float32)
        self.live = np.zeros(0, np.bool_)
        self.opens = np.zeros(0)
        self.closes = np.zeros(0)
        self.touched = np.zeros(0)
        self.local = np.zeros(0, np.int32)
        """For whoever numbers rows; −1 between two calls."""
        self.sums = np.zeros(0)
        """For whoever sums by row; zero between two calls."""
        self.category = np.zeros(0, np.int64)
        self._free: list[int] = []
        self._popular: Rows = np.zeros(0, np.int64)
        self._popular_at = (-math.inf, -math.inf, 0)
        self._met: set[int] | None = None
        """Rows that were met since the popular were found; None where all are to be looked at."""
        self._fitted = 0
        self._given_mean: Vector | None = None
        self.mean: Vector = np.zeros(dimension, np.float32)
        """The catalogue's mean vector μ."""
        self._axes: Matrix = np.eye(dimension, min(SHORT, dimension), dtype=np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.rows

    def item(self, item_id: str) -> ItemRecord | None:
        """The record of an item; None where it isn't held."""
        row = self.rows.get(item_id)
        return None if row is None else self.records[row]

    def vector(self, item_id: str) -> Vector | None:
        """The vector of an item as the encoder made it (half precision)."""
        row = self.rows.get(item_id)
        return None if row is None else self.vectors[row].astype(np.float32)

    def put(self, items: Sequence[tuple[ItemRecord, Vector]]) -> None:
        """Upsert items, those that may not be recommended included, so that they leave lists at once."""
        if not items:
            return
        new = [self._row_of(record) for record, _ in items]
        rows = np.array([row for row, _ in new])
        for (record, vector), (row, is_new) in zip(items, new, strict=True):
            old, self.records[row] = None if is_new else self.records[row], record
            self.vectors[row] = vector
            self.log_price[row] = math.log(record.price + 0.01) if record.price is not None else math.nan
            self.live[row] = record.available and not record.deleted
            self.opens[row] = -math.inf if record.published_at is None else record.published_at
            self.closes[row] = math.inf if record.expires_at is None else record.expires_at
            met = -math.inf if is_new else self.touched[row]
            self.touched[row] = max(met, record.first_seen, self.opens[row])
            if old is None or any(getattr(old, name) != getattr(record, name) for name in TEXT):
                self.category[row] = self.wording.put(row, record)
        self.short[rows] = self.project(self.vectors[rows].astype(np.float32))
        self.arrivals.put(rows, np.array([self._arrival(row) for row in rows.tolist()]))
        distinct = np.unique(rows)
        self.opening.put(distinct, _finite(self.opens[distinct]))
        self.closing.put(distinct, _finite(self.closes[distinct]))
        if len(self) >= max(_FIRST_FIT, self._fitted * (_GROWTH if self._fitted < _LARGE else _LARGE_GROWTH)):
            self._fit()
        else:
            self.nearness.put(rows, self.short, self.wording)

    def observe(self, signals: Iterable[Signal]) -> None:
        """Count the signals of one event; those of items that aren't held are left out."""
        followed: dict[str, tuple[list[int], list[int], Signal]] = {}
        for signal in signals:
            row = self.rows.get(signal.item_id)
            if row is None:
                continue
            if signal.follower is None:
                first = not math.isfinite(self.counts.first_at[row])
                grown = self.counts.observe(row, signal)
                self.wording.count(row, grown)
                self._touch(row, signal.at, arrives=first)
                before = [(self.rows[other], weight) for other, weight in signal.before if other in self.rows]
                if before:
                    self.companions.precede(row, *map(list, zip(*before, strict=True)), positive=signal.positive)
            elif signal.follower in self.rows:
                rows, weights, _ = followed.setdefault(signal.follower, ([], [], signal))
                rows.append(row)
                weights.append(signal.weight)
        for follower, (rows, weights, signal) in followed.items():
            self.companions.follow(rows, self.rows[follower], weights, signal.at, positive=signal.positive)

    def absorb(self, statistics: Iterable[ItemStatistics]) -> None:
        """Replace the counts of items by what is stored; items that aren't held are left out."""
        for one in statistics:
            row = self.rows.get(one.item_id)
            if row is None:
                continue
            self.wording.count(row, self.counts.absorb(row, one))
            if self._met is not None and row in self._popular:  # it may have fallen behind one that isn't looked at
                self._met = None
            known = ((self.rows.get(other), companion) for other, companion in one.companions.items())
            self.companions.absorb(row, [(other, companion) for other, companion in known if other is not None])
            if one.events:
                self._touch(row, one.last_at, arrives=True)

    def set_mean(self, mean: Vector) -> None:
        """Use this mean (published for all workers) instead of one's own."""
        self._given_mean = mean.astype(np.float32)
        self._fit()

    def project(self, vectors: Matrix) -> Matrix:
        """Short vectors of full ones: centred, turned, unit norm (zero where nothing is left). Shape [n, SHORT]."""
        short = (vectors - self.mean) @ self._axes
        norms = np.linalg.norm(short, axis=-1, keepdims=True)
        return np.asarray(short / np.maximum(norms, 1e-6), np.float32)

    def full(self, short: Matrix) -> Matrix:
        """Differences of short vectors in the encoder's space. Shape [n, dimension]."""
        return np.asarray(short @ self._axes.T)

    def to_short(self, full: Vector) -> Vector:
        """A difference of vectors of the encoder's space on the main axes; `full` undone."""
        return np.asarray(full @ self._axes)

    def nearest(self, short: NDArray[np.float32]) -> tuple[Rows, NDArray[np.float32]]:
        """(row, cosine) of the rows that may be nearest to a short vector, in no order: see `Nearness`."""
        return self.nearness.nearest(short, len(self.ids), self.short)

    def recommendable(self, rows: Rows, now: float | NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether items may stand in a list made at `now` (broadcast against rows)."""
        return np.asarray(self.live[rows] & (self.opens[rows] <= now) & (now < self.closes[rows]))

    def of_small_providers(self, rows: Rows, key: str, below: float) -> NDArray[np.bool_]:
        """Whether rows are of providers who have less than a share of all positive events; see `Providers`."""
        return self.wording.providers(key, self.records).small(rows, below * self.counts.sixty_total)

    def popular(self, now: float) -> Rows:
        """The most popular at several horizons, found again after 64 events or an hour."""
        events, at, size = self._popular_at
        if self.counts.total - events >= _FRESH_EVENTS or abs(now - at) > _FRESH_SECONDS or size != len(self):
            rows = np.arange(len(self.ids))
            if self._met is not None:  # all counts of a horizon fade alike, so that the others stay behind
                rows = np.union1d(self._popular, np.fromiter(self._met, np.int64, len(self._met)))
            recent = self.counts.recent(rows, now)
            columns = [*recent[:, POPULAR_HORIZONS].T, self.counts.positives[rows]]
            self._popular = np.unique(np.concatenate([best_of(rows, scores, POPULAR) for scores in columns]))
            self._popular_at, self._met = (self.counts.total, now, len(self)), set()
        return self._popular

    def _fit(self) -> None:
        """The mean and main axes of the catalogue, or of a sample of it, and every short vector by them."""
        used = np.fromiter(self.rows.values(), np.int64, len(self.rows))
        if not len(used):
            return
        sample = used[:: max(1, len(used) // _SAMPLE)]
        vectors = self.vectors[sample].astype(np.float32)
        self.mean = vectors.mean(axis=0) if self._given_mean is None else self._given_mean
        centred = vectors - self.mean
        _, axes = np.linalg.eigh(centred.T @ centred)
        before, self._axes = (
            self._axes,
            np.ascontiguousarray(axes[:, ::-1][:, : self.short.shape[1]].astype(np.float32)),
        )
        self.learned.turn(before, self._axes)
        for start in range(0, len(self.ids), _SAMPLE):
            part = slice(start, start + _SAMPLE)
            self.short[part] = self.project(self.vectors[part].astype(np.float32))
        self._fitted = len(self)
        self.wording.weigh(used)
        self.nearness.fit(used, self.short)

    @property
    def _moments(self) -> tuple[Arrivals, ...]:
        return self.arrivals, self.opening, self.closing

    def _arrival(self, row: int) -> float:
        """When an item came: published, else first met, else first seen; −∞ where nothing is known."""
        if math.isfinite(self.opens[row]):
            return float(self.opens[row])
        first, record = float(self.counts.first_at[row]), self.records[row]
        if math.isfinite(first) or record is None or not record.first_seen:
            return first if math.isfinite(first) else -math.inf
        return record.first_seen

    def _touch(self, row: int, at: float, *, arrives: bool) -> None:
        self.touched[row] = max(self.touched[row], at)
        self.latest.append(row)
        if self._met is not None:
            self._met.add(row)
        if len(self.latest) > 2 * _LATEST:
            del self.latest[:-_LATEST]
        if arrives and not math.isfinite(self.opens[row]):
            self.arrivals.put(np.array([row]), np.array([self._arrival(row)]))

    def _row_of(self, record: ItemRecord) -> tuple[int, bool]:
        row = self.rows.get(record.item_id)
        if row is not None:
            return row, False
        if not self._free and len(self.ids) >= self.capacity:
            self._evict()
        row = self._free.pop() if self._free else self._grow()
        self.rows[record.item_id] = row
        self.ids[row] = record.item_id
        self.live[row], self.touched[row] = True, math.inf  # until it is filled, so that its own batch can't evict it
        return row, True

    def _grow(self) -> int:
        row = len(self.ids)
        self.ids.append("")
        self.records.append(None)
        if row >= len(self.live):
            rows = min(self.capacity, max(256, 2 * row))
            self._reserve(rows)
        return row

    def _reserve(self, rows: int) -> None:
        more = rows - len(self.live)
        for name, empty in _EMPTY.items():
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full((more, *old.shape[1:]), empty, old.dtype)]))
        self.local, self.sums = np.full(rows, -1, np.int32), np.zeros(rows)
        for part in (self.counts, self.companions, self.wording, self.nearness, self.learned):
            part.reserve(rows)
        for moments in self._moments:
            moments.reserve(rows)

    def _evict(self) -> None:
        """Make room: what may not be recommended goes first, then what nobody has met for longest."""
        used = np.fromiter(self.rows.values(), np.int64, len(self.rows))
        order = np.lexsort((self.touched[used], self.live[used]))
        rows = used[order[: max(1, int(_FREED * self.capacity))]].tolist()
        for row in rows:
            del self.rows[self.ids[row]]
            self.ids[row], self.records[row] = "", None
        for name, empty in _EMPTY.items():
            getattr(self, name)[rows] = empty
        self.counts.clear(rows)
        self.companions.clear(rows)
        self.wording.clear(rows)
        for moments in self._moments:
            moments.clear(rows)
        self.nearness.clear(rows)
        self.learned.clear(rows)
        self._met = None
        self.latest = [row for row in self.latest if self.ids[row]]
        self._free = rows


def best_of(rows: Rows, scores: NDArray[np.floating], count: int) -> Rows:
    """The rows of the greatest positive scores, at most `count`, in no order."""
    positive = scores > 0
    if not positive.all():
        rows, scores = rows[positive], scores[positive]
    if len(rows) <= count:
        return rows
    return rows[np.argpartition(-scores, count)[:count]]


def _finite(times: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(times), times, -np.inf)


_EMPTY: Final = {
    "vectors": 0.0, "short": 0.0, "log_price": math.nan, "live": False, "opens": -math.inf, "closes": math.inf,
    "touched": -math.inf, "category": -1,
}  # fmt: skip
"""Value of an unused row, by array."""
