"""Erasure as DELIVERY section 5 promises it: whatever arrives in whatever order, nothing comes back."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest

from streams.flow.users import REPEATS_SECONDS
from streams.index.edge import EdgeIndex
from streams.index.exact import ExactIndex
from streams.ports import Collection, Write
from streams.values import Message, Record, Topic
from tests.support.index import edge_directory, files_with
from tests.support.service import Service, ids

__all__ = ["edge_directory"]

SECRET = "collects antique hand saws in Ulm"


@pytest.fixture
async def service() -> Service:
    return await _opened(shared=False)


async def _opened(*, shared: bool) -> Service:
    service = await Service(index=ExactIndex(shared=shared)).open()
    await service.feed(*(service.log.item(f"saw{number}", f"hand saw number {number}") for number in range(3)))
    return service


def _tombstones(service: Service) -> list[bytes]:
    return [
        dict(message.headers)["version"]
        for message in service.publisher.sent
        if message.topic is Topic.RECOMMENDATIONS and message.value is None
    ]


def _stored(service: Service) -> str:
    return repr(service.index.points[Collection.USERS])


async def _what_is_older(service: Service, user: str = "ann", secret: str = SECRET) -> list[Record]:
    """Records of a user and the tombstone behind them, as the broker got them: the tombstone last, by its time."""
    records = [
        service.log.user(user, secret),
        service.log.event("e1", user, "search", None, query=f"saws from Ulm, {secret}"),
        service.log.event("e2", user, "purchase", "saw1", partition=1),
    ]
    service.clock.at += 10
    return [*records, service.log.record(Topic.USERS, user, None, partition=1)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=lambda order: "".join(map(str, order)))
@pytest.mark.parametrize("together", [True, False])
async def test_in_every_order_of_arrival_only_the_marker_is_left(
    service: Service, order: tuple[int, ...], *, together: bool
) -> None:
    records = await _what_is_older(service)
    batches = [[records[number] for number in order]] if together else [[records[number]] for number in order]
    for batch in batches:
        await service.feed(*batch)
    await service.feed(*(records[number] for number in order))  # and all of them redelivered
    state = await service.state("ann")
    assert state is not None
    assert state.is_marker
    assert (state.erased_at, state.recent_ids, state.list_ids) == (records[3].time, (), ())
    assert {number for places in state.applied.values() for number in places} == {0, 1}
    assert "ann" not in _stored(service).replace("'ann': Point(key='ann'", "")
    assert "Ulm" not in _stored(service)
    assert service.lists()[-1] is None
    dropped = sum(
        report.outcomes[topic, "after_erasure"] for report in service.reports for topic in ("events", "users")
    )
    assert dropped == len(order) - 1 - order.index(3)


async def test_no_file_of_the_index_knows_a_word_of_it_whatever_the_order(edge_directory: Path) -> None:
    service = await Service(index=EdgeIndex(edge_directory)).open()
    await service.feed(service.log.item("saw1", "hand saw of somebody"))
    mark = uuid.uuid4().hex  # in the name and in every word of each
    for order in itertools.permutations(range(4)):
        records = await _what_is_older(service, f"{mark}-{order}", f"collects saws in {mark}")
        for number in order:
            await service.feed(records[number])
    await service.index.purge()
    assert not files_with(edge_directory, mark.encode())
    service.clock.at += 1
    await service.feed(service.log.event("e9", f"{mark}-new", "click", "saw1"))
    assert files_with(edge_directory, mark.encode()), "what is there is found by the same search"
    await service.index.close()


async def test_a_later_event_starts_the_user_anew_and_versions_go_on(service: Service) -> None:
    await service.feed(*await _what_is_older(service))
    marker = await service.state("ann")
    service.clock.at += 1
    await service.feed(service.log.event("e1", "ann", "click", "saw0"))  # an id that was met before the erasure
    state = await service.state("ann")
    assert marker is not None
    assert state is not None
    assert [one.item_id for one in state.history] == ["saw0"]
    assert (state.version, state.erased_at, state.profile) == (marker.version + 1, marker.erased_at, None)
    assert "saw1" in ids(service.lists()[-1]), "the purchase is forgotten, and with it the exclusion"


async def test_a_refresh_never_starts_a_user(service: Service) -> None:
    await service.feed(*await _what_is_older(service))
    for user in ("ann", "nobody"):
        refresh = {"user_id": user, "item_id": "saw0", "at": service.clock.at}
        assert await service.feed(service.log.record(Topic.REFRESHES, user, refresh)) == []
    assert await service.state("nobody") is None


async def test_what_is_younger_than_the_tombstone_stays_and_the_old_is_purged_all_the_same(service: Service) -> None:
    records = await _what_is_older(service)
    await service.feed(*records[:3])
    service.clock.at += 1
    await service.feed(service.log.event("e3", "ann", "click", "saw0"))
    assert service.worker.upkeep.erased_at is None
    await service.feed(records[3])
    state = await service.state("ann")
    assert state is not None
    assert [one.item_id for one in state.history] == ["saw0"]
    assert "Ulm" not in _stored(service)
    assert service.worker.upkeep.erased_at == service.clock.at


async def test_caches_forget_too(service: Service) -> None:
    await service.feed(*await _what_is_older(service))
    texts = service.parts.texts
    assert not [text for text in texts._cache if "Ulm" in text]
    states, _ = await service.parts.users.load(["ann"])
    assert states["ann"] is not None
    assert states["ann"].is_marker


@pytest.mark.parametrize("shared", [False, True])
async def test_tombstones_are_repeated_after_a_minute_and_an_hour_and_then_nobody_knows_the_name(
    *, shared: bool
) -> None:
    service = await _opened(shared=shared)
    await service.feed(*await _what_is_older(service))
    begun = service.clock.at
    (first,) = _tombstones(service)
    (named,) = service.index.points[Collection.USERS].values()
    assert named.named is shared
    for seconds, repeated in ((REPEATS_SECONDS[0] - 1, 0), (REPEATS_SECONDS[0], 1), (REPEATS_SECONDS[1], 2)):
        service.clock.at = begun + seconds
        await service.worker.maintain()
        assert _tombstones(service) == [first] * (1 + repeated)
    (marker,) = service.index.points[Collection.USERS].values()
    assert not marker.named
    assert '"ann"' not in marker.body
    service.clock.at += 1
    await service.feed(service.log.event("e9", "ann", "click", "saw0"))  # by the name, the marker is found again
    state = await service.state("ann")
    assert state is not None
    assert (state.user_id, len(state.history), state.erased_at is not None) == ("ann", 1, True)
    assert len(service.index.points[Collection.USERS]) == 1


async def test_a_worker_that_starts_repeats_what_the_last_one_owed() -> None:
    service = await _opened(shared=True)
    await service.feed(*await _what_is_older(service))
    successor = await Service(index=service.index).open()
    successor.clock.at = service.clock.at + REPEATS_SECONDS[1] + 5
    await successor.worker.upkeep.recover()
    await successor.worker.maintain()
    assert _tombstones(successor) == _tombstones(service)
    assert not service.index.points[Collection.USERS]["ann"].named
    again = await Service(index=service.index).open()
    again.clock.at = successor.clock.at
    await again.worker.upkeep.recover()
    await again.worker.maintain()
    assert _tombstones(again) == []


async def test_a_repetition_never_overtakes_who_came_back(service: Service) -> None:
    await service.feed(*await _what_is_older(service))
    service.clock.at += 5
    await service.feed(service.log.event("e5", "ann", "click", "saw0"))
    service.clock.at += REPEATS_SECONDS[1]
    await service.worker.maintain()
    assert len(_tombstones(service)) == 1
    assert service.lists()[-1] is not None


async def test_a_tombstone_that_is_sent_late_has_the_list_of_who_came_back_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zombie = await _opened(shared=True)
    successor = Service(index=zombie.index, beside=zombie)
    await successor.open()
    records = await _what_is_older(zombie)
    await zombie.feed(*records[:3])
    hand_over = zombie.publisher.hand_over

    async def late(messages: list[Message]) -> Awaitable[None]:
        if any(message.value is None for message in messages):  # suspended before it sends, and woken up afterwards
            monkeypatch.setattr(zombie.publisher, "hand_over", hand_over)
            zombie.clock.at += 1
            await successor.feed(zombie.log.event("e9", "ann", "click", "saw0"))
            zombie.publisher.sent += successor.publisher.sent
        return await hand_over(messages)

    monkeypatch.setattr(zombie.publisher, "hand_over", late)
    await zombie.feed(records[3])
    versions = [int(dict(message.headers)["version"]) for message in zombie.publisher.sent
                if message.topic is Topic.RECOMMENDATIONS]  # fmt: skip
    assert versions[-3:] == [versions[-2] + 1, versions[-2], versions[-2] + 1], "the list, the late tombstone, the list"
    assert zombie.lists()[-2] is None
    assert (zombie.lists()[-1]["trigger"]["kind"], zombie.lists()[-1]["trigger"]["id"]) == ("user", "ann")


async def test_who_sent_nothing_has_nothing_to_send_late(monkeypatch: pytest.MonkeyPatch) -> None:
    zombie = await _opened(shared=True)
    successor = await Service(index=zombie.index, beside=zombie).open()
    records = await _what_is_older(zombie)
    await zombie.feed(records[3])
    read, write = zombie.index.read, zombie.index.write

    async def suspended(*arguments: Any, **others: Any) -> Any:
        monkeypatch.setattr(zombie.index, "read", read)
        found = await read(*arguments, **others)  # what it wrote, which still stands
        await successor.feed(records[3])
        return found

    async def writing(collection: Collection, writes: Sequence[Write]) -> None:
        await write(collection, writes)
        monkeypatch.setattr(zombie.index, "write", write)
        monkeypatch.setattr(zombie.index, "read", suspended)

    monkeypatch.setattr(zombie.index, "write", writing)
    before = len(zombie.publisher.sent)
    await zombie.feed(records[1])  # older than the erasure: dropped
    assert len(_tombstones(successor)) == 1
    assert zombie.publisher.sent[before:] == []
