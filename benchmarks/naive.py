"""The naive way, for comparison: what a good engineer writes in an afternoon, one record at a time.

aiokafka, the teacher by sentence-transformers, a vector database. A Qdrant server isn't at hand where these benchmarks were
made, so that it uses Qdrant Edge, in process, which is faster than any server would be for it: the comparison flatters the
naive way. It keeps histories in a dict, has no popularity, no learning, no reasons, and loses what is in memory when it
ends; it commits after each record.

    python -m benchmarks.naive KAFKA PREFIX FOLDER      runs until it is stopped (the benchmarks start it)
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from export.teacher import DEFAULT_TEACHER, load_teacher
from streams.index.edge import EdgeIndex
from streams.ports import Collection, Match, Point, Query, Write

HISTORY = 20


class Naive:
    """Items into the index, events into lists."""

    def __init__(self, index: EdgeIndex) -> None:
        self._index = index
        self._teacher = load_teacher(DEFAULT_TEACHER)
        self._histories: dict[str, list[str]] = {}
        self.dimension = self._teacher.dimension

    async def item(self, value: dict[str, Any]) -> None:
        """Embed and store one item."""
        text = ". ".join([value["title"], *value.get("categories", ())])
        vector = self._teacher.encode([text])[0]
        (known,) = await self._index.read(Collection.ITEMS, [value["item_id"]])
        version = 1 if known is None else known.version + 1
        point = Point(value["item_id"], version, uuid.uuid4().hex, json.dumps(value), {"live": True}, vector)
        await self._index.write(Collection.ITEMS, [Write(point, None if known is None else known.version)])

    async def event(self, value: dict[str, Any]) -> dict[str, Any]:
        """One event into a list of ten."""
        history = self._histories.setdefault(value["user_id"], [])
        history.append(value["item_id"])
        del history[:-HISTORY]
        points = await self._index.read(Collection.ITEMS, history, vectors=True)
        vectors = [point.vector for point in points if point is not None and point.vector is not None]
        if not vectors:
            return {"user_id": value["user_id"], "trigger": {"id": value["event_id"]}, "conflated": [], "items": []}
        taste = np.mean(vectors, axis=0).astype(np.float32)
        query = Query(10 + len(history), vector=taste / np.linalg.norm(taste), match=Match(equals={"live": True}))
        (hits,) = await self._index.search(Collection.ITEMS, [query])
        best = [hit for hit in hits if hit.key not in history][:10]
        return {
            "user_id": value["user_id"], "trigger": {"id": value["event_id"]}, "conflated": [],
            "items": [{"item_id": hit.key, "score": hit.score} for hit in best],
        }  # fmt: skip


async def serve(kafka: str, prefix: str, folder: Path) -> None:
    """Consume items and events, one record at a time."""
    index = EdgeIndex(folder / "index")
    consumer = AIOKafkaConsumer(
        f"{prefix}items", f"{prefix}events", bootstrap_servers=kafka, group_id=f"{prefix}naive",
        auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    naive = Naive(index)
    await index.open(naive.dimension)
    await producer.start()
    await consumer.start()
    (folder / "ready").write_text(str(time.time()))
    async for message in consumer:
        value = json.loads(message.value or b"{}")
        if message.topic == f"{prefix}items":
            await naive.item(value)
        else:
            answer = json.dumps(await naive.event(value)).encode()
            await producer.send_and_wait(f"{prefix}recommendations", answer, key=value["user_id"].encode())
        await consumer.commit()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
