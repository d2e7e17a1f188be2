"""What a demonstration measures, from the outside: what was published against what came back.

A *step* is a positive event on an item that is in the published catalogue and that this user has not met before, of a
user who has a list. A list hits when the item stands in it as it was when the event came. Beside it, on the same steps,
the ten items with the most positive events of the last 14 days (by the events' own time) among all events published so
far, what the user has met left out: recounted at every step, so that it is never older than the list that it is
compared with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from streams.dataset import Line
from streams.wire import Recommendation, to_seconds

LIST_SIZE: Final = 10
POPULAR_SECONDS: Final = 14 * 86_400.0
UNWANTED: Final = frozenset({"dislike", "skip", "search"})
LIKED_FROM: Final = 4.0


def likes_from(events: Iterable[Line]) -> float:
    """From which rating on an event is positive: 4, or 1 where the greatest rating is 1 (EVALUATION)."""
    ratings = [event["value"] for event in events if event.get("type") == "rating" and "value" in event]
    return 1.0 if ratings and max(ratings) <= 1 else LIKED_FROM


def is_positive(event: Line, liked_from: float) -> bool:
    """Whether the event says that its item was wanted."""
    if event.get("item_id") is None or event.get("type") in UNWANTED:
        return False
    return event.get("type") != "rating" or event.get("value", 0.0) >= liked_from


class RecentlyPopular:
    """Positive events of the last 14 days by item, over a stream in time order."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._ids: list[str] = []
        self._counts = np.zeros(1024, np.int32)
        self._window: deque[tuple[float, int]] = deque()

    def add_items(self, item_ids: Iterable[str]) -> None:
        """Items that can be recommended from now on."""
        for identity in item_ids:
            if identity not in self._positions:
                self._positions[identity] = len(self._ids)
                self._ids.append(identity)
        while len(self._ids) > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._positions

    def count(self, item_id: str, at: float) -> None:
        """A positive event."""
        position = self._positions.get(item_id)
        if position is not None:
            self._counts[position] += 1
            self._window.append((at, position))

    def best(self, at: float, met: Iterable[str]) -> list[str]:
        """The ten most popular at that time, without what was met; the earlier in the catalogue wins a tie."""
        while self._window and self._window[0][0] <= at - POPULAR_SECONDS:
            self._counts[self._window.popleft()[1]] -= 1
        counts = self._counts[: len(self._ids)].copy()
        counts[[self._positions[identity] for identity in met if identity in self._positions]] = -1
        order = np.argsort(-counts, kind="stable")[:LIST_SIZE]
        return [self._ids[position] for position in order if counts[position] >= 0]


@dataclass(slots=True)
class Shown:
    """A user as the view shows them."""

    user_id: str
    event: Line | None = None
    list: Recommendation | None = None
    seconds: float | None = None
    """From the publication of the event that the list answers to its arrival here."""
    at: float = 0.0
    """When the list came, by the clock of the caller."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A late item that stands in a user's list: nobody had met it when it was published."""

    item_id: str
    user_id: str
    rank: int
    seconds: float
    """Since the late items were published."""
    by_itself: bool
    """Whether the item itself was the trigger: the user had done nothing."""


