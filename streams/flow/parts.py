"""What a worker works with: the ports it touches, and its own parts in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streams.decide.arms import Arms
from streams.decide.history import Bounds
from streams.errors import AbandonedError
from streams.flow.catalogue import Catalogue
from streams.flow.fanout import FanOut, Headers
from streams.flow.learning import Learning
from streams.flow.quality import Quality
from streams.flow.signals import StatisticsOwner
from streams.flow.texts import TextVectors
from streams.flow.users import Users
from streams.ports import Clock, Index, Ownership, Publisher, Randomness
from streams.values import Record, Topic
from streams.wire import Recommendation

CONTEXT = ("traceparent", "tracestate")
"""Headers of a record's trace (W3C Trace Context)."""
REBALANCE = "rebalance"
"""Why `Ownership.interrupted` ends a batch; a stop lets it finish."""


Meanwhile = Callable[[], Awaitable[None]]
"""What is done while the broker is waited for."""


async def nothing() -> None:
    """Nothing is done meanwhile."""


@dataclass(frozen=True, slots=True)
class World:
    """The ports that a batch touches."""

    index: Index
    publisher: Publisher
    ownership: Ownership
    clock: Clock
    randomness: Randomness

    def guard(self, seconds: float) -> Callable[[], None]:
        """A look at whether a batch that begins now is still ours: raises `AbandonedError` in a rebalance, and where it is
        older than so many seconds. A stop finishes the batch in hand.
        """
        begun = self.clock.monotonic()

        def guard() -> None:
            if self.ownership.interrupted() == REBALANCE:
                raise AbandonedError(REBALANCE)
            if self.clock.monotonic() - begun > seconds:
                raise AbandonedError("age")

        return guard


@dataclass(frozen=True, slots=True)
class Parts:
    """What is in memory between two batches; none of it is the truth."""

    texts: TextVectors
    catalogue: Catalogue
    users: Users
    statistics: StatisticsOwner
    learning: Learning
    fan_out: FanOut
    quality: Quality


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say to the pipeline and its loop."""

    bounds: Bounds
    excluding: frozenset[str]
    """Event types that policy excludes items by."""
    record_bytes: int
    batch_age_seconds: float
    """A batch older than this may belong to somebody else by now: half the session timeout."""
    quiet_lag: int
    """More waiting item records than this: a first import, no fan-out."""
    batch_size: int
    items_share: float
    flush_seconds: float
    event_bytes: int = 65_536
    """The largest event that is applied."""
    debezium: Mapping[Topic, Mapping[str, str]] = field(default_factory=dict)
    """Topics that carry a database's change events, with the columns (by field) of other names than their fields."""
    flush_points: int = 32
    """Points of statistics that are written between two batches, so that none waits long."""

    def largest(self, topic: Topic) -> int:
        """Bytes of the largest record of a topic that is applied."""
        return min(self.record_bytes, self.event_bytes) if topic is Topic.EVENTS else self.record_bytes


def pass_on(records: Sequence[Record], _value: Recommendation) -> Headers:
    """The trace context of the records that a list answers: who reads the list goes on with the same trace."""
    return context_of(records)


def context_of(records: Sequence[Record]) -> Headers:
    """The trace context of the latest of the records that has one, as headers."""
    for record in reversed(records):
        context = tuple(header for header in record.headers if header[0] in CONTEXT)
        if context:
            return context
    return ()


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told of what, and whom to ask."""

    waiting_items: Callable[[], float]
    """Item records that are not acknowledged yet; infinite while unknown."""
    on_list: Callable[[Recommendation, float | None], None] = lambda _list, _seconds: None
    """Told of each list delivered, and how many seconds after the record that it answers (None: a repeated one)."""
    trace: Callable[[Sequence[Record], Recommendation], Headers] = pass_on
    """Told of each list before it is sent, and of the records that it answers; returns headers that go with it."""
    on_abandoned: Callable[[str], None] = lambda _why: None
    """Told why a batch was given up: rebalance, stop or age."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that pipeline and loop share."""

    world: World
    parts: Parts
    arms: Arms
    limits: Limits
    hooks: Hooks
