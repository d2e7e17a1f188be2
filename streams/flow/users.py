"""What a batch does to its users: load, apply, and make the points to write. Lists are made in `recommend`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from streams.decide.history import (
    Bounds,
    Outcome,
    apply_event,
    apply_profile,
    apply_tombstone,
    is_applied,
    mark_applied,
)
from streams.decide.statistics import Signal, signals_of
from streams.flow.decoded import EventInput, ProfileInput, RefreshInput, UserInput
from streams.ports import Collection, Index, Point
from streams.values import Ranking, Topic, Trigger, UserState, Vector
from streams.wire import Recommendation

REPEATS_SECONDS: Final = (60.0, 3600.0)
"""A tombstone is repeated so long after an erasure: a zombie may have written a list after it."""

_DECODER = msgspec.json.Decoder(UserState)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class SourcedSignals:
    """The signals of one event, with the record they came from."""

    partition: int
    offset: int
    signals: Sequence[Signal]


@dataclass(slots=True)
class UserWork:
    """One user of a batch: what was read, what came of it, what is to be sent."""

    user_id: str
    inputs: list[UserInput]
    found: UserState | None = None
    """As read; None where the user was unknown."""
    met: UserState = field(init=False)
    """The state before the batch: as read, or a new one."""
    state: UserState = field(init=False)
    outcomes: list[tuple[Topic, Outcome]] = field(default_factory=list)
    triggers: list[Trigger] = field(default_factory=list)
    """What the list answers, in order; redelivered ones too, quiet and duplicate ones not."""
    fresh: list[Trigger] = field(default_factory=list)
    """Those of `triggers` that were not answered before."""
    signals: list[SourcedSignals] = field(default_factory=list)
    chosen: list[tuple[UserState, EventInput]] = field(default_factory=list)
    """Each new event with the state before it: what lessons are made of."""
    emits_tombstone: bool = False
    refreshed_only: bool = True
    """Nothing but refreshes: no list is sent unless it changed."""
    ranking: Ranking | None = None
    sent: Recommendation | None = None
    """The list as it was sent."""
    last_ids: tuple[str, ...] = ()
    """Item ids of the list before this batch."""
    taste: Vector | None = None
    floor: float = 0.0
    """Dense score that an item must pass to enter the list: what the reverse fan-out asks."""

    def apply(self, found: UserState | None, bounds: Bounds, excluding: frozenset[str]) -> None:
        """Apply all records, in order, to what was found; done again by whoever loses a write.

        Raises `TopicRemadeError`.
        """
        self.found = found
        self.met = self.state = found or UserState(self.user_id)
        self.last_ids, self.ranking = self.state.list_ids, None
        self.outcomes, self.triggers, self.fresh = [], [], []
        self.signals, self.chosen = [], []
        self.emits_tombstone, self.refreshed_only = False, True
        for entry in self.inputs:
            if isinstance(entry, EventInput):
                _apply_event(self, entry, bounds, excluding)
            elif isinstance(entry, ProfileInput):
                _apply_profile(self, entry)
            else:
                _apply_refresh(self, entry)

    @property
    def wants_list(self) -> bool:
        """Whether a list is to be made."""
        return bool(self.triggers) and not self.state.is_marker

    @property
    def came(self) -> frozenset[str]:
        """New items that fit the user, where nothing else asks for a list."""
        refreshes = [entry.refresh for entry in self.inputs if isinstance(entry, RefreshInput)]
        arrived = (refresh.item_id for refresh in refreshes if refresh.kind == "arrived")
        return frozenset(arrived) if self.refreshed_only else frozenset()

    @property
    def sends_list(self) -> bool:
        """Whether the list made goes out: always for what the user did, for a refresh only where the list changed."""
        return self.ranking is not None and (not self.refreshed_only or self.ranking.item_ids != self.last_ids)

    @property
    def erases(self) -> bool:
        """Whether something of the user was removed for good."""
        return (Topic.USERS, Outcome.ERASED) in self.outcomes

    @property
    def changed(self) -> bool:
        """Whether the state differs from what was read."""
        return self.state is not self.met


def _apply_event(work: UserWork, entry: EventInput, bounds: Bounds, excluding: frozenset[str]) -> None:
    before = work.state
    work.state, outcome = apply_event(before, entry.event_id, entry.interaction, entry.source, bounds, excluding)
    work.outcomes.append((Topic.EVENTS, outcome))
    work.refreshed_only = False
    if outcome is Outcome.NEW:
        work.signals.append(
            SourcedSignals(entry.source.partition, entry.source.offset, signals_of(before, entry.interaction))
        )
        work.chosen.append((before, entry))
    _trigger(work, entry, outcome, quiet=entry.quiet)


def _apply_profile(work: UserWork, entry: ProfileInput) -> None:
    if entry.profile is None:
        work.state, outcome = apply_tombstone(work.state, entry.source)
        work.emits_tombstone = True  # repeated for a redelivery too: it says what the state now says
    else:
        work.state, outcome = apply_profile(work.state, entry.profile, entry.source, entry.unchanged)
    work.outcomes.append((Topic.USERS, outcome))
    work.refreshed_only = False
    _trigger(work, entry, outcome, quiet=entry.quiet and entry.profile is not None)  # a tombstone is never silenced


def _apply_refresh(work: UserWork, entry: RefreshInput) -> None:
    """A refresh never starts a user: for a marker or somebody unknown it is dropped."""
    if work.state.is_marker or (work.found is None and work.state.version == 0 and not work.state.applied):
        return
    repeated = is_applied(work.state.applied, Topic.REFRESHES, entry.source)
    outcome = Outcome.REDELIVERY if repeated else Outcome.NEW
    work.outcomes.append((Topic.REFRESHES, outcome))
    _trigger(work, entry, outcome, quiet=False)


def _trigger(work: UserWork, entry: UserInput, outcome: Outcome, *, quiet: bool) -> None:
    if outcome is Outcome.REDELIVERY and work.state.is_marker:
        work.emits_tombstone = True
    if quiet or outcome not in {Outcome.NEW, Outcome.REDELIVERY, Outcome.ERASED, Outcome.STALE}:
        return
    work.triggers.append(entry.trigger)
    if outcome is Outcome.NEW:
        work.fresh.append(entry.trigger)


def mark_refreshes(work: UserWork) -> UserState:
    """The state with the offsets of the batch's refreshes applied (written only beside a list)."""
    applied = work.state.applied
    for entry in work.inputs:
        if isinstance(entry, RefreshInput) and not is_applied(applied, Topic.REFRESHES, entry.source):
            applied = mark_applied(applied, Topic.REFRESHES, entry.source)
    return work.state if applied is work.state.applied else msgspec.structs.replace(work.state, applied=applied)


