"""The worker's columns, kept like the index: loaded whole at start, then by what this worker writes and, where others
write too, by what they changed since the last look. And what this worker's lists show of them.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.decide.items import ItemOutcome
from streams.decide.ragged import Rows
from streams.decide.table import Table
from streams.flow.decoded import RefreshInput
from streams.flow.items import ItemWork, item_from_point
from streams.flow.report import Census, Reach
from streams.flow.signals import statistics_from_point
from streams.flow.users import UserWork
from streams.ports import Clock, Collection, Index, Match
from streams.values import ItemRecord, Vector

PAGE: Final = 1000
LOOK_PAGE: Final = 200
SLICE_SECONDS: Final = 0.02
"""A look at what others changed goes on with the next batch after so long: events must not wait for all of it."""
OVERLAP_SECONDS: Final = 10.0
"""Clocks of workers may differ by so much; what is looked up twice is put twice."""
SMALLEST_NORM: Final = 1e-6
FADING_SECONDS: Final = 3600.0
"""Half-life of an item's exposure, and how long an item counts as covered."""
FADED: Final = 0.01
CENSUS_ITEMS: Final = 200_000
SAMPLE: Final = 2000
"""Items that a census looks at one by one."""
_NOTHING: Final = np.zeros((2, 0))


class Catalogue:
    """Columns and where they come from."""

    def __init__(self, index: Index, columns: Table, clock: Clock, reload_seconds: float) -> None:
        self.columns = columns
        self._index = index
        self._clock = clock
        self.reload_seconds = reload_seconds
        self._looked_at = self._began = 0.0
        self.look: AsyncIterator[list[str]] | None = None
        """A look at what others changed that goes on with the next call of `reload`."""
        self._absent: dict[str, float] = {}
        """Items that were looked up in vain, and when."""

    @property
    def is_partial(self) -> bool:
        """Whether the catalogue may be larger than the columns."""
        return len(self.columns) >= self.columns.capacity

    def centred(self, item_id: str) -> Vector | None:
        """An item's vector less the catalogue's mean, renormalised: by it, a new item looks for the users it fits."""
        vector = self.columns.vector(item_id)
        if vector is None:
            return None
        centred = vector - self.columns.mean
        norm = float(np.linalg.norm(centred))
        return None if norm < SMALLEST_NORM else centred / norm

    def turned(self, since: float, now: float) -> tuple[list[ItemRecord], list[ItemRecord]]:
        """Items that became recommendable by time alone after `since`, and those that ceased to be, up to `now`."""
        columns = self.columns
        opened, closed = (np.sort(moments.between(since, now)) for moments in (columns.opening, columns.closing))
        return (
            [one for row in opened[columns.live[opened]].tolist() if (one := columns.records[row]) is not None],
            [one for row in closed[columns.live[closed]].tolist() if (one := columns.records[row]) is not None],
        )

    async def load(self) -> None:
        """Everything, page by page. Called once, before the first batch, and again after a hold of the index."""
        self._looked_at, self.look = self._clock.now(), None
        async for _ in self._pages(None, PAGE):
            pass

    async def reload(self) -> list[str]:
        """What other workers changed, if a look is due; returns the items that they withdrew.

        A long one is done in slices, one a call. A look that fails is made up for by the next one.
        """
        now, began = self._clock.now(), self._clock.monotonic()
        if self.look is None:
            if not self._index.shared or now - self._looked_at < self.reload_seconds:
                return []
            since = Match(at_least={"updated_ms": int((self._looked_at - OVERLAP_SECONDS) * 1000)})
            self.look, self._began = self._pages(since, LOOK_PAGE), now
        look, self.look, withdrawn = self.look, None, []
        async for some in look:
            withdrawn += some
            if self._clock.monotonic() - began > SLICE_SECONDS:
                self.look = look
                return withdrawn
        self._looked_at = self._began
        return withdrawn

    def put(self, works: Sequence[ItemWork]) -> None:
        """Items as this worker has just written them (or found them newer)."""
        self._put([(work.record, work.vector) for work in works])
        for work in works:
            self._absent.pop(work.item_id, None)

    async def count(self, works: Sequence[ItemWork]) -> None:
        """Give new items what is known of them already: statistics outlive an item, and may precede it."""
        new = [work.item_id for work in works if ItemOutcome.CREATED in work.outcomes]
        points = await self._index.read(Collection.STATISTICS, new) if new else []
        self.columns.absorb([found for point in points if (found := statistics_from_point(point)) is not None])

    async def ensure(self, works: Sequence[UserWork]) -> None:
        """Fetch the items that these users' histories and refreshes name and the columns lack."""
        if not self._index.shared and not self.is_partial:
            return
        now = self._clock.now()
        wanted: dict[str, None] = {}
        for work in works:
            wanted.update((entry.item_id, None) for entry in work.state.history if entry.item_id is not None)
            wanted.update((entry.refresh.item_id, None) for entry in work.inputs if isinstance(entry, RefreshInput))
        missing = [
            item_id
            for item_id in wanted
            if item_id not in self.columns and now - self._absent.get(item_id, 0.0) > self.reload_seconds
        ]
        if not missing:
            return
        points = await self._index.read(Collection.ITEMS, missing, vectors=True)
        found = [(item_from_point(point), point.vector) for point in points if point is not None]
        self._put(found)
        self._absent.update((key, now) for key, point in zip(missing, points, strict=True) if point is None)
        if len(self._absent) > 100 * PAGE:
            self._absent.clear()

    def _put(self, pairs: Sequence[tuple[ItemRecord | None, Vector | None]]) -> list[str]:
        """Into the columns, where they hold another version. A marker needs a row only where the item had one.

        Returns the items that were available before and are not any more.
        """
        nothing = np.zeros(self.columns.dimension, np.float32)
        news: list[tuple[ItemRecord, Vector]] = []
        withdrawn: list[str] = []
        for record, vector in pairs:
            held = None if record is None else self.columns.item(record.item_id)
            if record is None or (record.deleted if held is None else held.version == record.version):
                continue
            news.append((record, nothing if vector is None else vector))
            if held is not None and _is_live(held) and not _is_live(record):
                withdrawn.append(record.item_id)
        self.columns.put(news)
        return withdrawn

    async def _pages(self, match: Match | None, size: int) -> AsyncIterator[list[str]]:
        """Take over items and statistics, page by page; yields what each withdrew."""
        for collection, items in ((Collection.ITEMS, True), (Collection.STATISTICS, False)):
            cursor: str | None = ""
            while cursor is not None:
                page = await self._index.scan(collection, cursor=cursor or None, limit=size, match=match, vectors=items)
                if items:
                    yield self._put([(item_from_point(point), point.vector) for point in page.points])
                else:
                    found = (statistics_from_point(point) for point in page.points)
                    self.columns.absorb([one for one in found if one is not None])
                    yield []
                cursor = page.cursor


