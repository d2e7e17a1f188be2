"""What events say about items, for all users (DELIVERY section 4).

Sent by the user's owner, folded by the item's owner: one message of a batch to each `signals` partition concerned. What
comes from one source partition comes in order and without gaps (the producer is idempotent), so that a point that keeps
the last offset of each source partition drops every repetition.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from typing import Final
from zlib import crc32

import msgspec

from streams.decide.statistics import ItemStatistics, Signal, fold
from streams.decide.table import Table
from streams.errors import PoisonError
from streams.flow.persist import persist
from streams.flow.users import SourcedSignals
from streams.ports import Clock, Collection, Index, Point, Randomness, Write
from streams.values import Message, Record, Topic


class SignalBatch(msgspec.Struct, frozen=True, array_like=True):
    """What the records of one source partition say, in order of offset. A value of the topic `signals` is a list of these."""

    source: int
    """Partition of `events`."""
    entries: tuple[tuple[int, tuple[Signal, ...]], ...]
    """(source offset, signals)."""


LARGEST_BYTES: Final = 524_288
"""Of a message: half of what a broker takes by default. The signals of one event are below it, whatever its ids."""

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(tuple[SignalBatch, ...])
_FORMER = msgspec.json.Decoder(SignalBatch)
_IS_FORMER = re.compile(rb"\s*\[\s*\d").match
"""Until November 2026 a value was of one source partition; such may lie on the topic when a worker is upgraded."""
_POINT = msgspec.json.Decoder(ItemStatistics)
_Entry = tuple[int, tuple[int, tuple[Signal, ...]]]  # source partition, (source offset, signals)


def partition_of(item_id: str, partitions: int) -> int:
    """The `signals` partition that owns an item's statistics: CRC32 of its id; sent explicitly, never by key."""
    return crc32(item_id.encode()) % partitions


def signal_messages(sourced: Sequence[SourcedSignals], partitions: int) -> list[Message]:
    """The messages of a batch: one to each partition of `signals`, or several where it grows too large."""
    grouped: dict[int, list[_Entry]] = {}
    for entry in sorted(sourced, key=lambda one: (one.partition, one.offset)):
        by_partition: dict[int, list[Signal]] = {}
        for signal in entry.signals:
            by_partition.setdefault(partition_of(signal.item_id, partitions), []).append(signal)
        for partition, signals in by_partition.items():
            grouped.setdefault(partition, []).append((entry.partition, (entry.offset, tuple(signals))))
    return [
        Message(Topic.SIGNALS, None, value, partition=partition)
        for partition, entries in grouped.items()
        for value in _values(entries)
    ]


def _values(entries: Sequence[_Entry]) -> Iterator[bytes]:
    """Values that no broker finds too large. An offset stays whole: of two parts of it the second would be a repetition."""
    by_source = groupby(entries, key=itemgetter(0))
    value = _ENCODER.encode([SignalBatch(source, tuple(one for _, one in some)) for source, some in by_source])
    if len(value) <= LARGEST_BYTES or len(entries) == 1:
        yield value
        return
    middle = len(entries) // 2
    yield from _values(entries[:middle])
    yield from _values(entries[middle:])


def decode_signals(record: Record) -> tuple[SignalBatch, ...]:
    """The value of a record of `signals`. Raises `PoisonError`."""
    value = record.value or b""
    try:
        return (_FORMER.decode(value),) if _IS_FORMER(value) else _DECODER.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError("schema", f"not a batch of signals: {error}") from error


@dataclass(slots=True)
class _Held:
    """A point in memory: what it says now, the version that the index has (None: absent), what it waits to write."""

    statistics: ItemStatistics
    version: int | None
    pending: list[tuple[int, int, Sequence[Signal]]]

    def fold(self, source: int, offset: int, signals: Sequence[Signal]) -> bool:
        """Whether the record was news to the point."""
        name = str(source)
        if offset <= self.statistics.applied.get(name, -1):
            return False
        fold(self.statistics, self.statistics.item_id, name, offset, signals)
        return True


@dataclass(slots=True)
class _Memory:
    """What an owner holds; a new one after each rebalance, even if a flush of the old one is still under way."""

    points: OrderedDict[str, _Held] = field(default_factory=OrderedDict)
    dirty: dict[str, None] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    """Folded, and done once the points are written."""
    turn: list[str] = field(default_factory=list)
    """What the flush that is under way has still to write, …"""
    turn_records: list[Record] = field(default_factory=list)
    """… and the records that are done then."""
    unsure: bool = False
    """Whether a flush failed half way: then nobody knows which writes of its last call took effect."""

    def refold(self, item_id: str, point: Point | None) -> bool:
        """Fold what waits into what was found; whether any of it was news."""
        pending = self.points[item_id].pending
        held = self.points[item_id] = _held(item_id, point)
        held.pending = pending
        news = [held.fold(source, offset, signals) for source, offset, signals in pending]
        return any(news)


