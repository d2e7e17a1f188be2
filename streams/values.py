"""The values that everybody names: records, state, rankings. Immutable; no behaviour beyond reading oneself.

Units: every time is seconds since the epoch (float), every duration has `_seconds` in its name. Vectors are numpy
float32, unit norm, of the encoder's dimension. `gc=False`: made by the million, and part of no cycle, so that the garbage
collector need not look.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""A unit vector, shape [dimension]."""


class Topic(StrEnum):
    """The topics by their own names; a prefix is put before them at the edge only."""

    ITEMS = "items"
    USERS = "users"
    EVENTS = "events"
    RECOMMENDATIONS = "recommendations"
    DEAD_LETTERS = "dead-letters"
    SIGNALS = "signals"
    REFRESHES = "refreshes"
    LESSONS = "lessons"
    MODEL = "model"


CO_PARTITIONED: Final = (Topic.EVENTS, Topic.USERS, Topic.REFRESHES)
"""Topics whose equal partitions one worker owns together, so that all of a user is in one place."""


class EventType(StrEnum):
    """What a user did."""

    VIEW = "view"
    CLICK = "click"
    LIKE = "like"
    DISLIKE = "dislike"
    CART = "cart"
    PURCHASE = "purchase"
    RATING = "rating"
    SKIP = "skip"
    SEARCH = "search"


class Strategy(StrEnum):
    """What a list rests on, named in the list."""

    PERSONAL = "personal"  # the user's interactions
    SESSION = "session"  # nothing but wishes (searches) and weak events of the current session
    PROFILE = "profile"  # the user's own words
    POPULAR = "popular"  # recent popularity: nothing is known of the user
    NEWEST = "newest"  # nothing is popular yet


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it came from the broker, bytes untouched."""

    topic: Topic
    partition: int
    offset: int
    time: float
    """The record's own time (the broker's, where the topic has LogAppendTime)."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def header(self, name: str) -> bytes | None:
        """The last header of that name; None where there is none."""
        return next((value for key, value in reversed(self.headers) if key == name), None)

    @property
    def size_bytes(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


@dataclass(frozen=True, slots=True)
class Message:
    """One message to send. `topic` has no prefix yet; `partition` None lets murmur2 of the key decide."""

    topic: Topic
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class Source(msgspec.Struct, frozen=True, array_like=True, order=False):
    """Where a record came from: what decides which of two is the later."""

    partition: int
    offset: int
    time: float

    def replaces(self, other: Source | None) -> bool:
        """Whether a record from here is newer than one from `other`.

        Within a partition the offset decides, across partitions (misrouted producers) the record's time, then the
        partition, so that two workers always agree.
        """
        if other is None:
            return True
        if self.partition == other.partition:
            return self.offset > other.offset
        return (self.time, self.partition) > (other.time, other.partition)


class Interaction(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event as history keeps it. Ordered by (at, partition, offset); weights are computed when read."""

    at: float
    """min(event time, record time): a clock that runs ahead can neither outlive an erasure nor evict what is newer."""
    partition: int
    offset: int
    type: EventType
    item_id: str | None = None
    value: float | None = None
    query: str | None = None
    price: float | None = None
    session: str | None = None
    context: dict[str, Any] = {}

    @property
    def order(self) -> tuple[float, int, int]:
        """The key by which a history is ordered."""
        return (self.at, self.partition, self.offset)


class Exclusion(msgspec.Struct, frozen=True, array_like=True):
    """An event that may keep its item from this user; for how long is policy, decided when read."""

    at: float
    item_id: str
    type: EventType


class RecentId(msgspec.Struct, frozen=True, array_like=True):
    """An event id that was applied, and the event's `at`."""

    event_id: str
    at: float


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a user says of themselves: the value of the topic `users` without its id."""

    profile: str = ""
    interests: tuple[str, ...] = ()
    attributes: dict[str, Any] = {}
    blocked_items: tuple[str, ...] = ()
    blocked_categories: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Profile text and interests as one text to embed; empty when there is none."""
        return ". ".join(part for part in (self.profile.strip(), ", ".join(self.interests)) if part)


Applied = dict[str, dict[int, tuple[int, float]]]
"""{topic: {partition: (offset, record time)}}: the last record of each source that a state has in it."""


class UserState(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """All that is kept about a user: one JSON string in the index. Everything else is recomputable."""

    user_id: str
    applied: Applied = {}
    history: tuple[Interaction, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    recent_ids: tuple[RecentId, ...] = ()
    profile: Profile | None = None
    profile_source: Source | None = None
    erased_at: float | None = None
    erased_source: Source | None = None
    list_ids: tuple[str, ...] = ()
    """Item ids of the last list."""
    version: int = 0
    write_id: str = ""

    @property
    def is_marker(self) -> bool:
        """Whether nothing is left of this user but the marker of an erasure."""
        return self.erased_at is not None and not self.history and not self.exclusions and self.profile is None

    @property
    def home(self) -> int | None:
        """The partition on which this user lives: of the newest event, without one that of the profile."""
        if self.history:
            return self.history[-1].partition
        return self.profile_source.partition if self.profile_source else None


class ItemRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item as the index keeps it: the topic's value and where it came from."""

    item_id: str
    title: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()
    price: float | None = None
    attributes: dict[str, Any] = {}
    available: bool = True
    published_at: float | None = None
    expires_at: float | None = None
    deleted: bool = False
    source: Source | None = None
    created: tuple[int, int] | None = None
    """(partition, offset) of the record that created it: only its redelivery repeats the fan-out."""
    first_seen: float = 0.0
    """Record time of the record that created it."""
    encoder: str = ""
    """Name of the encoder that made its vector."""
    version: int = 0
    write_id: str = ""

    def recommendable(self, now: float) -> bool:
        """Whether it may stand in a list made at `now`."""
        return (
            not self.deleted
            and self.available
            and (self.published_at is None or self.published_at <= now)
            and (self.expires_at is None or now < self.expires_at)
        )


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why an item is in a list: the input whose part of the score was largest."""

    kind: str
    """history, similar_users, profile, wish, popular, new, explore, floor"""
    text: str
    item_id: str | None = None


class RankedItem(msgspec.Struct, frozen=True, gc=False):
    """One place of a list. `parts` sum to `score`."""

    item_id: str
    score: float
    parts: dict[str, float]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Ranking:
    """An ordered list for one user, before it becomes a recommendation on the topic."""

    strategy: Strategy
    items: tuple[RankedItem, ...]
    ranker: str
    """Version of the ranker's weights that made it."""
    arm: str = ""
    short: tuple[str, ...] = ()
    """The group of each place that an exposure floor owed and no candidate could take."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids in order of rank."""
        return tuple(item.item_id for item in self.items)


class TriggerKind(StrEnum):
    """What caused a list."""

    EVENT = "event"
    USER = "user"
    ITEM = "item"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Trigger:
    """The cause of a list: `id` is that record's id; `at` its own time, `record_time` the broker's."""

    kind: TriggerKind
    id: str
    at: float
    record_time: float
