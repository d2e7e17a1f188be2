"""The ports of a simulated worker process. Every await is a `Stop`: a point where the scheduler decides what happens.

A coroutine that stops hands the scheduler a `Stop`; it is resumed, made to raise, left lying for
a while (SIGSTOP) or never resumed (kill -9).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from streams.index.exact import ExactIndex
from streams.ports import Collection, Hit, Match, Page, Point, Query, Write
from streams.values import Message, Record, Topic

T = TypeVar("T")

DIMENSION: Final = 8
POISON: Final = "unembeddable"
"""A text that holds this word makes the encoder raise."""


@dataclass(slots=True)
class Stop:
    """What a coroutine waits for."""

    kind: str
    """read, write, wrote, send, sent, sleep, encode or poll."""
    about: str = ""
    effect: Callable[[int | None], None] | None = None
    """What the call does to the world; with a number, only so many of its parts."""
    parts: int = 0


class _Pause:
    __slots__ = ("_stop",)

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def __await__(self) -> Generator[Stop, Any, Any]:
        return (yield self._stop)


async def pause(kind: str, about: str = "") -> None:
    """Stop here."""
    await _Pause(Stop(kind, about))


async def act(kind: str, about: str, effect: Callable[[int | None], None], parts: int) -> None:
    """Stop, have an effect, stop again: the scheduler may fail the call before, amid or after its effect."""
    await _Pause(Stop(kind, about, effect, parts))
    effect(None)
    await _Pause(Stop(f"{kind} done", about))


def drive(coroutine: Any) -> Any:
    """Run a coroutine that must not stop."""
    try:
        stop = coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError(f"stopped at {stop}")


class Time:
    """The world's time; moved by the scheduler only."""

    def __init__(self, now: float) -> None:
        self.now = now


class SimClock:
    """The port Clock of one process, whose wall clock may be wrong."""

    def __init__(self, time: Time, skew_seconds: float) -> None:
        self._time = time
        self.skew_seconds = skew_seconds
        self.slept_seconds = 0.0
        """What a sleep lasted beyond what passed for the others: who is expelled slept for a session at least."""

    def now(self) -> float:
        return self._time.now + self.skew_seconds

    def monotonic(self) -> float:
        return self._time.now + self.slept_seconds

    async def sleep(self, seconds: float) -> None:
        await pause("sleep", f"{seconds:.2f}")