def keeps_name(state: UserState, now: float, *, shared: bool) -> bool:
    """Whether the user's id is stored in clear. An erased one's is not, but where zombies are possible (a shared index)
    and whoever starts must still know whose tombstones are to be repeated.
    """
    last = REPEATS_SECONDS[-1]
    return not state.is_marker or (shared and state.erased_at is not None and now < state.erased_at + last)


def to_point(work: UserWork, state: UserState, *, named: bool) -> Point:
    """The user's point: one JSON string, and the few fields that are filtered on; see `keeps_name`."""
    fields: dict[str, str | int | float | bool | tuple[str, ...]] = {
        "marker": state.is_marker,
        "list_ids": state.list_ids,
        "floor": work.floor,
    }
    if state.home is not None:
        fields["home"] = state.home
    if state.is_marker and state.erased_at is not None:
        fields["erased_at"] = state.erased_at
    vector = None if state.is_marker else work.taste
    body = _ENCODER.encode(state if named else msgspec.structs.replace(state, user_id="")).decode()
    return Point(work.user_id, state.version, state.write_id, body, fields, vector, named=named)


def from_point(point: Point | None, user_id: str) -> UserState | None:
    """The state in the point of this user."""
    if point is None:
        return None
    state = _DECODER.decode(point.body)
    return state if state.user_id else msgspec.structs.replace(state, user_id=user_id)


class Users:
    """Users by id: a cache (least recently used goes) in front of the index. One owner a user, so it rarely lies;
    where it does, the conditional write finds out.
    """

    def __init__(self, index: Index, capacity: int) -> None:
        self._index = index
        self._capacity = capacity
        self._cache: OrderedDict[str, UserState] = OrderedDict()

    async def load(self, user_ids: Sequence[str]) -> tuple[Mapping[str, UserState | None], int]:
        """The states of users (None: unknown), and how many of them came from the cache."""
        missing = [user_id for user_id in user_ids if user_id not in self._cache]
        states: dict[str, UserState | None] = {user_id: self._cache.get(user_id) for user_id in user_ids}
        if missing:
            points = await self._index.read(Collection.USERS, missing)
            states.update({user_id: from_point(point, user_id) for user_id, point in zip(missing, points, strict=True)})
        return states, len(user_ids) - len(missing)

    def keep(self, states: Iterable[UserState]) -> None:
        """Remember what was written."""
        for state in states:
            self._cache[state.user_id] = state
            self._cache.move_to_end(state.user_id)
        while len(self._cache) > self._capacity:
            self._cache.popitem(last=False)

    def forget(self, user_ids: Iterable[str] | None = None) -> None:
        """Drop users from the cache; all of them without ids."""
        if user_ids is None:
            self._cache.clear()
            return
        for user_id in user_ids:
            self._cache.pop(user_id, None)
