"""Records that passed the wire, ready to be applied; where one may fail all the same; and how such a one is buried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from streams.debezium import as_plain, read_change
from streams.errors import ColdstreamError, PoisonError
from streams.values import Interaction, Message, Profile, Record, Source, Topic, Trigger, TriggerKind
from streams.wire import (
    Event,
    Item,
    Refresh,
    User,
    decode_event,
    decode_item,
    decode_key,
    decode_refresh,
    decode_user,
    to_rfc3339,
    to_seconds,
)

NO_CHANGES: Final[Mapping[Topic, Mapping[str, str]]] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ItemInput:
    """A record of `items`; `item` None is a tombstone."""

    record: Record
    source: Source
    item_id: str
    item: Item | None
    quiet: bool
    unchanged: frozenset[str] = frozenset()
    """Fields that keep what is stored."""


@dataclass(frozen=True, slots=True)
class EventInput:
    """A record of `events`."""

    record: Record
    source: Source
    user_id: str
    event_id: str
    interaction: Interaction
    trigger: Trigger
    quiet: bool
    recommendation_id: str | None


@dataclass(frozen=True, slots=True)
class ProfileInput:
    """A record of `users`; `profile` None is a tombstone: erase."""

    record: Record
    source: Source
    user_id: str
    profile: Profile | None
    trigger: Trigger
    quiet: bool
    unchanged: frozenset[str] = frozenset()
    """Fields that keep what is stored."""


@dataclass(frozen=True, slots=True)
class RefreshInput:
    """A record of `refreshes`."""

    record: Record
    source: Source
    user_id: str
    refresh: Refresh
    trigger: Trigger
    quiet: bool = False


UserInput = EventInput | ProfileInput | RefreshInput


def decode(
    record: Record, record_bytes: int, debezium: Mapping[Topic, Mapping[str, str]] = NO_CHANGES
) -> ItemInput | UserInput:
    """One record as an input. Raises `PoisonError`.

    `record_bytes` is the largest record that is applied; `debezium` has the topics that carry change events, with the
    columns of other names than their fields.
    """
    if record.size_bytes > record_bytes:
        raise PoisonError("size", f"{record.size_bytes} bytes are more than the {record_bytes} that are applied")
    source = Source(record.partition, record.offset, record.time)
    quiet = record.header("quiet") is not None
    if record.topic is Topic.EVENTS:
        event = decode_event(record)
        return EventInput(
            record, source, event.user_id, event.event_id, to_interaction(event, source),
            Trigger(TriggerKind.EVENT, event.event_id, to_seconds(event.timestamp), record.time), quiet,
            event.recommendation_id,
        )  # fmt: skip
    unchanged: frozenset[str] = frozenset()
    plain = record
    if record.topic in debezium:
        change = read_change(record, "item_id" if record.topic is Topic.ITEMS else "user_id", debezium[record.topic])
        plain, unchanged = as_plain(record, change), change.unchanged
    if record.topic is Topic.ITEMS:
        item = None if plain.value is None else decode_item(plain)
        return ItemInput(record, source, decode_key(plain), item, quiet, unchanged)
    if record.topic is Topic.USERS:
        profile = None if plain.value is None else to_profile(decode_user(plain))
        user_id = decode_key(plain)
        trigger = Trigger(TriggerKind.USER, user_id, record.time, record.time)
        return ProfileInput(record, source, user_id, profile, trigger, quiet, unchanged)
    refresh = decode_refresh(record)
    return RefreshInput(
        record, source, refresh.user_id, refresh, Trigger(TriggerKind.ITEM, refresh.item_id, refresh.at, refresh.at)
    )


def to_interaction(event: Event, source: Source) -> Interaction:
    """The event as history keeps it."""
    session = event.session_id if event.session_id is not None else event.session
    return Interaction(
        at=min(to_seconds(event.timestamp), source.time),
        partition=source.partition,
        offset=source.offset,
        type=event.type,
        item_id=event.item_id,
        value=event.value,
        query=event.query,
        price=event.price,
        session=None if session is None else str(session),
        context=event.context or {},
    )


def to_profile(user: User) -> Profile:
    """The user's own words as state keeps them."""
    return Profile(
        profile=user.profile or "",
        interests=user.interests or (),
        attributes=user.attributes or {},
        blocked_items=user.blocked_items or (),
        blocked_categories=user.blocked_categories or (),
    )


class ComputeError(Exception):
    """Decoding passed, but applying, embedding or ranking failed: some record of the batch is at fault."""


@contextmanager
def computing() -> Iterator[None]:
    """Turns any error of a computation into `ComputeError`; Coldstream's own errors pass."""
    try:
        yield
    except ColdstreamError:
        raise
    except Exception as error:
        raise ComputeError(f"{type(error).__name__}: {error}") from error


def decode_all(
    records: Sequence[Record], largest: Callable[[Topic], int], debezium: Mapping[Topic, Mapping[str, str]]
) -> tuple[list[ItemInput], list[UserInput], list[tuple[Record, PoisonError]]]:
    """Records as inputs for items and for users, each in order, and those that are none. `largest`: bytes by topic."""
    items: list[ItemInput] = []
    users: list[UserInput] = []
    dead: list[tuple[Record, PoisonError]] = []
    for record in records:
        try:
            entry = decode(record, largest(record.topic), debezium)
        except PoisonError as error:
            dead.append((record, error))
            continue
        if isinstance(entry, ItemInput):
            items.append(entry)
        else:
            users.append(entry)
    return items, users, dead


def bury(record: Record, error: PoisonError, failed_at: float) -> Message:
    """The dead letter of a record: its bytes untouched, why and where it came from in the headers. One log line."""
    log.warning("a record is refused: %s", error.reason, extra={"fields": {
        "topic": record.topic.value, "partition": record.partition, "offset": record.offset, **_ids_in(record),
    }})  # fmt: skip
    return Message(
        Topic.DEAD_LETTERS,
        record.key,
        record.value,
        (
            *record.headers,
            ("error", str(error)[:1000].encode("utf-8", "replace")),
            ("reason", error.reason.encode()),
            ("topic", record.topic.value.encode()),
            ("partition", str(record.partition).encode()),
            ("offset", str(record.offset).encode()),
            ("failed_at", to_rfc3339(failed_at).encode()),
        ),
    )


class _Ids(msgspec.Struct, omit_defaults=True):
    """What can be told of a record that was refused, if it is JSON at all."""

    event_id: str | None = None
    item_id: str | None = None
    recommendation_id: str | None = None


def _ids_in(record: Record) -> dict[str, object]:
    """The ids in a record that say which one it is: of event, item and list, never of a user."""
    try:
        found = msgspec.json.decode(record.value or b"", type=_Ids)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: value[:80] for name, value in msgspec.structs.asdict(found).items() if value is not None}
