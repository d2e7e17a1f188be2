"""The public interface: the shape of each topic's value, and how bytes become values and back.

Decoding raises `PoisonError` with a reason and a sentence; nothing else. Unknown fields are ignored; null is absent;
each value replaces the last whole. The JSON Schema and AsyncAPI documents are generated from these types.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec

from streams.errors import PoisonError
from streams.values import EventType, Record, Strategy, Topic, TriggerKind

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Time = Annotated[
    str | int | float, msgspec.Meta(description="RFC 3339, or a number: seconds, from 1e11 on milliseconds")
]

SCHEMA_VERSION: Final = 1
LONGEST_ID_BYTES: Final = 1536
"""Of an id as JSON: lists and signals name hundreds, and a broker takes a megabyte."""
MILLISECONDS_FROM: Final = 1e11
LATEST_AHEAD_SECONDS: Final = 86_400.0
LARGEST_VALUE: Final = 1e9
"""Of an event's value: what is rated, or counted, lies far below it."""
LARGEST_TIME: Final = 253_402_300_799.0  # the end of the year 9999: what RFC 3339 can still write


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Value of `items`; a null value deletes the item."""

    item_id: Id
    title: str
    description: str | None = None
    categories: tuple[str, ...] | None = None
    price: float | None = None
    attributes: dict[str, Any] | None = None
    available: bool | None = True
    published_at: Time | None = None
    expires_at: Time | None = None


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Value of `users`; a null value erases the user."""

    user_id: Id
    profile: str | None = None
    interests: tuple[str, ...] | None = None
    attributes: dict[str, Any] | None = None
    blocked_items: tuple[str, ...] | None = None
    blocked_categories: tuple[str, ...] | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Value of `events`. Every type but search needs item_id, search needs query, rating needs value."""

    event_id: Id
    user_id: Id
    type: EventType
    timestamp: Time
    item_id: Id | None = None
    value: Annotated[float, msgspec.Meta(ge=-LARGEST_VALUE, le=LARGEST_VALUE)] | None = None
    price: float | None = None
    query: str | None = None
    session_id: str | int | None = None
    session: str | int | None = None
    context: dict[str, Any] | None = None
    recommendation_id: str | None = None


class RecommendationTrigger(msgspec.Struct, frozen=True):
    """What caused a list: the latest trigger where several were conflated."""

    kind: TriggerKind
    id: str
    timestamp: str


class RecommendationReason(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an item is there: the input whose part of the score was largest."""

    kind: str
    text: str
    item_id: str | None = None


class RecommendedItem(msgspec.Struct, frozen=True, gc=False):
    """One place of a list; `parts` sum to `score`."""

    item_id: str
    rank: int
    score: float
    parts: dict[str, float]
    reason: RecommendationReason


class Recommendation(msgspec.Struct, frozen=True, omit_defaults=False):
    """Value of `recommendations`; null: the user was erased. The greater version is the later list."""

    recommendation_id: str
    user_id: str
    version: int
    generated_at: str
    trigger: RecommendationTrigger
    conflated: tuple[str, ...]
    strategy: Strategy
    encoder: str
    ranker: str
    items: tuple[RecommendedItem, ...]
    arm: str = ""


class Refresh(msgspec.Struct, frozen=True, omit_defaults=True):
    """Value of the internal topic `refreshes`: make this user's list anew because of that item."""

    user_id: str
    item_id: str
    at: float
    kind: str = "arrived"
    """arrived: emit where the item entered the list; withdrawn: emit where the last list holds the item."""


JSON: Final = msgspec.json.Encoder()
_ITEM: Final = msgspec.json.Decoder(Item)
_USER: Final = msgspec.json.Decoder(User)
_EVENT: Final = msgspec.json.Decoder(Event)
_REFRESH: Final = msgspec.json.Decoder(Refresh)

S = TypeVar("S")


