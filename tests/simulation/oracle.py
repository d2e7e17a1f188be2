"""The oracle: folds a log in one thread into the state that must come of it, and compares (DELIVERY section 6).

Written anew from the promises, not from `streams.decide`, which it checks as well: it reads what was sent, sorts it by
what is promised to decide (offset, record time, event time) and knows nothing of batches, versions or writes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from streams.decide.statistics import Companion, ItemStatistics
from streams.ports import Point
from streams.values import ItemRecord, Topic, UserState
from tests.simulation.story import Sent

EXCLUDING: Final = frozenset({"purchase", "dislike", "rating"})
LONG_AGO: Final = -1e18

_USER: Final = msgspec.json.Decoder(UserState)
_ITEM: Final = msgspec.json.Decoder(ItemRecord)
_STATISTICS: Final = msgspec.json.Decoder(ItemStatistics)


@dataclass(frozen=True, slots=True)
class Placed:
    """A record in the log: what was sent, and the offset that the broker gave it."""

    sent: Sent
    offset: int

    @property
    def at(self) -> float:
        """min(event time, record time)."""
        assert self.sent.body is not None
        return min(float(self.sent.body["timestamp"]), self.sent.time)

    @property
    def rank(self) -> tuple[float, int, int]:
        """The order of a history."""
        return (self.at, self.sent.partition, self.offset)


@dataclass(slots=True)
class ExpectedUser:
    """What must be known of a user."""

    history: list[tuple[Any, ...]]
    exclusions: set[tuple[float, str, str]]
    profile: dict[str, Any] | None
    marker: bool
    applied: dict[str, dict[int, tuple[int, float]]]
    poison: dict[str, dict[int, set[tuple[int, float]]]]
    """Where in `applied` a record may stand that breaks the encoder, where the same batch held one that replaced it."""
    loud: bool
    """Whether all that changed the state also asked for a list."""


@dataclass(slots=True)
class ExpectedItem:
    """What must be known of an item: None where it must be deleted."""

    body: dict[str, Any] | None
    source: tuple[int, int, float]


@dataclass(slots=True)
class ExpectedStatistics:
    """Counts of an item. Exact only where all its users are orderly: never erased, on one partition."""

    least: int = 0
    most: int = 0
    exact: bool = True
    positives: int = 0
    ratings: int = 0
    rating_hundredths: int = 0
    repeats: int = 0
    first_at: float = math.inf
    last_at: float = -math.inf
    days: Counter[int] = field(default_factory=Counter)
    pairs: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    applied: dict[str, int] = field(default_factory=dict)

    def sums_of_pairs(self) -> dict[str, tuple[int, int, int]]:
        """{other item: (weight with which it follows, weight with which it precedes, how often they met)}."""
        return {other: (sums["total"], sums["back"], sums["together"]) for other, sums in self.pairs.items()}


@dataclass(slots=True)
class Expectation:
    """What a log leads to."""

    users: dict[str, ExpectedUser]
    items: dict[str, ExpectedItem]
    statistics: dict[str, ExpectedStatistics]
    dead: dict[tuple[str, int, int], tuple[str, bytes | None, bytes | None]]
    """{(topic, partition, offset): (reason, key, value)}"""
    named: dict[str, str]
    """{event id: user} of the events that some list must name."""
    superseded: set[tuple[str, int, int]]
    """Of the dead letters those that need not be: a record that breaks the encoder does no harm where the same batch
    holds a later one that replaces it."""


def expect(log: Iterable[Placed], history_size: int, exclusions_size: int) -> Expectation:
    """Fold a log."""
    dead = {}
    poison: dict[str, dict[str, dict[int, set[tuple[int, float]]]]] = {}
    by_user: dict[str, list[Placed]] = defaultdict(list)
    by_item: dict[str, list[Placed]] = defaultdict(list)
    for placed in log:
        sent = placed.sent
        if sent.reason is not None:
            dead[sent.topic.value, sent.partition, placed.offset] = (sent.reason, sent.key, sent.value)
            if sent.reason == "processing":
                places = poison.setdefault(sent.subject, {}).setdefault(sent.topic.value, {})
                places.setdefault(sent.partition, set()).add((placed.offset, sent.time))
        elif sent.topic is Topic.ITEMS:
            by_item[sent.subject].append(placed)
        else:
            by_user[sent.subject].append(placed)
    users = {
        user: _expect_user(records, poison.get(user, {}), history_size, exclusions_size)
        for user, records in by_user.items()
    }
    named = {
        record.sent.body["event_id"]: user
        for user, records in by_user.items()
        if not any(_is_erasure(record) for record in records)
        for record in _first_of_each(records)
        if record.sent.body is not None and not record.sent.quiet and not _may_be_second(record, records)
    }
    items = {item: _expect_item(some) for item, some in by_item.items()}
    superseded = {place for place, (reason, _, _) in dead.items() if reason == "processing"}
    return Expectation(users, items, _count(by_user, history_size), dead, named, superseded)


def _is_erasure(record: Placed) -> bool:
    return record.sent.topic is Topic.USERS and record.sent.body is None


def _may_be_second(record: Placed, records: Sequence[Placed]) -> bool:
    """Whether a silent copy of an event, on another partition, may be met first: then this one is a duplicate."""
    assert record.sent.body is not None
    return any(
        other.sent.quiet
        and other.sent.partition != record.sent.partition
        and other.sent.topic is Topic.EVENTS
        and other.sent.body is not None
        and other.sent.body["event_id"] == record.sent.body["event_id"]
        for other in records
    )


def _first_of_each(records: Sequence[Placed]) -> list[Placed]:
    """Events without duplicates: of each event id the first on its partition (any, where there are several)."""
    first: dict[str, Placed] = {}
    for record in sorted(records, key=lambda one: one.offset):
        if record.sent.topic is Topic.EVENTS and record.sent.body is not None:
            first.setdefault(record.sent.body["event_id"], record)
    return list(first.values())


def _newest(records: Iterable[Placed]) -> Placed | None:
    """Within a partition the greatest offset, across partitions the latest record time, then the partition."""
    last: dict[int, Placed] = {}
    for record in records:
        other = last.get(record.sent.partition)
        if other is None or record.offset > other.offset:
            last[record.sent.partition] = record
    return max(last.values(), key=lambda one: (one.sent.time, one.sent.partition), default=None)


def _expect_user(
    records: Sequence[Placed], poison: dict[str, dict[int, set[tuple[int, float]]]], history_size: int,
    exclusions_size: int,
) -> ExpectedUser:  # fmt: skip
    erased_at = max((one.sent.time for one in records if _is_erasure(one)), default=LONG_AGO)
    events = sorted((one for one in _first_of_each(records) if one.at > erased_at), key=lambda one: one.rank)
    exclusions: dict[tuple[str, str], float] = {}
    for event in events:
        body = event.sent.body or {}
        if body["type"] in EXCLUDING:
            key = (body["item_id"], body["type"])
            exclusions[key] = max(exclusions.get(key, LONG_AGO), event.at)
    kept = sorted((at, item, kind) for (item, kind), at in exclusions.items())[-exclusions_size:]
    profile = _newest(one for one in records if one.sent.topic is Topic.USERS)
    words = profile.sent.body if profile is not None else None
    applied: dict[str, dict[int, tuple[int, float]]] = {}
    for record in sorted(records, key=lambda one: one.offset):
        applied.setdefault(record.sent.topic.value, {})[record.sent.partition] = (record.offset, record.sent.time)
    return ExpectedUser(
        history=[_entry(event.at, event.sent.body or {}) for event in events[-history_size:]],
        exclusions=set(kept),
        profile=words,
        marker=erased_at > LONG_AGO and not events and words is None,
        applied=applied,
        poison=poison,
        loud=not any(record.sent.quiet for record in records),
    )


def _entry(at: float, body: Mapping[str, Any]) -> tuple[Any, ...]:
    return (at, body["type"], body.get("item_id"), body.get("value"), body.get("query"))


def _expect_item(records: Sequence[Placed]) -> ExpectedItem:
    newest = _newest(records)
    assert newest is not None
    return ExpectedItem(newest.sent.body, (newest.sent.partition, newest.offset, newest.sent.time))


def _count(by_user: Mapping[str, Sequence[Placed]], history_size: int) -> dict[str, ExpectedStatistics]:
    counts: dict[str, ExpectedStatistics] = defaultdict(ExpectedStatistics)
    for records in by_user.values():
        events = [one for one in records if one.sent.topic is Topic.EVENTS]
        erased = any(_is_erasure(one) for one in records)
        orderly = not erased and len({one.sent.partition for one in events}) <= 1
        first = _first_of_each(records)
        if orderly:
            _count_orderly(first, counts, history_size)
            continue
        for event in events:
            item = (event.sent.body or {}).get("item_id")
            if item is not None:
                counts[item].exact = False
                counts[item].most += 1
        for event in first:
            item = (event.sent.body or {}).get("item_id")
            if item is not None and not erased:
                counts[item].least += 1
        touched = {(one.sent.body or {}).get("item_id") for one in events} - {None}
        for item in touched:
            counts[item].exact = False
    return dict(counts)


def _count_orderly(events: Sequence[Placed], counts: defaultdict[str, ExpectedStatistics], history_size: int) -> None:
    """A user's events in the order of their one partition: each counts its item, and follows the items before it."""
    history: list[Placed] = []
    for event in sorted(events, key=lambda one: one.offset):
        body = event.sent.body or {}
        item = body.get("item_id")
        before = [one for one in history if one.rank < event.rank and (one.sent.body or {}).get("item_id") is not None]
        history = sorted([*history, event], key=lambda one: one.rank)[-history_size:]
        if item is None:
            continue
        kind = body["type"]
        positive = kind not in {"dislike", "skip"} and (kind != "rating" or body["value"] >= 4)
        own = counts[item]
        own.least += 1
        own.most += 1
        own.positives += positive
        own.first_at, own.last_at = min(own.first_at, event.at), max(own.last_at, event.at)
        own.days[math.floor(event.at / 86_400)] += 1
        if kind == "rating":
            own.ratings += 1
            own.rating_hundredths += round(100 * body["value"])
        own.repeats += any((one.sent.body or {}).get("item_id") == item for one in before)
        source = str(event.sent.partition)
        own.applied[source] = max(own.applied.get(source, -1), event.offset)
        met = {item}
        for distance, one in enumerate(reversed(before[-20:]), start=1):
            other = (one.sent.body or {})["item_id"]
            if other not in met:
                met.add(other)
                weight = round(720 * (1.0 if positive else 0.3) / distance)
                counts[other].pairs[item].update(total=weight, together=int(positive))
                own.pairs[other].update(back=weight, together=int(positive))
                counts[other].applied[source] = max(counts[other].applied.get(source, -1), event.offset)


