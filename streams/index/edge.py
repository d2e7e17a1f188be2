"""The embedded index: Qdrant Edge in this process, one shard for each collection."""

from __future__ import annotations

import asyncio
import logging
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
SCAN_PAGE: Final = 100
"""Points read at a time without letting others run: 1 ms, with vectors 10 ms."""
UNINDEXED_POINTS: Final = 50_000
"""From so many on, and a tenth of all, points without a graph are worth a rebuild: a search takes 25 ms for them."""

log = logging.getLogger(__name__)


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
        self._unindexed = dict.fromkeys(Collection, 0)
        self._fresh: dict[Collection, set[str]] = {collection: set() for collection in Collection}
        self._turn = asyncio.Lock()
        self._rebuild: asyncio.Task[None] | None = None
        self._growth: asyncio.Task[None] | None = None

    async def open(self, dimension: int) -> None:
        """See the port. Raises `ConfigurationError` too when another process uses the directory, or it is not ours."""
        self._directory.take(dimension)
        self._dimension = dimension
        try:
            self._directory.check_room()
            for collection in Collection:
                self._directory.sweep(collection)
                shard = Shard(collection, self._directory.current(collection), dimension)
                self._shards[collection] = shard
                self._unindexed[collection] = shard.unindexed()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See the port. A rebuild that is under way is given up."""
        running = [task for task in (self._rebuild, self._growth) if task is not None]
        if self._rebuild is not None:
            self._rebuild.cancel()
        if running:
            await asyncio.wait(running)
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
        self._fresh[collection].update(point_id(write.point.key) for write in writes if write.point.vector is not None)
        self._look_at_growth(collection)

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
        await self._rebuild_in_turn((Collection.USERS, Collection.ITEMS, Collection.STATISTICS))  # people's data first

    def _look_at_growth(self, collection: Collection) -> None:
        unindexed = self._unindexed[collection] + len(self._fresh[collection])
        if unindexed < UNINDEXED_POINTS or (self._growth is not None and not self._growth.done()):
            return
        if unindexed * 10 > self._shard(collection).count():
            self._growth = asyncio.create_task(self._index_grown(collection))

    async def _index_grown(self, collection: Collection) -> None:
        try:
            await self._rebuild_in_turn((collection,))
        except IndexUnavailableError as error:
            log.warning("%s are searched without a graph for now: %s", collection, error)
            self._unindexed[collection], self._fresh[collection] = 0, set()  # tried again after as many more

    async def _rebuild_in_turn(self, collections: Sequence[Collection]) -> None:
        async with self._turn:
            self._rebuild = asyncio.create_task(self._rebuild_all(collections))
            try:
                await self._rebuild
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise IndexUnavailableError("the embedded index was closed in the middle of its rebuild") from None
            finally:
                self._rebuild = None

    async def _rebuild_all(self, collections: Sequence[Collection]) -> None:
        for collection in collections:
            try:
                await self._rebuild_one(collection)
            finally:
                self._touched.pop(collection, None)
                await _run_to_end(partial(self._directory.sweep, collection))

    async def _rebuild_one(self, collection: Collection) -> None:
        """DELIVERY section 8: copy, build anew beside, replay what was touched meanwhile, exchange."""
        old, target = self._shard(collection), self._directory.following(collection)
        if not old.count():
            return  # nothing was ever written: the port deletes no point
        copy = target.with_name("copy")
        self._directory.check_room(2 * size_bytes(old.path))
        async with self._writing[collection]:
            old.flush()
            await _run_to_end(partial(copy_tree, old.path, copy))
            count = old.count()
            touched = self._touched[collection] = set()
            self._unindexed[collection], self._fresh[collection] = 0, set()
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
