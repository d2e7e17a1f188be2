"""The reverse fan-out: whom an item concerns, and how many of them may be refreshed.

A new item is shown to the users whose taste it matches without a click of theirs; a withdrawn one leaves the last lists
that hold it. Best effort within a budget: the item itself is durable before, and what is over budget is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from streams.flow.catalogue import Catalogue
from streams.ports import Clock, Collection, Hit, Index, Match, Query
from streams.values import ItemRecord, Message, Topic
from streams.wire import JSON, Refresh

WAITING_MOST: Final = 10_000
"""Refreshes for withdrawn items that may wait for the budget."""

Headers = tuple[tuple[str, bytes], ...]
NO_HEADERS: Final[Mapping[str, Headers]] = MappingProxyType({})


@dataclass(slots=True)
class Budget:
    """A rate that is not to be exceeded, as a token bucket: `per_second`, at most one second's worth saved up."""

    per_second: float
    clock: Clock
    _tokens: float = 0.0
    _at: float | None = None

    def spend(self, wanted: int) -> int:
        """How many of `wanted` may be had now."""
        now = self.clock.monotonic()
        earned = self.per_second if self._at is None else (now - self._at) * self.per_second
        self._tokens = min(self.per_second, self._tokens + earned)
        self._at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted


class FanOut:
    """Plans refreshes; sending them is the batch's."""

    def __init__(self, index: Index, catalogue: Catalogue, budget: Budget, users_most: int) -> None:
        self._index = index
        self._catalogue = catalogue
        self._budget = budget
        self._users_most = users_most
        self._waiting: deque[Message] = deque()

    async def arrived(
        self, records: Sequence[ItemRecord], now: float, headers: Mapping[str, Headers] = NO_HEADERS
    ) -> tuple[list[Message], int]:
        """Refreshes of the users whose list each new item would enter, best match first; and how many were dropped.

        `headers`: those of an item's refreshes, by its id.
        """
        placed = [(record, self._catalogue.centred(record.item_id)) for record in records if record.recommendable(now)]
        fit = [(record, vector) for record, vector in placed if vector is not None]
        if not fit or not self._users_most:
            return [], 0
        alive = Match(equals={"marker": False})
        queries = [Query(self._users_most, vector=vector, match=alive) for _, vector in fit]
        found = await self._index.search(Collection.USERS, queries)
        wanted = [
            _refresh(hit, record.item_id, "arrived", record.source.time if record.source else now, headers)
            for (record, _), hits in zip(fit, found, strict=True)
            for hit in hits
            if hit.score > _floor(hit)
        ]
        granted = self._budget.spend(len(wanted))
        return wanted[:granted], len(wanted) - granted

    async def withdrawn(
        self, item_ids: Sequence[str], now: float, headers: Mapping[str, Headers] = NO_HEADERS
    ) -> tuple[list[Message], int]:
        """Refreshes of the users whose last list holds one of these items; what is over budget waits for `due`.

        Returns messages and how many refreshes were dropped (more than `WAITING_MOST` waited).
        """
        wanted: list[Message] = []
        for item_id in item_ids:
            hits = await self._index.find(Collection.USERS, Match(equals={"list_ids": item_id}), WAITING_MOST)
            wanted += [_refresh(hit, item_id, "withdrawn", now, headers) for hit in hits]
        dropped = max(0, len(self._waiting) + len(wanted) - WAITING_MOST)
        self._waiting += wanted[: len(wanted) - dropped]
        return self.due(), dropped

    def due(self) -> list[Message]:
        """The refreshes that waited for the budget and may go now."""
        return [self._waiting.popleft() for _ in range(self._budget.spend(len(self._waiting)))]


def _floor(hit: Hit) -> float:
    floor = hit.fields.get("floor", 0.0)
    return floor if isinstance(floor, float | int) else 0.0


def _refresh(hit: Hit, item_id: str, kind: str, at: float, headers: Mapping[str, Headers]) -> Message:
    home = hit.fields.get("home")
    value = JSON.encode(Refresh(hit.key, item_id, at, kind))
    partition = home if isinstance(home, int) else None
    return Message(Topic.REFRESHES, hit.key.encode(), value, headers.get(item_id, ()), partition)