# -- comparing


def compare_users(expected: Mapping[str, ExpectedUser], points: Mapping[str, Point]) -> list[str]:
    """What differs, a sentence each."""
    wrong = [f"user {user} should not exist" for user in points.keys() - expected.keys()]
    for user, want in expected.items():
        point = points.get(user)
        if point is None:
            wrong.append(f"user {user} is missing")
            continue
        state = _USER.decode(point.body)
        history = [(one.at, one.type.value, one.item_id, one.value, one.query) for one in state.history]
        if history != want.history:
            wrong.append(f"history of {user}: {history} instead of {want.history}")
        exclusions = {(one.at, one.item_id, one.type.value) for one in state.exclusions}
        if exclusions != want.exclusions:
            wrong.append(f"exclusions of {user}: {exclusions} instead of {want.exclusions}")
        profile = None if want.profile is None else _profile(want.profile)
        found = None if state.profile is None else _profile(msgspec.to_builtins(state.profile))
        if found != profile:
            wrong.append(f"profile of {user}: {found} instead of {profile}")
        if state.is_marker != want.marker or point.fields.get("marker") != want.marker:
            wrong.append(f"{user} is {'' if state.is_marker else 'not '}a marker")
        if want.marker and (state.recent_ids or state.list_ids or point.vector is not None):
            wrong.append(f"more than a marker is left of {user}")
        wrong += _compare_applied(user, want, state)
        if len({one.event_id for one in state.recent_ids}) != len(state.recent_ids):
            wrong.append(f"an event of {user} was applied twice")
    return wrong