def to_seconds(value: str | float, what: str = "timestamp") -> float:
    """Seconds since the epoch of a wire time: RFC 3339 text, or a number (seconds, from 1e11 on milliseconds).

    Raises `PoisonError("time")` for anything that is no such time. Text without an offset is read as UTC.
    """
    if isinstance(value, str):
        try:
            parsed = msgspec.convert(value, datetime)
        except msgspec.ValidationError as error:
            raise PoisonError("time", f"{what} {value[:40]!r} is no RFC 3339 time") from error
        try:
            return parsed.timestamp() if parsed.tzinfo else parsed.replace(tzinfo=UTC).timestamp()
        except (OverflowError, ValueError, OSError) as error:
            raise PoisonError("time", f"{what} {value[:40]!r} is out of range") from error
    seconds = value / 1000 if abs(value) >= MILLISECONDS_FROM else float(value)
    if not math.isfinite(seconds) or not 0 <= seconds <= LARGEST_TIME:
        raise PoisonError("time", f"{what} {value!r} is not between 1970 and 9999")
    return seconds


def to_rfc3339(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds, ending in Z."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decode_item(record: Record) -> Item:
    """The item of a record that has a value. Raises `PoisonError`."""
    item = _decode(record, _ITEM)
    _check_ids(item.item_id)
    _check_key(record, item.item_id, "item_id")
    if item.price is not None and not (math.isfinite(item.price) and item.price >= 0):
        raise PoisonError("schema", "price must be a number of at least 0")
    for name in ("published_at", "expires_at"):
        moment = getattr(item, name)
        if moment is not None:
            to_seconds(moment, name)
    return item


def decode_user(record: Record) -> User:
    """The user of a record that has a value. Raises `PoisonError`."""
    user = _decode(record, _USER)
    _check_ids(user.user_id)
    _check_key(record, user.user_id, "user_id")
    return user


def decode_event(record: Record) -> Event:
    """The event of a record. Raises `PoisonError`, also for a time more than a day ahead of the record's own."""
    if record.value is None:
        raise PoisonError("schema", "an event can't be null: send a tombstone to users to erase somebody")
    event = _decode(record, _EVENT)
    _check_ids(event.event_id, event.user_id, event.item_id or "")
    _check_key(record, event.user_id, "user_id")
    if event.type is EventType.SEARCH:
        if not (event.query and event.query.strip()):
            raise PoisonError("schema", "a search needs query")
    elif event.item_id is None:
        raise PoisonError("schema", f"a {event.type.value} needs item_id")
    if event.type is EventType.RATING and event.value is None:
        raise PoisonError("schema", "a rating needs value")
    if to_seconds(event.timestamp) > record.time + LATEST_AHEAD_SECONDS:
        raise PoisonError("time", f"timestamp {event.timestamp!r} is more than a day ahead of the record's own time")
    return event


def decode_refresh(record: Record) -> Refresh:
    """The refresh of a record. Raises `PoisonError`."""
    return _decode(record, _REFRESH)


def decode_key(record: Record) -> str:
    """The key of a tombstone: the id it is about. Raises `PoisonError("key")`."""
    try:
        text = (record.key or b"").decode()
    except UnicodeDecodeError as error:
        raise PoisonError("key", "the key is not UTF-8") from error
    if not 0 < len(text) <= 512:
        raise PoisonError("key", "the key must be the id: 1 to 512 characters")
    return text


def _decode(record: Record, decoder: msgspec.json.Decoder[S]) -> S:
    version = record.header("schema")
    if version is not None and version != b"1":
        raise PoisonError("version", f"schema version {version[:20]!r} is not known to this release (it knows 1)")
    try:
        return decoder.decode(record.value or b"")
    except msgspec.ValidationError as error:
        raise PoisonError("schema", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError("encoding", f"not valid JSON in UTF-8: {error}") from error


def _check_ids(*ids: str) -> None:
    for one in ids:
        if len(one) * 6 > LONGEST_ID_BYTES and len(JSON.encode(one)) > LONGEST_ID_BYTES:
            raise PoisonError("schema", f"an id is longer than {LONGEST_ID_BYTES} bytes as JSON")


def _check_key(record: Record, identity: str, name: str) -> None:
    if decode_key(record) != identity:
        raise PoisonError("key", f"the key must be the value's {name}")


TOPIC_TYPES: Final[dict[Topic, type[msgspec.Struct]]] = {
    Topic.ITEMS: Item,
    Topic.USERS: User,
    Topic.EVENTS: Event,
    Topic.RECOMMENDATIONS: Recommendation,
}
"""The public topics whose values are JSON of ours."""