def _is_live(record: ItemRecord) -> bool:
    return record.available and not record.deleted


class Exposure:
    """What this worker's lists show of the columns, by arm. In memory only; a row given to another item keeps its past."""

    def __init__(self, columns: Table, arms: Iterable[str], since: float) -> None:
        self._columns = columns
        self._since = since
        self._faded_at = math.inf
        self._last = _NOTHING[:1]
        """When each row last stood in a list. Shape [1, rows]."""
        self._arms = dict.fromkeys(arms, _NOTHING)
        """By arm: when each row last stood in a list, and how often of late. Shape [2, rows]."""

    def note(self, arm: str, rows: Rows, now: float) -> list[float]:
        """A list was delivered. Returns seconds since each of its items came (or was published) that stood in none since.

        What came before `since` is left out: another process may have shown it.
        """
        self._last = _grow(self._last, len(self._columns.live))
        seen = self._arms[arm] = _grow(self._arms.get(arm, _NOTHING), len(self._columns.live))
        came = [_came(self._columns.records[row]) for row in rows.tolist()]
        before = self._last[0, rows].tolist()
        self._last[0, rows] = seen[0, rows] = now
        seen[1, rows] += 1.0
        return [max(now - at, 0.0) for at, shown in zip(came, before, strict=True) if at > shown and at >= self._since]

    def census(self, now: float, encoder: str) -> Census:
        """What the recommendable items are like now, and what of them is shown; lets exposure fade since the last call.

        Some 10 ms for 100,000 items; of more than `CENSUS_ITEMS` it looks at a sample.
        """
        columns = self._columns
        rows = np.flatnonzero(columns.live)
        rows = rows[:: len(rows) // CENSUS_ITEMS + 1]
        rows = rows[columns.recommendable(rows, now)]
        bits = -np.log2((columns.counts.events[rows] + 1.0) / (columns.counts.total + max(len(columns), 1)))
        fading = 0.5 ** (max(now - self._faded_at, 0.0) / FADING_SECONDS)
        self._faded_at = now
        reach = {}
        for arm, held in self._arms.items():
            seen = self._arms[arm] = _grow(held, len(columns.live))
            seen[1] *= fading
            seen[1, seen[1] < FADED] = 0.0
            covered = float((seen[0, rows] > now - FADING_SECONDS).mean()) if len(rows) else 0.0
            often = seen[1, rows]
            novelty = float(often @ bits / often.sum()) if often.any() else math.nan
            reach[arm] = Reach(covered, gini(often), novelty)
        if not len(rows):
            return Census(0.0, 0.0, reach)
        sample = [columns.records[row] for row in rows[:: -(-len(rows) // SAMPLE)].tolist()]
        foreign = sum(1 for record in sample if record is not None and record.encoder != encoder)
        return Census(float((columns.counts.events[rows] == 0).mean()), foreign / len(sample), reach)


def gini(exposure: NDArray[np.float64]) -> float:
    """Gini coefficient of amounts ≥ 0: 0 all alike, near 1 one has it all; NaN where there is nothing."""
    count, some = len(exposure), np.sort(exposure[exposure > 0.0])
    if not len(some):
        return math.nan
    places = np.arange(count - len(some) + 1, count + 1)
    return float((2.0 * places - count - 1.0) @ some / (count * some.sum()))


def _came(record: ItemRecord | None) -> float:
    """When an item came, or was published after that; −∞ where neither is known."""
    return (max(record.first_seen, record.published_at or 0.0) or -math.inf) if record is not None else -math.inf


def _grow(seen: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """The first row of the array −∞, the others 0, up to so many columns."""
    if rows <= seen.shape[1]:
        return seen
    grown = np.zeros((len(seen), rows))
    grown[0] = -np.inf
    grown[:, : seen.shape[1]] = seen
    return grown
