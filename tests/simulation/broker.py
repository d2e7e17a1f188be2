"""A simulated Kafka: partitions, a consumer group that rebalances, commits; the outside world's producers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol
from zlib import crc32

from streams.values import Message, Record, Topic
from tests.simulation.oracle import Placed
from tests.simulation.story import Sent

CONSUMED: Final = (Topic.USERS, Topic.EVENTS, Topic.REFRESHES, Topic.ITEMS, Topic.SIGNALS, Topic.LESSONS)

Place = tuple[Topic, int]


class Member(Protocol):
    """What the group knows of a process."""

    name: str
    generation: int


class Broker:
    """Logs and committed offsets. Keeps everything."""

    def __init__(self, partitions: int, signals: int, script: Sequence[Sent]) -> None:
        self.partitions: dict[Topic, int] = dict.fromkeys(Topic, 1)
        self.partitions |= dict.fromkeys((Topic.USERS, Topic.EVENTS, Topic.REFRESHES, Topic.ITEMS), partitions)
        self.partitions[Topic.SIGNALS] = signals
        self.logs: dict[Place, list[Record]] = {
            (topic, number): [] for topic, count in self.partitions.items() for number in range(count)
        }
        self.committed: dict[Place, int] = dict.fromkeys(self.logs, 0)
        self.placed: list[Placed] = []
        self.script = deque(script)

    def arrive(self, now: float) -> list[Placed]:
        """Append what the world has sent by now, and return it."""
        known = len(self.placed)
        while self.script and self.script[0].time <= now:
            sent = self.script.popleft()
            offset = self._append(sent.topic, sent.partition, sent.time, sent.key, sent.value, sent.headers)
            self.placed.append(Placed(sent, offset))
        return self.placed[known:]

    def append(self, message: Message, now: float) -> Record:
        """Append what a worker sends."""
        topic = Topic(message.topic)
        partition = message.partition
        if partition is None:
            partition = crc32(message.key or b"") % self.partitions[topic]
        offset = self._append(topic, partition, now, message.key, message.value, message.headers)
        return self.logs[topic, partition][offset]

    def _append(
        self, topic: Topic, partition: int, time: float, key: bytes | None, value: bytes | None,
        headers: tuple[tuple[str, bytes], ...],
    ) -> int:  # fmt: skip
        log = self.logs[topic, partition]
        log.append(Record(topic, partition, len(log), time, key, value, headers))
        return len(log) - 1

    def places_of(self, numbers: frozenset[int]) -> list[Place]:
        """What the owner of these partition numbers consumes: equal numbers of all topics."""
        return [(topic, number) for topic in CONSUMED for number in range(self.partitions[topic]) if number in numbers]

    @property
    def lag(self) -> int:
        """Records that are not committed yet."""
        return sum(len(self.logs[place]) - self.committed[place] for place in self.logs if place[0] in CONSUMED)


class Group:
    """The consumer group: eager rebalances that deal all numbers out anew; a static member is replaced in its place."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.numbers = max(broker.partitions.values())
        self.members: list[Member] = []
        self.joined: set[str] = set()
        self.generation = 0
        self.moving = False
        self.assignment: dict[str, frozenset[int]] = {}

    def add(self, member: Member) -> None:
        """Somebody new wants in."""
        self.members.append(member)
        self.rebalance()

    def remove(self, member: Member) -> None:
        """Somebody left, or was expelled."""
        self.members.remove(member)
        self.joined.discard(member.name)
        self.rebalance()

    def replace(self, old: Member, new: Member) -> None:
        """A static member came back as another process: nobody else notices."""
        self.members[self.members.index(old)] = new
        new.generation = self.generation
        self.assignment[new.name] = self.assignment.pop(old.name, frozenset())
        if self.moving:
            new.generation = -1
            self.joined.discard(old.name)

    def rebalance(self) -> None:
        """Everybody has to join again."""
        self.moving = True
        self.joined.clear()

    def join(self, member: Member) -> None:
        """A member is ready; the last one ends the rebalance."""
        self.joined.add(member.name)
        if {one.name for one in self.members} <= self.joined:
            self.generation += 1
            self.moving = False
            self.joined.clear()
            order = sorted(one.name for one in self.members)
            dealt: dict[str, set[int]] = {name: set() for name in order}
            for number in range(self.numbers):
                dealt[order[(number + self.generation) % len(order)]].add(number)
            self.assignment = {name: frozenset(some) for name, some in dealt.items()}

    def commit(self, member: Member, place: Place, offset: int, *, forged: bool = False) -> bool:
        """Whether the broker took a commit. `forged`: a zombie's, which static membership takes for its successor's."""
        known = member in self.members and member.generation == self.generation and not self.moving
        if (known and place[1] in self.assignment.get(member.name, ())) or forged:
            self.broker.committed[place] = offset
            return True
        return False
