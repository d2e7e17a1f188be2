"""Statistics are flushed a few points at a time: nothing is done before it is written, nothing is lost or counted twice."""

from __future__ import annotations

import msgspec
import pytest

from streams.decide.statistics import ItemStatistics, Signal
from streams.decide.table import Table
from streams.errors import IndexUnavailableError, PoisonError
from streams.flow.signals import (
    SignalBatch,
    StatisticsOwner,
    decode_signals,
    partition_of,
    signal_messages,
    statistics_from_point,
)
from streams.flow.users import SourcedSignals
from streams.index.exact import ExactIndex
from streams.ports import Collection
from streams.values import Record, Topic
from tests.support.memory import CountedRandomness, ManualClock

ITEMS = tuple(f"i{number}" for number in range(5))


def taken(offset: int, *item_ids: str) -> tuple[Record, tuple[SignalBatch]]:
    signals = tuple(Signal(item_id, 100.0 + offset, positive=True) for item_id in item_ids)
    return Record(Topic.SIGNALS, 0, offset, 0.0, None, b""), (SignalBatch(0, ((offset, signals),)),)


def test_signals_of_a_batch_are_one_message_to_each_partition() -> None:
    """Whatever partitions its events lie on; in each, what comes of one source partition stands in order."""
    signal = {item_id: Signal(item_id, 100.0, positive=True) for item_id in ITEMS}
    sourced = [
        SourcedSignals(1, 7, [signal["i0"], signal["i1"]]), SourcedSignals(0, 9, [signal["i2"]]),
        SourcedSignals(1, 3, [signal["i3"], signal["i4"]]),
    ]  # fmt: skip
    messages = signal_messages(sourced, 2)
    assert sorted(message.partition or 0 for message in messages) == [0, 1]
    found = {}
    for message in messages:
        batches = decode_signals(Record(Topic.SIGNALS, message.partition or 0, 0, 0.0, None, message.value))
        for batch in batches:
            assert [offset for offset, _ in batch.entries] == sorted(offset for offset, _ in batch.entries)
            for offset, some in batch.entries:
                assert all(partition_of(one.item_id, 2) == message.partition for one in some)
                found.update({one.item_id: (batch.source, offset) for one in some})
    assert found == {"i0": (1, 7), "i1": (1, 7), "i2": (0, 9), "i3": (1, 3), "i4": (1, 3)}


def test_a_message_of_the_former_release_is_read_too() -> None:
    batch = taken(4, "i0")[1][0]
    assert decode_signals(Record(Topic.SIGNALS, 0, 0, 0.0, b"0", msgspec.json.encode(batch))) == (batch,)


@pytest.mark.parametrize("value", [None, b"", b"[", b"[1]", b"[[1]]", b"{}", b"[1,[[]]]", b"nonsense"])
def test_a_value_that_is_none_is_refused(value: bytes | None) -> None:
    with pytest.raises(PoisonError):
        decode_signals(Record(Topic.SIGNALS, 0, 0, 0.0, None, value))


def nobody() -> None:
    """No guard."""


@pytest.fixture
async def index() -> ExactIndex:
    made = ExactIndex()
    await made.open(4, "e")
    return made


@pytest.fixture
def owner(index: ExactIndex) -> StatisticsOwner:
    return StatisticsOwner(index, ManualClock(), CountedRandomness())


async def stored(index: ExactIndex) -> dict[str, int]:
    points = (await index.scan(Collection.STATISTICS)).points
    found: list[ItemStatistics] = [one for point in points if (one := statistics_from_point(point)) is not None]
    return {one.item_id: one.events for one in found}


async def test_a_record_is_done_when_the_last_of_its_points_is_written(
    index: ExactIndex, owner: StatisticsOwner
) -> None:
    await owner.take([taken(0, *ITEMS)], Table(4))
    for number in range(4):
        assert await owner.flush(nobody, 1) == []
        assert len(await stored(index)) == number + 1
    assert [record.offset for record in await owner.flush(nobody, 1)] == [0]
    assert not owner.waiting
    assert await stored(index) == dict.fromkeys(ITEMS, 1)


async def test_what_comes_meanwhile_is_done_with_the_next_flush(index: ExactIndex, owner: StatisticsOwner) -> None:
    await owner.take([taken(0, *ITEMS)], Table(4))
    assert await owner.flush(nobody, 2) == []
    await owner.take([taken(1, "i0", "i4")], Table(4))  # i0 was written already, i4 is still to be
    assert [record.offset for record in await owner.flush(nobody, 9)] == [0]
    assert await stored(index) == {"i0": 1, "i1": 1, "i2": 1, "i3": 1, "i4": 2}
    assert owner.waiting
    assert [record.offset for record in await owner.flush(nobody, 9)] == [1]
    assert await stored(index) == {"i0": 2, "i1": 1, "i2": 1, "i3": 1, "i4": 2}


async def test_who_comes_after_a_death_between_two_points_counts_nothing_twice(
    index: ExactIndex, owner: StatisticsOwner
) -> None:
    await owner.take([taken(0, *ITEMS), taken(1, "i0", "i4")], Table(4))
    assert await owner.flush(nobody, 2) == []
    heir = StatisticsOwner(index, ManualClock(), CountedRandomness())
    await heir.take([taken(0, *ITEMS), taken(1, "i0", "i4")], Table(4))
    assert [record.offset for record in await heir.flush(nobody)] == [0, 1]
    assert await stored(index) == {"i0": 2, "i1": 1, "i2": 1, "i3": 1, "i4": 2}


async def test_a_write_that_failed_half_way_is_looked_at_before_it_is_written_again(
    index: ExactIndex, owner: StatisticsOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = index.write

    async def fails(collection: Collection, writes: object) -> None:
        await write(collection, list(writes)[:1])  # type: ignore[call-overload]
        raise IndexUnavailableError("away")

    await owner.take([taken(0, *ITEMS)], Table(4))
    assert await owner.flush(nobody, 2) == []
    monkeypatch.setattr(index, "write", fails)
    with pytest.raises(IndexUnavailableError):
        await owner.flush(nobody, 2)
    monkeypatch.setattr(index, "write", write)
    await owner.take([taken(1, "i2", "i3")], Table(4))
    assert [record.offset for record in [*await owner.flush(nobody, 2), *await owner.flush(nobody, 2)]] == [0]
    await owner.flush(nobody)
    assert await stored(index) == {"i0": 1, "i1": 1, "i2": 2, "i3": 2, "i4": 1}


async def test_no_point_that_waits_is_forgotten_for_room(index: ExactIndex) -> None:
    owner = StatisticsOwner(index, ManualClock(), CountedRandomness(), capacity=1)
    await owner.take([taken(0, "i0", "i1")], Table(4))
    assert await owner.flush(nobody, 1) == []
    await owner.take([taken(1, "i0")], Table(4))
    await owner.flush(nobody, 1)
    await owner.flush(nobody)
    assert await stored(index) == {"i0": 2, "i1": 1}