class SimRandomness:
    """The port Randomness."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def token(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def integer(self) -> int:
        return self._random.getrandbits(63)


class SimIndex:
    """One process's connection to the index that all share."""

    name = "exact"
    behind = False

    def __init__(self, store: ExactIndex, written: Callable[[Collection, Point], None]) -> None:
        self._store = store
        self._written = written
        self.shared = store.shared
        self.unconditional = False
        """A planted bug: conditions are ignored."""

    async def open(self, dimension: int, encoder: str = "") -> None:
        drive(self._store.open(dimension, encoder))

    async def foreign(self, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None) -> Page:
        return Page((), None)

    async def succeed(self) -> None:
        return

    async def close(self) -> None:
        return

    async def read(self, collection: Collection, keys: Sequence[str], *, vectors: bool = False) -> list[Point | None]:
        found = drive(self._store.read(collection, keys, vectors=vectors))
        await pause("read", collection)
        return found  # type: ignore[no-any-return]

    async def write(self, collection: Collection, writes: Sequence[Write]) -> None:
        def apply(parts: int | None) -> None:
            for write in writes[:parts]:
                self._apply(collection, write)

        await act("write", collection, apply, len(writes))

    def _apply(self, collection: Collection, write: Write) -> None:
        points = self._store.points[collection]
        if self.unconditional:
            stored = points.get(write.point.key)
            write = Write(write.point, stored.version if stored else None)
        drive(self._store.write(collection, [write]))
        stands = points.get(write.point.key)
        if stands is not None and stands.write_id == write.point.write_id:
            self._written(collection, stands)

    async def search(self, collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
        found = drive(self._store.search(collection, queries))
        await pause("read", collection)
        return found  # type: ignore[no-any-return]

    async def find(self, collection: Collection, match: Match, limit: int) -> list[Hit]:
        found = drive(self._store.find(collection, match, limit))
        await pause("read", collection)
        return found  # type: ignore[no-any-return]

    async def scan(
        self, collection: Collection, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None,
        vectors: bool = False,
    ) -> Page:  # fmt: skip
        page = drive(self._store.scan(collection, cursor=cursor, limit=limit, match=match, vectors=vectors))
        await pause("read", collection)
        return page  # type: ignore[no-any-return]

    async def count(self, collection: Collection) -> int:
        return drive(self._store.count(collection))  # type: ignore[no-any-return]

    async def purge(self) -> None:
        return


class SimPublisher:
    """One process's producer. What is handed over arrives at once, or when it is waited for, by chance."""

    def __init__(self, append: Callable[[Message], None], partitions: Mapping[Topic, int], seed: int) -> None:
        self._append = append
        self._partitions = partitions
        self._chance = Random(seed)
        self._late: SimSending | None = None
        """Handed over, and not arrived."""

    async def hand_over(self, messages: Sequence[Message]) -> SimSending:
        if self._late is not None and self._chance.random() < 0.5:  # nobody has waited for it
            self._late.arrive(None)
        sending = self._late = SimSending(messages, self._append)
        if self._chance.random() < 0.5:
            await sending.arrive_now()
            self._late = None
        return sending

    async def send(self, messages: Sequence[Message]) -> None:
        await (await self.hand_over(messages))

    def die(self) -> None:
        """The process ends: of what is on its way, nothing arrives, or some, or all."""
        if self._late is not None and self._chance.random() < 0.5:
            self._late.arrive(self._chance.randint(0, len(self._late.messages)))
        self._late = None

    def partitions(self, topic: str) -> int:
        return self._partitions[Topic(topic)]


class SimSending:
    """What was handed over; awaited, it stops until the broker has it."""

    def __init__(self, messages: Sequence[Message], append: Callable[[Message], None]) -> None:
        self.messages = messages
        self._append = append
        self._about = ",".join(sorted({str(message.topic) for message in messages}))
        self._arrived = False

    def arrive(self, parts: int | None) -> None:
        """Reach the broker, or so many of its messages do."""
        if not self._arrived:
            self._arrived = True
            for message in self.messages[:parts]:
                self._append(message)

    async def arrive_now(self) -> None:
        """Stop, then arrive."""
        await _Pause(Stop("send", self._about, self.arrive, len(self.messages)))
        self.arrive(None)

    def __await__(self) -> Generator[Stop, Any, None]:
        if not self._arrived:
            yield from self.arrive_now().__await__()
        yield Stop("send done", self._about)


class SimOwnership:
    """The port Ownership over what the process's consumer knows; like the Kafka adapter it ignores what was revoked."""

    def __init__(self) -> None:
        self.noticed = False
        """Whether the consumer has noticed that partitions move."""
        self.pending: set[tuple[Topic, int, int]] = set()
        self.acknowledged: dict[tuple[Topic, int], set[int]] = {}
        self.read_ends: Callable[[], Mapping[tuple[str, int], int]] = dict
        self.on_acknowledge: Callable[[], None] = lambda: None

    def interrupted(self) -> str | None:
        return "rebalance" if self.noticed else None

    def acknowledge(self, records: Sequence[Record]) -> None:
        self.on_acknowledge()
        for record in records:
            key = (record.topic, record.partition, record.offset)
            if key in self.pending:
                self.pending.remove(key)
                self.acknowledged.setdefault((record.topic, record.partition), set()).add(record.offset)

    def ends(self) -> Mapping[tuple[str, int], int]:
        return self.read_ends()

    def lag(self) -> dict[tuple[Topic, int], int] | None:
        return None if self.noticed else {}


class SimEncoder:
    """A vector from a hash of the text: quick, deterministic, of unit norm."""

    name = "simulated"
    dimension = DIMENSION
    template = 1
    provider = "cpu"

    def __init__(self) -> None:
        self._known: dict[str, NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self._vector(text) for text in texts], np.float32).reshape(len(texts), DIMENSION)

    def _vector(self, text: str) -> NDArray[np.float32]:
        if POISON in text:
            raise ValueError("this text breaks the encoder")
        if text not in self._known:
            random = Random(crc32(text.encode()))
            row = np.array([random.gauss(0, 1) for _ in range(DIMENSION)], np.float32)
            self._known[text] = row / np.linalg.norm(row)
        return self._known[text]


async def offload(compute: Callable[[], T]) -> T:
    """The port Offload."""
    await pause("encode")
    return compute()
