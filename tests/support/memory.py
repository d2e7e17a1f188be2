"""Ports in memory, for tests of the flow: everything that was sent and acknowledged can be looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from streams.errors import RetryableError
from streams.values import Message, Record, Topic

T = TypeVar("T")


@dataclass
class ManualClock:
    """A clock that moves when told, and when somebody sleeps."""

    at: float = 1_700_000_000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


@dataclass
class CountedRandomness:
    """Chance without surprise: ids and seeds count up."""

    count: int = 0

    def token(self) -> str:
        self.count += 1
        return f"{self.count:032x}"

    def integer(self) -> int:
        self.count += 1
        return self.count


class _Done:
    def __await__(self) -> Generator[None]:
        yield from ()


def done() -> Awaitable[None]:
    """What the broker has at once."""
    return _Done()


@dataclass
class MemoryPublisher:
    """Keeps what was handed over; fails as long as `failing` is set."""

    sent: list[Message] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    failing: RetryableError | None = None

    async def hand_over(self, messages: Sequence[Message]) -> Awaitable[None]:
        if self.failing is not None:
            raise self.failing
        self.sent += messages
        return done()

    async def send(self, messages: Sequence[Message]) -> None:
        await (await self.hand_over(messages))

    def partitions(self, topic: str) -> int:
        return self.counts.get(topic, 2)

    def values(self, topic: Topic) -> list[Any]:
        """Decoded values of a topic, in order; None for tombstones."""
        return [
            None if message.value is None else msgspec.json.decode(message.value)
            for message in self.sent
            if message.topic is topic
        ]


@dataclass
class MemoryOwnership:
    """Owns everything until told otherwise."""

    why: str | None = None
    done: list[Record] = field(default_factory=list)
    waiting: int = 0
    next_offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def interrupted(self) -> str | None:
        return self.why

    def acknowledge(self, records: Sequence[Record]) -> None:
        self.done += records

    def ends(self) -> Mapping[tuple[str, int], int]:
        return self.next_offsets

    def lag(self) -> Mapping[tuple[Topic, int], int] | None:
        return {(Topic.ITEMS, 0): self.waiting}


async def run_here(act: Callable[[], T]) -> T:
    """An `Offload` without a thread."""
    return act()


class Log:
    """Makes records as a broker would: offsets count up in each partition."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._next: dict[tuple[Topic, int], int] = {}

    def record(
        self, topic: Topic, key: str, value: Any, *, partition: int = 0, headers: Mapping[str, bytes] | None = None
    ) -> Record:
        """The next record of a partition; `value` bytes as they are, None a tombstone, anything else as JSON."""
        offset = self._next.get((topic, partition), 0)
        self._next[topic, partition] = offset + 1
        raw = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        return Record(topic, partition, offset, self._clock.now(), key.encode(), raw, tuple((headers or {}).items()))

    def item(self, item_id: str, title: str | None, *, partition: int = 0, **fields: Any) -> Record:
        headers = fields.pop("headers", None)
        value = None if title is None else {"item_id": item_id, "title": title, **fields}
        return self.record(Topic.ITEMS, item_id, value, partition=partition, headers=headers)

    def event(self, event_id: str, user_id: str, kind: str, item_id: str | None = None, **fields: Any) -> Record:
        headers = fields.pop("headers", None)
        partition = fields.pop("partition", 0)
        value = {"event_id": event_id, "user_id": user_id, "type": kind, "timestamp": self._clock.now(), **fields}
        if item_id is not None:
            value["item_id"] = item_id
        return self.record(Topic.EVENTS, user_id, value, partition=partition, headers=headers)

    def user(self, user_id: str, profile: str | None, **fields: Any) -> Record:
        headers = fields.pop("headers", None)
        value = None if profile is None else {"user_id": user_id, "profile": profile, **fields}
        return self.record(Topic.USERS, user_id, value, headers=headers)
