"""The embedded index: Qdrant Edge in this process, one shard for each collection."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from streams.errors import IndexUnavailableError
from streams.index.directory import Directory, copy_tree, size_bytes, sync_tree
from streams.index.rebuild import SCAN_PAGE, build_shard, check_complete, copy_points, maker_in, replay, run_to_end
from streams.index.shard import Shard
from streams.index.stored import check_fields, check_match, point_id
from streams.ports import Collection, Hit, Match, Page, Point, Query, Write

FREE_BYTES: Final = 256 * 1024 * 1024
"""Writes are refused below this much free disk: Edge maps its files, and a mapped page that finds no room kills us."""
SEARCHED: Final = (Collection.USERS,)  # by vector: lists are made from columns, nobody would ask a graph of items
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
        self._old: dict[Collection, Shard] = {}
        """Those of the encoder that is left, while its items are encoded anew."""
        self._heir: Directory | None = None
        self._writing = {collection: asyncio.Lock() for collection in Collection}
        self._touched: dict[Collection, set[str]] = {}
        self._unindexed = dict.fromkeys(Collection, 0)
        self._fresh: dict[Collection, set[str]] = {collection: set() for collection in Collection}
        self._turn = asyncio.Lock()
        self._rebuild: asyncio.Task[None] | None = None
        self._growth: asyncio.Task[None] | None = None

    @property
    def behind(self) -> bool:
        """See the port."""
        return self._heir is not None

    async def open(self, dimension: int, encoder: str = "") -> None:
        """See the port. Raises `ConfigurationError` too when another process uses the directory, or it is not ours."""
        self._directory.take()
        self._dimension = dimension
        try:
            self._directory.check_room()
            if (layout := self._directory.layout) is None:
                self._directory.settle(dimension, encoder)
            elif encoder and maker_in(self._directory) not in ("", encoder):
                return self._open_beside(layout.dimension, encoder)
            else:
                self._directory.check_dimension(dimension)
                if encoder and not layout.encoder:
                    self._directory.settle(dimension, encoder, layout.home)
            self._directory.prune()
            for collection in Collection:
                self._open_shard(self._directory, collection)
        except BaseException:
            await self.close()
            raise

    def _open_shard(self, directory: Directory, collection: Collection) -> Shard:
        directory.sweep(collection)
        shard = self._shards[collection] = Shard(collection, directory.current(collection), self._dimension)
        self._unindexed[collection] = shard.unindexed()
        return shard

    def _open_beside(self, dimension: int, encoder: str) -> None:
        self._heir = heir = self._directory.heir(encoder)
        self._directory.prune(heir.root)
        for collection in Collection:
            self._old[collection] = Shard(collection, self._directory.current(collection), dimension)
        self._open_shard(heir, Collection.ITEMS)

    async def succeed(self) -> None:
        """See the port. Users and statistics are copied, without tastes; until the new layout stands all is as it was."""
        if (heir := self._heir) is None or heir.layout is None:
            return
        for collection in (Collection.USERS, Collection.STATISTICS):
            shutil.rmtree(heir.root / collection, ignore_errors=True)
            await copy_points(self._old[collection], self._open_shard(heir, collection))
        for shard in self._shards.values():
            shard.flush()
        await run_to_end(partial(sync_tree, heir.root))
        self._directory.settle(self._dimension, heir.layout.encoder, heir.layout.home)
        self._heir = None
        while self._old:
            self._old.popitem()[1].close()
        await run_to_end(self._directory.prune)

    async def close(self) -> None:
        """See the port. A rebuild that is under way is given up."""
        running = [task for task in (self._rebuild, self._growth) if task is not None]
        if self._rebuild is not None:
            self._rebuild.cancel()
        if running:
            await asyncio.wait(running)
        for shards in (self._shards, self._old):
            while shards:
                shards.popitem()[1].close()
        self._heir = None
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
        if collection in SEARCHED:
            self._look_at_growth(collection, writes)

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

    async def foreign(self, *, cursor: str | None = None, limit: int = 1000, match: Match | None = None) -> Page:
        """See the port."""
        if self._heir is None:
            return Page((), None)
        points, cursor = self._old[Collection.ITEMS].scan(cursor, limit, match, vectors=False)
        return Page(tuple(points.values()), cursor)

    async def count(self, collection: Collection) -> int:
        """See the port."""
        return self._shard(collection).count()

    async def purge(self) -> None:
        """See the port. Rebuilds every shard; writes wait while a shard is copied and while it is exchanged."""
        await self._rebuild_in_turn((Collection.USERS, Collection.ITEMS, Collection.STATISTICS))  # people's data first

    def _look_at_growth(self, collection: Collection, writes: Sequence[Write]) -> None:
        self._fresh[collection].update(point_id(write.point.key) for write in writes if write.point.vector is not None)
        unindexed = self._unindexed[collection] + len(self._fresh[collection])
        busy = self.behind or (self._growth is not None and not self._growth.done())
        if not busy and unindexed >= UNINDEXED_POINTS and unindexed * 10 > self._shard(collection).count():
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
                await run_to_end(partial(self._directory.sweep, collection))

    async def _rebuild_one(self, collection: Collection) -> None:
        """DELIVERY section 8: copy, build anew beside, replay what was touched meanwhile, exchange."""
        old, target = self._shard(collection), self._directory.following(collection)
        if not old.count():
            return  # nothing was ever written: the port deletes no point
        copy = target.with_name("copy")
        self._directory.check_room(2 * size_bytes(old.path))
        async with self._writing[collection]:
            old.flush()
            await run_to_end(partial(copy_tree, old.path, copy))
            count = old.count()
            touched = self._touched[collection] = set()
            self._unindexed[collection], self._fresh[collection] = 0, set()
        await build_shard(copy, target, collection, self._dimension)
        new = Shard(collection, target, self._dimension)
        try:
            check_complete(new, count)
            while len(touched) > SCAN_PAGE:
                replay(old, new, [touched.pop() for _ in range(SCAN_PAGE)])
                await asyncio.sleep(0)
            async with self._writing[collection]:
                replay(old, new, list(touched))
                new.flush()
                self._directory.switch(target, collection)
                self._shards[collection] = new
        except BaseException:
            new.close()
            raise
        old.close()

    def _shard(self, collection: Collection) -> Shard:
        if (shard := self._shards.get(collection)) is None:
            raise IndexUnavailableError("the embedded index is not open")
        return shard
