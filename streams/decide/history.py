"""How records change a user's state. Pure and, but for the bounds, independent of the order of arrival.

Every function takes a state and returns (state, outcome); `applied` in the state tells a redelivery from a new record
(DELIVERY section 1), the recent ids tell a duplicate. Nothing here makes vectors or lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from streams.errors import TopicRemadeError
from streams.values import (
    Applied,
    Exclusion,
    Interaction,
    Profile,
    RecentId,
    Source,
    Topic,
    UserState,
)


class Outcome(StrEnum):
    """What a record was to the state it met."""

    NEW = "new"
    REDELIVERY = "redelivery"  # at or below an applied offset: no change, but its list is made and sent again
    DUPLICATE = "duplicate"  # a new offset with a known event_id: no effect at all
    AFTER_ERASURE = "after_erasure"  # older than the user's erasure: dropped
    STALE = "stale"  # an older profile that arrives after a newer one
    ERASED = "erased"  # a tombstone


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a user is kept."""

    history: int
    recent_ids: int
    exclusions: int


def apply_event(
    state: UserState,
    event_id: str,
    interaction: Interaction,
    source: Source,
    bounds: Bounds,
    excluding: frozenset[str],
) -> tuple[UserState, Outcome]:
    """One event. `excluding`: the event types that policy excludes items by (for however long)."""
    if is_applied(state.applied, Topic.EVENTS, source):
        return state, Outcome.REDELIVERY
    applied = mark_applied(state.applied, Topic.EVENTS, source)
    if state.erased_at is not None and interaction.at <= state.erased_at:
        return msgspec.structs.replace(state, applied=applied), Outcome.AFTER_ERASURE
    if any(recent.event_id == event_id for recent in state.recent_ids):
        return msgspec.structs.replace(state, applied=applied), Outcome.DUPLICATE
    exclusions = state.exclusions
    if interaction.item_id is not None and interaction.type.value in excluding:
        exclusions = _exclude(exclusions, Exclusion(interaction.at, interaction.item_id, interaction.type), bounds)
    return (
        msgspec.structs.replace(
            state,
            applied=applied,
            history=_insert(state.history, interaction)[-bounds.history :],
            exclusions=exclusions,
            recent_ids=(*state.recent_ids, RecentId(event_id, interaction.at))[-bounds.recent_ids :],
        ),
        Outcome.NEW,
    )


def apply_profile(
    state: UserState, profile: Profile, source: Source, unchanged: frozenset[str] = frozenset()
) -> tuple[UserState, Outcome]:
    """One value of the topic `users`: it replaces the last whole, unless a newer profile or erasure is known.

    `unchanged` names the fields that keep what is stored (a change stream's columns that were not sent).
    """
    if is_applied(state.applied, Topic.USERS, source):
        return state, Outcome.REDELIVERY
    applied = mark_applied(state.applied, Topic.USERS, source)
    if not source.replaces(state.erased_source):
        return msgspec.structs.replace(state, applied=applied), Outcome.AFTER_ERASURE
    if not source.replaces(state.profile_source):
        return msgspec.structs.replace(state, applied=applied), Outcome.STALE
    if unchanged and state.profile is not None:
        kept = {name: getattr(state.profile, name) for name in unchanged & set(Profile.__struct_fields__)}
        profile = msgspec.structs.replace(profile, **kept)
    return msgspec.structs.replace(state, applied=applied, profile=profile, profile_source=source), Outcome.NEW


def apply_tombstone(state: UserState, source: Source) -> tuple[UserState, Outcome]:
    """A null value of the topic `users`: what the user was up to the tombstone's time is removed, a marker stays.

    What is younger than the tombstone (it may have arrived before it) is kept.
    """
    if is_applied(state.applied, Topic.USERS, source):
        return state, Outcome.REDELIVERY
    erased_at = source.time if state.erased_at is None else max(state.erased_at, source.time)
    erased_source = source if source.replaces(state.erased_source) else state.erased_source
    keeps_profile = state.profile_source is not None and state.profile_source.replaces(erased_source)
    return (
        UserState(
            user_id=state.user_id,
            applied=mark_applied(state.applied, Topic.USERS, source),
            history=tuple(entry for entry in state.history if entry.at > erased_at),
            exclusions=tuple(entry for entry in state.exclusions if entry.at > erased_at),
            recent_ids=tuple(recent for recent in state.recent_ids if recent.at > erased_at),
            profile=state.profile if keeps_profile else None,
            profile_source=state.profile_source if keeps_profile else None,
            erased_at=erased_at,
            erased_source=erased_source,
            version=state.version,
            write_id=state.write_id,
        ),
        Outcome.ERASED,
    )


def is_applied(applied: Applied, topic: Topic, source: Source) -> bool:
    """Whether this record is already in the state.

    Raises `TopicRemadeError` where another record (another time) has the offset that was applied last.
    """
    last = applied.get(topic.value, {}).get(source.partition)
    if last is None or source.offset > last[0]:
        return False
    if source.offset == last[0] and source.time != last[1]:
        raise TopicRemadeError(
            f"topic {topic.value}, partition {source.partition}: offset {source.offset} is another record than the one "
            f"that was applied. The topic was made anew: use a new COLDSTREAM_TOPIC_PREFIX or an empty index"
        )
    return True


def mark_applied(applied: Applied, topic: Topic, source: Source) -> Applied:
    """`applied` with this record as the last of its partition."""
    partitions = {**applied.get(topic.value, {}), source.partition: (source.offset, source.time)}
    return {**applied, topic.value: partitions}


def check_not_remade(applied: Applied, ends: Mapping[tuple[str, int], int]) -> None:
    """Raise `TopicRemadeError` where a partition ends below what a state has applied of it.

    `ends` are the next offsets by (topic, partition), of the partitions that are known; no other is looked at. (A record
    at exactly the applied offset is compared by its time, in `is_applied`.)
    """
    for topic, partitions in applied.items():
        for partition, (offset, _) in partitions.items():
            end = ends.get((topic, partition))
            if end is not None and end <= offset:
                raise TopicRemadeError(
                    f"topic {topic}, partition {partition} ends at {end}, but offset {offset} was applied. The topic was "
                    f"made anew: use a new COLDSTREAM_TOPIC_PREFIX or an empty index"
                )


def _insert(history: tuple[Interaction, ...], interaction: Interaction) -> tuple[Interaction, ...]:
    at = len(history)
    while at and history[at - 1].order > interaction.order:
        at -= 1
    return (*history[:at], interaction, *history[at:])


def _exclude(exclusions: tuple[Exclusion, ...], new: Exclusion, bounds: Bounds) -> tuple[Exclusion, ...]:
    """The newest of each (item, type), oldest first, at most the bound."""
    same = next((old for old in exclusions if (old.item_id, old.type) == (new.item_id, new.type)), None)
    if same is not None and same.at >= new.at:
        return exclusions
    rest = [old for old in exclusions if old is not same]
    rest.append(new)
    rest.sort(key=lambda entry: (entry.at, entry.item_id, entry.type))
    return tuple(rest[-bounds.exclusions :])