def _compare_applied(user: str, want: ExpectedUser, state: UserState) -> list[str]:
    found = {
        (topic, partition): tuple(last)
        for topic, places in state.applied.items()
        if topic != Topic.REFRESHES.value
        for partition, last in places.items()
    }
    wanted = {(topic, partition): last for topic, places in want.applied.items() for partition, last in places.items()}
    return [
        f"applied of {user} at {place}: {found.get(place)} instead of {wanted.get(place)}"
        for place in found.keys() | wanted.keys()
        if found.get(place) != wanted.get(place)
        and found.get(place) not in want.poison.get(place[0], {}).get(place[1], set())
    ]


def _sums(one: Companion) -> tuple[int, int, int]:
    return one.total, one.back, one.together


def _profile(body: Mapping[str, Any]) -> tuple[Any, ...]:
    return (body.get("profile") or "", tuple(body.get("interests") or ()), tuple(body.get("blocked_items") or ()))


def compare_items(expected: Mapping[str, ExpectedItem], points: Mapping[str, Point]) -> list[str]:
    """What differs, a sentence each."""
    wrong = [f"item {item} should not exist" for item in points.keys() - expected.keys()]
    for item, want in expected.items():
        point = points.get(item)
        if point is None:
            wrong.append(f"item {item} is missing")
            continue
        record = _ITEM.decode(point.body)
        source = None if record.source is None else (record.source.partition, record.source.offset, record.source.time)
        if source != want.source:
            wrong.append(f"item {item} comes from {source} instead of {want.source}")
        body = want.body
        if record.deleted != (body is None) or point.fields.get("live") != (
            body is not None and body.get("available", True)
        ):
            wrong.append(f"item {item} is {'' if record.deleted else 'not '}deleted, live={point.fields.get('live')}")
        if (point.vector is None) != record.deleted:
            wrong.append(f"item {item} has {'no' if point.vector is None else 'a'} vector")
        if body is not None:
            found = (record.title, record.categories, record.price, record.published_at, record.expires_at)
            wanted = (
                body["title"], tuple(body.get("categories", ())), body.get("price"), body.get("published_at"),
                body.get("expires_at"),
            )  # fmt: skip
            if found != wanted:
                wrong.append(f"item {item} says {found} instead of {wanted}")
    return wrong