class StatisticsOwner:
    """Folds signals in memory and flushes changed points; a record is done only after the flush that holds it."""

    def __init__(self, index: Index, clock: Clock, randomness: Randomness, capacity: int = 200_000) -> None:
        self._index = index
        self._clock = clock
        self._randomness = randomness
        self._capacity = capacity
        self._memory = _Memory()

    @property
    def waiting(self) -> bool:
        """Whether anything waits for a flush."""
        return bool(self._memory.records) or self.flushing

    @property
    def flushing(self) -> bool:
        """Whether a flush is under way that another call goes on with."""
        return bool(self._memory.turn or self._memory.turn_records)

    async def take(self, records: Sequence[tuple[Record, Sequence[SignalBatch]]], columns: Table) -> None:
        """Fold records, and let this worker's columns count along. Nothing is written yet.

        Columns count signals as they come: replacing an item's counts by its point for each signal costs ten times as
        much. A point that was just read replaces them, so that nothing is counted twice after a rebalance.
        """
        memory = self._memory
        batches = [batch for _, some in records for batch in some]
        named = {signal.item_id for batch in batches for _, some in batch.entries for signal in some}
        columns.absorb(await self._load(memory, named))
        news: dict[tuple[int, int], list[Signal]] = {}  # by event: its signals come in a record of each partition
        for batch in batches:
            for offset, signals in batch.entries:
                grouped: dict[str, list[Signal]] = {}
                for signal in signals:
                    grouped.setdefault(signal.item_id, []).append(signal)
                for item_id, some in grouped.items():
                    held = memory.points[item_id]
                    if held.fold(batch.source, offset, some):
                        held.pending.append((batch.source, offset, some))
                        memory.dirty[item_id] = None
                        news.setdefault((batch.source, offset), []).extend(some)
        memory.records += [record for record, _ in records]
        for signals_of_event in news.values():
            columns.observe(signals_of_event)

    def pass_over(self, records: Sequence[Record]) -> None:
        """Records that say nothing (dead letters): done after the flush of what came before them."""
        self._memory.records += records

    async def flush(self, guard: Callable[[], None], most: int | None = None) -> list[Record]:
        """Write what changed, `most` points a call; returns the records that are done, in the order in which they were taken.

        These are what was taken before the first of the calls that it takes; none before the last.
        """
        memory = self._memory
        if not self.flushing:
            memory.turn, memory.turn_records = list(memory.dirty), memory.records
            memory.dirty, memory.records = {}, []

        async def again(lost: Mapping[str, Point | None]) -> Sequence[Write]:
            news = [item_id for item_id, point in lost.items() if memory.refold(item_id, point)]
            return [self._to_write(memory.points[item_id]) for item_id in news]

        some = memory.turn[:most]
        if memory.unsure:
            found = await self._index.read(Collection.STATISTICS, some)
            writes = await again(dict(zip(some, found, strict=True)))
        else:
            writes = [self._to_write(memory.points[item_id]) for item_id in some]
        memory.unsure = True
        await persist(self._index, Collection.STATISTICS, writes, again, guard)
        memory.unsure = False
        for item_id in some:  # what was folded since the first call is written with the rest
            memory.points[item_id].pending.clear()
            memory.dirty.pop(item_id, None)
        del memory.turn[: len(some)]
        if memory.turn:
            return []
        done, memory.turn_records = memory.turn_records, []
        for item_id in list(islice(memory.points, max(0, len(memory.points) - self._capacity))):
            if item_id not in memory.dirty:
                del memory.points[item_id]
        return sorted(done, key=lambda record: (record.partition, record.offset))

    def drop(self) -> None:
        """Forget what is unflushed: the next owner reads it again. A flush under way ends with what it has."""
        self._memory = _Memory()

    async def _load(self, memory: _Memory, item_ids: set[str]) -> list[ItemStatistics]:
        """Read the points of these items that aren't held; returns them."""
        missing = sorted(item_ids - memory.points.keys())
        points = await self._index.read(Collection.STATISTICS, missing) if missing else []
        for item_id, point in zip(missing, points, strict=True):
            memory.points[item_id] = _held(item_id, point)
        for item_id in item_ids:
            memory.points.move_to_end(item_id)
        return [memory.points[item_id].statistics for item_id in missing]

    def _to_write(self, held: _Held) -> Write:
        item_id = held.statistics.item_id
        expected, held.version = held.version, (held.version or 0) + 1
        held.statistics.version, held.statistics.write_id = held.version, self._randomness.token()
        fields = {"updated_ms": int(self._clock.now() * 1000)}
        body = _ENCODER.encode(held.statistics).decode()
        return Write(Point(item_id, held.version, held.statistics.write_id, body, fields), expected)


def _held(item_id: str, point: Point | None) -> _Held:
    if point is None:
        return _Held(ItemStatistics(item_id), None, [])
    return _Held(_POINT.decode(point.body), point.version, [])


def statistics_from_point(point: Point | None) -> ItemStatistics | None:
    """The statistics in a point."""
    return None if point is None else _POINT.decode(point.body)
