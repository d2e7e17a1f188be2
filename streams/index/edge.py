"""The embedded index: Qdrant Edge in this process, one shard for each collection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from streams.errors import IndexUnavailableError
from streams.index.directory import Directory, copy_tree, size_bytes
from streams.index.rebuild import build_shard
from streams.index.shard import Shard
from streams.index.stored import check_fields, check_match, point_id
from streams.ports import Collection, Hit, Match, Page, Point, Query, Write

FREE_BYTES: Final = 256 * 1024 * 1024
"""Writes are refused below this much free disk: Edge maps its files, and a mapped page that finds no room kills us."""
SCAN_PAGE: Final = 250
"""Points read at a time without letting others run (about 5 ms)."""


class EdgeIndex:
    """The port Index over Qdrant Edge. One process, one event loop."""

    name = "edge"
    shared = False

    def __init__(self, directory: Path, *, free_bytes: int = FREE_BYTES) -> None:
        self._directory = Directory(directory, free_bytes=free_bytes)
        self._dimension = 0
        self._shards: dict[Collection, Shard] = {}
        self._writing = {collection: asyncio.Lock() for collection in Collection}
        self._touched: dict[Collection, set[str]] = {}
        self._purging = asyncio.Lock()
        self._purge: asyncio.Task[None] | None = None

    async def open(self, dimension: int) -> None:
        """See the port. Raises `ConfigurationError` too when another process uses the directory, or it is not ours."""
        self._directory.take(dimension)
        self._dimension = dimension
        try:
            self._directory.check_room()
            for collection in Collection:
                self._directory.sweep(collection)
                self._shards[collection] = Shard(collection, self._directory.current(collection), dimension)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See the port. A rebuild that is under way is given up."""
        if self._purge is not None:
            self._purge.cancel()
            await asyncio.wait([self._purge])
        while self._shards:
            self._shards.popitem()[1].close()
        self._directory.release()

    async def read(self, collection: Collection, keys: Sequence[str], *, vectors: bool = False) -> list[Point | None]:
        """See the port."""
        ids = [point_id(key) for key in keys]
        found = self._shard(collection).read(list(dict.fromkeys(ids)), vectors=vectors) if ids else {}
        return [found.get(identity) for identity in ids]

    async def write(self, collection: Collection, writes: Sequence[Write]) -> None:
        """See the port."""
        for write in writes:
            check_fields(collection, write.point.fields)
        async with self._writing[collection]:
            self._directory.check_room()
            if collection in self._touched:
                self._touched[collection].update(point_id(write.point.key) for write in writes)
            self._shard(collection).apply(writes)

    async def search(self, collection: Collection, queries: Sequence[Query]) -> list[list[Hit]]:
        """See the port. Others run between two queries."""
        results = []
        for query in queries:
            check_match(collection, query.match)
            results.append(self._shard(collection).search(query))
            await asyncio.sleep(0)
        return results

    async def find(self, collection: Collection, match: Match, limit: int) -> list[Hit]:
        """See the port."""
        check_match(collection, match)
        return self._shard(collection).find(match, limit)

    async def scan(
        self, collection: Collection, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None,
        vectors: bool = False,
    ) -> Page:  # fmt: skip
        """See the port. Others run between two handfuls of points."""
        check_match(collection, match or Match())
        points: list[Point] = []
        while len(points) < limit:
            page, cursor = self._shard(collection).scan(
                cursor, min(SCAN_PAGE, limit - len(points)), match, vectors=vectors
            )
            points.extend(page.values())
            if cursor is None:
                break
            await asyncio.sleep(0)
        return Page(tuple(points), cursor)

    async def count(self, collection: Collection) -> int:
        """See the port."""
        return self._shard(collection).count()

    async def purge(self) -> None:
        """See the port. Rebuilds every shard; writes wait while a shard is copied and while it is exchanged."""
        async with self._purging:
            self._purge = asyncio.create_task(self._rebuild_all())
            try:
                await self._purge
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise IndexUnavailableError("the embedded index was closed in the middle of its rebuild") from None
            finally:
                self._purge = None

    async def _rebuild_all(self) -> None:
        for collection in Collection:
            try:
                await self._rebuild(collection)
            finally:
                self._touched.pop(collection, None)
                await _run_to_end(partial(self._directory.sweep, collection))

    async def _rebuild(self, collection: Collection) -> None:
        """DELIVERY section 8: copy, build anew beside, replay what was touched meanwhile, exchange."""
        old, target = self._shard(collection), self._directory.following(collection)
        copy = target.with_name("copy")
        self._directory.check_room(2 * size_bytes(old.path))
        async with self._writing[collection]:
            old.flush()
            await _run_to_end(partial(copy_tree, old.path, copy))
            count = old.count()
            touched = self._touched[collection] = set()
        await build_shard(copy, target, collection, self._dimension)
        new = Shard(collection, target, self._dimension)
        try:
            _check_complete(new, count)
            while len(touched) > SCAN_PAGE:
                _replay(old, new, [touched.pop() for _ in range(SCAN_PAGE)])
                await asyncio.sleep(0)
            async with self._writing[collection]:
                _replay(old, new, list(touched))
                new.flush()
                self._directory.switch(target, collection)
                self._shards[collection] = new
        except BaseException:
            new.close()
            raise
        old.close()

    def _shard(self, collection: Collection) -> Shard:
        shard = self._shards.get(collection)
        if shard is None:
            raise IndexUnavailableError("the embedded index is not open")
        return shard


def _check_complete(new: Shard, count: int) -> None:
    """An incomplete copy opens as a smaller shard, without an error: never exchange for that."""
    if new.count() != count:
        raise IndexUnavailableError(
            f"rebuilding {new.collection} brought {new.count()} of {count} points: kept the old"
        )


def _replay(old: Shard, new: Shard, ids: Sequence[str]) -> None:
    """Bring points to the state that `old` has now."""
    points = old.read(ids, vectors=True)
    new.store(points)
    new.delete(identity for identity in ids if identity not in points)


async def _run_to_end(work: Callable[[], None]) -> None:
    """Run in a thread. Cancelled, wait for its end first: a thread cannot be stopped, and nobody may meet its files."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