def compare_statistics(expected: Mapping[str, ExpectedStatistics], points: Mapping[str, Point]) -> list[str]:
    """What differs, a sentence each."""
    wrong = [f"statistics of {item} should not exist" for item in points.keys() - expected.keys()]
    for item, want in expected.items():
        point = points.get(item)
        if point is None:
            if want.least or (want.exact and want.pairs):
                wrong.append(f"statistics of {item} are missing")
            continue
        found = _STATISTICS.decode(point.body)
        if not want.least <= found.events <= want.most:
            wrong.append(f"{item} was counted {found.events} times instead of {want.least} to {want.most}")
        if not want.exact:
            continue
        pairs = [
            ("positives", found.positives, want.positives),
            ("ratings", found.ratings, want.ratings),
            ("rating sum", found.rating_hundredths, want.rating_hundredths),
            ("repeats", found.repeats, want.repeats),
            ("first", found.first_at, want.first_at),
            ("last", found.last_at, want.last_at),
            ("days", {day: counts[0] for day, counts in found.days.items()}, dict(want.days)),
            ("pairs", {other: _sums(one) for other, one in found.companions.items()}, want.sums_of_pairs()),
            ("applied", found.applied, want.applied),
        ]
        wrong += [f"{what} of {item}: {is_} instead of {should}" for what, is_, should in pairs if is_ != should]
    return wrong
