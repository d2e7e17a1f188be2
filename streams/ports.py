"""The ports: what the flow needs of the world. Adapters implement them; the flow and the simulator know nothing else.

Lifecycle of every port: made once by the composition root, opened before the first use, never called after `close`.
All calls come from one event loop. A call that is cancelled may or may not have had its effect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from streams.values import Message, Record, Topic, Vector

T = TypeVar("T")

FieldValue = str | int | float | bool | tuple[str, ...]


class Collection(StrEnum):
    """What the index holds; a prefix is put before these names at the edge only."""

    ITEMS = "items"
    USERS = "users"
    STATISTICS = "statistics"


@dataclass(frozen=True, slots=True)
class Terms:
    """A sparse vector: distinct term ids (uint32) and their weights, same length."""

    ids: NDArray[np.uint32]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """One record of a collection.

    `body` is the record as one JSON string (nested payload costs ten times as much). `fields` are the few values that
    are filtered on. `vector` is absent (None) for records that no dense search may return: markers, users without taste.
    """

    key: str
    version: int
    write_id: str
    body: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    vector: Vector | None = None
    terms: Terms | None = None
    named: bool = True
    """Whether the key is stored in clear. Where it is not, the point is found by its key only, and what is read of it has
    an empty one: of somebody who was erased, nothing but the point's id is left."""


@dataclass(frozen=True, slots=True)
class Write:
    """A conditional write: takes effect only if the stored version is `expected` (None: only if the key is absent).

    It never creates a point where `expected` is a version, and never replaces one where it is None.
    """

    point: Point
    expected: int | None


@dataclass(frozen=True, slots=True)
class Match:
    """A condition on fields, all of which must hold: equality, or membership for a list field; `below` means field < value."""

    equals: Mapping[str, str | int | bool] = field(default_factory=dict)
    below: Mapping[str, float] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """One search: by dense vector (dot product), or by terms (sparse dot product); exactly one of the two."""

    limit: int
    vector: Vector | None = None
    terms: Terms | None = None
    match: Match = field(default_factory=Match)


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search: best first, ties in any order. `fields` as written, without body and vectors."""

    key: str
    score: float
    fields: Mapping[str, FieldValue]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a scan; `cursor` None on the last one."""

    points: tuple[Point, ...]
    cursor: str | None


