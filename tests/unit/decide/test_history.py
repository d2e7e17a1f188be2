"""How records change a user's state, whatever order they arrive in."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.decide.history import Bounds, Outcome, apply_event, apply_profile, apply_tombstone, check_not_remade
from streams.errors import TopicRemadeError
from streams.values import EventType, Interaction, Profile, Source, UserState

BOUNDS = Bounds(history=3, recent_ids=8, exclusions=4)
EXCLUDING = frozenset({"purchase"})


def an_event(
    state: UserState, event_id: str, at: float, offset: int, *, item: str = "i", partition: int = 0,
    kind: EventType = EventType.VIEW, record_time: float | None = None,
) -> tuple[UserState, Outcome]:  # fmt: skip
    source = Source(partition, offset, at if record_time is None else record_time)
    interaction = Interaction(min(at, source.time), partition, offset, kind, item)
    return apply_event(state, event_id, interaction, source, BOUNDS, EXCLUDING)


def test_a_redelivery_changes_nothing_and_a_duplicate_only_the_offset() -> None:
    state, outcome = an_event(UserState("u"), "e1", 10, 0)
    assert outcome is Outcome.NEW
    again, outcome = an_event(state, "e1", 10, 0)
    assert outcome is Outcome.REDELIVERY
    assert again is state
    twice, outcome = an_event(state, "e1", 10, 1)
    assert outcome is Outcome.DUPLICATE
    assert twice.history == state.history
    assert twice.applied["events"][0] == (1, 10)


def test_history_keeps_the_newest_by_event_time() -> None:
    state = UserState("u")
    for offset, at in enumerate((5.0, 1.0, 4.0, 2.0, 3.0)):
        state, _ = an_event(state, f"e{offset}", at, offset, item=f"i{at:.0f}", record_time=100)
    assert [entry.item_id for entry in state.history] == ["i3", "i4", "i5"]


@pytest.mark.parametrize("places", [((0, 5), (1, 3), (1, 4)), ((1, 3), (0, 5), (1, 4)), ((1, 3), (1, 4), (0, 5))])
def test_events_of_one_moment_are_ordered_by_partition_and_offset(places: tuple[tuple[int, int], ...]) -> None:
    state = UserState("u")
    for partition, offset in places:
        name = f"{partition}:{offset}"
        state, _ = an_event(state, name, 7.0, offset, partition=partition, item=name, record_time=100)
    assert [entry.item_id for entry in state.history] == ["0:5", "1:3", "1:4"]


def test_exclusions_outlast_history_and_keep_the_newest_of_a_type() -> None:
    state, _ = an_event(UserState("u"), "p", 1, 0, item="bought", kind=EventType.PURCHASE)
    for offset in range(1, 6):
        state, _ = an_event(state, f"e{offset}", 10 + offset, offset)
    assert all(entry.item_id != "bought" for entry in state.history)
    assert [(entry.item_id, entry.at) for entry in state.exclusions] == [("bought", 1)]
    state, _ = an_event(state, "q", 50, 6, item="bought", kind=EventType.PURCHASE)
    assert [(entry.item_id, entry.at) for entry in state.exclusions] == [("bought", 50)]


def test_a_topic_made_anew_is_noticed() -> None:
    state, _ = an_event(UserState("u"), "e1", 10, 4)
    with pytest.raises(TopicRemadeError, match="made anew"):
        an_event(state, "x", 11, 4)


def test_a_topic_that_ends_below_what_was_applied_was_made_anew() -> None:
    applied = {"events": {0: (41, 1.0), 3: (7, 1.0)}}
    check_not_remade(applied, {("events", 0): 42, ("events", 3): 100, ("users", 0): 0})
    check_not_remade(applied, {})
    with pytest.raises(TopicRemadeError, match=r"events, partition 0 ends at 41.*offset 41"):
        check_not_remade(applied, {("events", 0): 41})


def test_an_erasure_leaves_a_marker_and_a_later_event_starts_anew() -> None:
    state, _ = an_event(UserState("u"), "e1", 10, 0, kind=EventType.PURCHASE)
    state, _ = apply_profile(state, Profile("likes tea"), Source(0, 0, 11))
    state, outcome = apply_tombstone(state, Source(0, 1, 20))
    assert outcome is Outcome.ERASED
    assert state.is_marker
    assert "tea" not in msgspec.json.encode(state).decode()
    state, outcome = an_event(state, "late", 15, 1, record_time=30)
    assert outcome is Outcome.AFTER_ERASURE
    assert state.is_marker
    state, outcome = an_event(state, "new", 31, 2)
    assert outcome is Outcome.NEW
    assert not state.is_marker
    assert state.erased_at == 20


def test_a_profile_sent_right_after_a_tombstone_survives_within_the_same_millisecond() -> None:
    state, _ = apply_tombstone(UserState("u"), Source(0, 1, 20))
    state, outcome = apply_profile(state, Profile("back again"), Source(0, 2, 20))
    assert outcome is Outcome.NEW
    assert state.profile == Profile("back again")


@given(st.permutations(range(6)))
def test_the_order_of_arrival_of_events_and_erasure_makes_no_difference(order: list[int]) -> None:
    """Events on a partition each, so that any interleaving is one that a broker could deliver."""

    def play(steps: list[int]) -> UserState:
        state = UserState("u")
        for step in steps:
            if step == 5:
                state, _ = apply_tombstone(state, Source(0, 0, 12))
            else:
                at = 10.0 + step
                state, _ = an_event(state, f"e{step}", at, 0, partition=step, item=f"i{step}", kind=EventType.PURCHASE)
        return state

    shuffled, straight = play(order), play(list(range(6)))
    assert shuffled.history == straight.history
    assert shuffled.exclusions == straight.exclusions
    assert set(shuffled.recent_ids) == set(straight.recent_ids)
    assert shuffled.erased_at == straight.erased_at


def test_across_partitions_the_record_time_decides_which_profile_is_newer() -> None:
    old, new = (Profile("old"), Source(0, 7, 5)), (Profile("new"), Source(1, 0, 6))
    for first, second in itertools.permutations((old, new)):
        state, _ = apply_profile(UserState("u"), *first)
        state, _ = apply_profile(state, *second)
        assert state.profile == Profile("new")
