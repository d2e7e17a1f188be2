"""The one buffer between the broker and the pipeline: bounded for each topic, in count and in bytes.

The batcher is adaptive without a timer: it takes whatever is waiting the moment the pipeline is free, so an idle system
adds no wait and a busy one batches by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from streams.values import Record, Topic

FIRST: Final = (Topic.USERS, Topic.EVENTS)
SHARED: Final = (Topic.REFRESHES, Topic.ITEMS)
"""Topics that wait behind events and users, each with a share of the batch so that they never starve."""
REFRESHES: Final = 16
"""Refreshes in a batch at most: each is a list to make, and whoever does something meanwhile waits for all of them."""
APART: Final = (Topic.SIGNALS, Topic.LESSONS)
"""Topics that are folded in memory: cheap, and taken whole."""


class Buffer:
    """Bounded queues by topic. One producer a topic (an agent), one consumer (the pipeline); all on one event loop."""

    def __init__(self, *, records: int, bytes_: int) -> None:
        self._records = records
        self._bytes = bytes_
        self._queues: dict[Topic, deque[Record]] = {topic: deque() for topic in (*FIRST, *SHARED, *APART)}
        self._sizes: dict[Topic, int] = dict.fromkeys(self._queues, 0)
        self._clearings = 0
        self._room = asyncio.Event()
        self._filled = asyncio.Event()
        self._room.set()

    async def put(self, record: Record) -> None:
        """Append; waits while the topic is full. A record above the limit passes alone."""
        topic, clearings = record.topic, self._clearings
        while self._is_full(topic, record.size_bytes):
            self._room.clear()
            await self._room.wait()
            if clearings != self._clearings:
                return
        self._queues[topic].append(record)
        self._sizes[topic] += record.size_bytes
        self._filled.set()

    def take(self, limit: int, share: float) -> list[Record]:
        """Up to `limit` records: users and events first, the others up to `share` of it each while those wait.

        Of refreshes never more than `REFRESHES`.
        The order within a partition is kept. Signals and lessons come on top, up to `limit` each.
        """
        waiting = sum(len(self._queues[topic]) for topic in FIRST)
        most = {Topic.REFRESHES: min(limit, REFRESHES), Topic.ITEMS: limit}
        reserved = {
            topic: min(len(self._queues[topic]), max(1, int(limit * share)), most[topic]) for topic in SHARED
        }  # fmt: skip
        taken: list[Record] = []
        room = max(limit - sum(reserved.values()), 1) if waiting else 0
        for topic in FIRST:
            taken += self._pop(topic, room - len(taken))
        for topic in SHARED:
            taken += self._pop(topic, reserved[topic])
        for topic in SHARED:
            taken += self._pop(topic, min(limit - len(taken), most[topic] - reserved[topic]))
        for topic in APART:
            taken += self._pop(topic, limit)
        if taken:
            self._room.set()
        if not any(self._queues.values()):
            self._filled.clear()
        return taken

    async def wait(self, timeout_seconds: float) -> None:
        """Until something is waiting, at most so long."""
        if not self._filled.is_set():
            try:
                await asyncio.wait_for(self._filled.wait(), timeout_seconds)
            except TimeoutError:
                return

    def wake(self) -> None:
        """End a wait early (a stop)."""
        self._filled.set()

    def clear(self) -> None:
        """Drop everything unacknowledged: the next owner of the partitions reads it again."""
        for topic, queue in self._queues.items():
            queue.clear()
            self._sizes[topic] = 0
        self._clearings += 1
        self._filled.clear()
        self._room.set()

    @property
    def waiting(self) -> int:
        """Records waiting, of all topics."""
        return sum(len(queue) for queue in self._queues.values())

    def depth(self, topic: Topic) -> int:
        """Records waiting."""
        return len(self._queues[topic])

    def _is_full(self, topic: Topic, size: int) -> bool:
        queue = self._queues[topic]
        return len(queue) >= self._records or (bool(queue) and self._sizes[topic] + size > self._bytes)

    def _pop(self, topic: Topic, count: int) -> list[Record]:
        queue = self._queues[topic]
        taken = [queue.popleft() for _ in range(min(max(count, 0), len(queue)))]
        self._sizes[topic] -= sum(record.size_bytes for record in taken)
        return taken
