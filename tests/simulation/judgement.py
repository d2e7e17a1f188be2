"""The world after a schedule, compared with the oracle point by point, and its lists by what always holds of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from streams.ports import Collection as Stored
from streams.values import Record, Topic, UserState
from streams.wire import Recommendation
from tests.simulation.lists import Lists, compare_dead
from tests.simulation.oracle import (
    EXCLUDING,
    Expectation,
    compare_items,
    compare_statistics,
    compare_users,
    expect,
)
from tests.simulation.ranking import digest
from tests.simulation.world import World

_STATE: Final = msgspec.json.Decoder(UserState)


def judge(world: World, *, quick: bool) -> list[str]:
    """What is wrong, a sentence each. `quick`: lists name the state that they were made of."""
    expected = _expect(world)
    points = world.store.points
    return [
        *compare_users(expected.users, points[Stored.USERS]),
        *compare_items(expected.items, points[Stored.ITEMS]),
        *compare_statistics(expected.statistics, points[Stored.STATISTICS]),
        *compare_dead(expected, _sent(world, Topic.DEAD_LETTERS)),
        *_judge_lists(world, expected, quick=quick),
    ]


def judge_last(world: World, since: float) -> list[str]:
    """Lists made when everything was known for long, from `since` on, hold nothing that may not be shown."""
    lists = Lists()
    for record in _sent(world, Topic.RECOMMENDATIONS):
        lists.hear(record)
    return lists.untimely(_expect(world).items, since)


def overlooked(world: World, users: list[str]) -> list[str]:
    """Of these users those of whom more was applied than `events` has: the topic was made anew, and nobody noticed."""
    ends = {place[1]: len(log) for place, log in world.broker.logs.items() if place[0] is Topic.EVENTS}
    found = []
    for user in users:
        point = world.store.points[Stored.USERS].get(user)
        applied = _STATE.decode(point.body).applied.get("events", {}) if point else {}
        if any(offset >= ends[number] for number, (offset, _) in applied.items()):
            found.append(f"nobody noticed that the topic was made anew under {user}: {applied}, {ends}")
    return found


def _expect(world: World) -> Expectation:
    return expect(world.broker.placed, world.knobs.history_size, world.knobs.exclusions_size)


def _sent(world: World, topic: Topic) -> Iterator[Record]:
    for place, log in world.broker.logs.items():
        if place[0] is topic:
            yield from log


def _judge_lists(world: World, expected: Expectation, *, quick: bool) -> list[str]:
    lists, wrong = Lists(), []
    for record in _sent(world, Topic.RECOMMENDATIONS):
        user, version, value = lists.hear(record)
        state = world.states.get((user, version))
        if state is None:
            wrong.append(f"a list of {user} carries version {version}, which never stood")
        elif state.is_marker != (value is None):
            wrong.append(f"version {version} of {user} has {'no ' if value is None else 'a '}list")
        elif value is not None:
            wrong += _judge_list(value, state, version)
    wrong += lists.wrong + lists.lost(expected.named)
    for user, want in expected.users.items():
        if user in world.excused or not want.loud:
            continue
        latest = lists.last_of(user, marker=want.marker)
        wrong += latest
        point = world.store.points[Stored.USERS].get(user)
        version, value = lists.last.get(user, (0, None))
        if quick and not latest and value is not None and point is not None:
            final = _STATE.decode(point.body)
            if value.ranker != digest(final):
                wrong.append(
                    f"the last list of {user} (version {version}) was made of another state than {final.version}"
                )
    return wrong


def _judge_list(value: Recommendation, state: UserState, version: int) -> list[str]:
    shown = {place.item_id for place in value.items}
    barred = {one.item_id for one in state.exclusions if one.type.value in EXCLUDING}
    if state.profile is not None:
        barred |= set(state.profile.blocked_items)
    wrong = []
    if barred & shown:
        wrong.append(f"list {version} of {value.user_id} holds what is excluded: {barred & shown}")
    if value.version != version:
        wrong.append(f"list {version} of {value.user_id} says version {value.version}")
    return wrong