@dataclass(slots=True)
class Tally:
    """Counts of a run. Times are seconds of one monotonic clock, the caller's."""

    liked_from: float = LIKED_FROM
    events: int = 0
    items: int = 0
    recommendations: int = 0
    dead_letters: int = 0
    steps: int = 0
    hits: int = 0
    popular_hits: int = 0
    encoder: str = ""
    latencies: list[float] = field(default_factory=list)
    users: dict[str, Shown] = field(default_factory=dict)
    arrivals: dict[str, Arrival] = field(default_factory=dict)
    """The first list that each late item reached."""
    started_at: float | None = None
    answered_at: float = 0.0
    _pending: dict[str, float] = field(default_factory=dict)
    _published: set[str] = field(default_factory=set)
    _met: dict[str, set[str]] = field(default_factory=dict)
    _popular: RecentlyPopular = field(default_factory=RecentlyPopular)
    _late: dict[str, float] = field(default_factory=dict)

    def publish_items(self, items: Iterable[Line], late_at: float | None = None) -> None:
        """Items were published; `late_at`: now, for those that the replay held back."""
        ids = [item["item_id"] for item in items]
        self.items += len(ids)
        self._popular.add_items(ids)
        if late_at is not None:
            self._late.update(dict.fromkeys(ids, late_at))

    def publish_event(self, event: Line, now: float) -> None:
        """An event is about to be published."""
        self.started_at = now if self.started_at is None else self.started_at
        self.events += 1
        if event["event_id"] not in self._published:  # the same event twice is answered once
            self._published.add(event["event_id"])
            self._pending[event["event_id"]] = now
        user, item = event["user_id"], event.get("item_id")
        shown = self.users.setdefault(user, Shown(user))
        shown.event = event
        met = self._met.setdefault(user, set())
        at = to_seconds(event["timestamp"])
        if is_positive(event, self.liked_from):
            if shown.list is not None and item in self._popular and item not in met:
                self.steps += 1
                self.hits += item in [place.item_id for place in shown.list.items[:LIST_SIZE]]
                self.popular_hits += item in self._popular.best(at, met)
            self._popular.count(str(item), at)
        if item is not None:
            met.add(item)

    def receive_list(self, recommendation: Recommendation, now: float) -> None:
        """A list came. Of two for one user the greater version is the later."""
        self.recommendations += 1
        self.encoder = recommendation.encoder
        answered = [
            self._pending.pop(identity)
            for identity in (*recommendation.conflated, recommendation.trigger.id)
            if identity in self._pending
        ]
        self.latencies += [now - published for published in answered]
        if answered:
            self.answered_at = now
        shown = self.users.setdefault(recommendation.user_id, Shown(recommendation.user_id))
        if shown.list is None or recommendation.version >= shown.list.version:
            shown.list, shown.at = recommendation, now
            shown.seconds = now - max(answered) if answered else shown.seconds
        if self._late:
            self._note_arrivals(recommendation, now)

    def receive_dead_letter(self, event_id: str | None) -> None:
        """A record was refused; `event_id` where it was an event that has one: nobody waits for its list."""
        self.dead_letters += 1
        self._pending.pop(event_id or "", None)

    @property
    def lost(self) -> int:
        """Published events that were not refused and that no list has named yet."""
        return len(self._pending)

    @property
    def seconds(self) -> float:
        """From the first event to the last answer."""
        return 0.0 if self.started_at is None else max(self.answered_at - self.started_at, 0.0)

    def latency_milliseconds(self, latest: int | None = None) -> dict[str, float]:
        """p50, p95 and p99 over all events, or over the latest so many; empty before the first answer."""
        values = self.latencies[-latest:] if latest else self.latencies
        if not values:
            return {}
        found = np.percentile(np.asarray(values) * 1000, (50, 95, 99))
        return {name: round(float(value), 1) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}

    def summary(self) -> Mapping[str, Any]:
        """The one line of DESIGN section 7."""
        return {
            "items": self.items,
            "events": self.events,
            "recommendations": self.recommendations,
            "dead_letters": self.dead_letters,
            "lost": self.lost,
            "seconds": round(self.seconds, 1),
            "event_to_recommendation_ms": self.latency_milliseconds() or {"p50": None, "p95": None, "p99": None},
            "events_per_second": round(self.events / self.seconds, 1) if self.seconds else 0.0,
            "encoder": self.encoder,
            "hit_rate@10": self._rate(self.hits),
            "hit_rate@10_recent_popular": self._rate(self.popular_hits),
        }

    def _rate(self, hits: int) -> float | None:
        return round(hits / self.steps, 4) if self.steps else None

    def _note_arrivals(self, recommendation: Recommendation, now: float) -> None:
        for place in recommendation.items:
            published = self._late.get(place.item_id)
            if published is None or place.item_id in self.arrivals:
                continue
            by_itself = recommendation.trigger.kind == "item"
            self.arrivals[place.item_id] = Arrival(
                place.item_id, recommendation.user_id, place.rank, now - published, by_itself
            )