@runtime_checkable
class Index(Protocol):
    """Durable records with versions, and nearest neighbours among them.

    Every call raises `IndexUnavailableError` when the index is away, full or overloaded; then a write may or may not
    have taken effect (its write id tells). A key's point id is UUIDv5 of the key, so the same write twice is one.
    """

    name: str
    """edge, qdrant or exact: a metric's label."""
    shared: bool
    """Whether other processes may write too: then what was written is read back, and lists are checked once more."""

    @property
    def behind(self) -> bool:
        """Whether the items of this encoder are yet to be made from those of another (`foreign`, then `succeed`).

        Until then `items` may be read and written, and nothing else.
        """

    async def open(self, dimension: int, encoder: str = "") -> None:
        """Make what is missing (collections, payload indexes) for vectors of this dimension, made by this encoder.

        Items and tastes are kept apart by encoder: one sees those of one's own only. Without a name, whatever is there.
        Raises `ConfigurationError` where there are vectors of another dimension, or the server is too old.
        """

    async def close(self) -> None:
        """Flush and release. Idempotent."""

    async def read(self, collection: Collection, keys: Sequence[str], *, vectors: bool = False) -> list[Point | None]:
        """The points of these keys, in order; None where there is none. Sees every write that returned before."""

    async def write(self, collection: Collection, writes: Sequence[Write]) -> None:
        """Apply, in order, each write whose condition holds at that moment; skip the others without an error.

        Durable when it returns. The caller reads back and compares write ids to learn what won.
        """

    async def search(self, collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
        """The nearest points of each query, at most `limit`, dot product descending; points without a vector never."""

    async def find(self, collection: Collection, match: Match, limit: int) -> list[Hit]:
        """Points that match, at most `limit`, in any order; score 0."""

    async def scan(
        self,
        collection: Collection,
        *,
        cursor: str | None = None,
        limit: int = 1000,
        match: Match | None = None,
        vectors: bool = False,
    ) -> Page:
        """All points page by page, each exactly once where nothing is written meanwhile."""

    async def foreign(self, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None) -> Page:
        """As `scan`, without vectors: the items that are kept for other encoders; an item may come once for each."""

    async def succeed(self) -> None:
        """Make this encoder's items the ones that count: whoever asks by the name alone finds them. At once or not at all."""

    async def count(self, collection: Collection) -> int:
        """How many points there are, markers included."""

    async def purge(self) -> None:
        """Make sure that what was overwritten or deleted before this call is in no file any more.

        A server does this by its own optimisers (returns at once); Edge rebuilds its shard. Other calls go on meanwhile.
        """


@runtime_checkable
class Encoder(Protocol):
    """Texts in, unit vectors out. Synchronous and CPU- or GPU-bound: the flow calls it through `Offload`, one call at a time."""

    name: str
    """Model and short hash: named in every list that its vectors made."""
    dimension: int
    template: int
    """Version of the item-text template the model was proved with."""
    provider: str
    """cpu or cuda."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape [len(texts), dimension], rows of unit norm. Never fails for any str; the empty text has a vector too."""


@runtime_checkable
class Publisher(Protocol):
    """Sends to the broker. Idempotent, acks=all: of two messages to one partition the first is never lost alone."""

    async def hand_over(self, messages: Sequence[Message]) -> Awaitable[None]:
        """Send all, in order for each partition; what is returned ends when the broker has all of them.

        Waits first for what was handed over before. Either wait raises `BrokerUnavailableError` when any was not taken
        (others may have been), `PoisonError("size", …)` never: an oversized message is the caller's defect and raises
        `FatalError`.
        """

    async def send(self, messages: Sequence[Message]) -> None:
        """Hand over, and wait until the broker has all of them."""

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic (logical name). Known after start; refreshed by the adapter."""


class Clock(Protocol):
    """Time."""

    def now(self) -> float:
        """Wall clock, seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back and goes on during SIGSTOP."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Randomness(Protocol):
    """Chance."""

    def token(self) -> str:
        """A fresh unique id (write ids, recommendation ids): 32 hex digits."""

    def integer(self) -> int:
        """A seed: uniform in [0, 2**63)."""


class Ownership(Protocol):
    """Whether the batch in hand is still ours. Asked before each step that others would see."""

    def interrupted(self) -> str | None:
        """None, or why a batch must be abandoned: rebalance, stop."""

    def acknowledge(self, records: Sequence[Record]) -> None:
        """These records are done; called in offset order for each partition, each record once."""

    def ends(self) -> Mapping[tuple[str, int], int]:
        """The next offset of each owned partition, by (topic, partition), as far as it is known. Never too low."""

    def lag(self) -> Mapping[tuple[Topic, int], int] | None:
        """Records not acknowledged yet, of each (topic, partition) owned; None while that is not known."""


Offload = Callable[[Callable[[], T]], Awaitable[T]]
"""Runs a synchronous function off the event loop (one thread, so one at a time) and awaits its result."""


class Intake(Protocol):
    """What the broker's side needs of the flow: where it hands records in. Implemented by `flow.worker.Worker`."""

    async def put(self, record: Record) -> None:
        """Hand in one record, in offset order for each partition; waits while that topic's buffer is full.

        A record that waits when `revoked` is called is dropped: its partition is read again from what is acknowledged.
        """

    async def revoked(self) -> None:
        """Partitions are being taken away: empties the buffer, waits at most 3 s for the batch in hand, drops caches."""

    async def assigned(self, partitions: Mapping[str, frozenset[int]]) -> None:
        """The partitions owned from now on, by logical topic."""
