"""The embedded index: Qdrant Edge in this process, one shard for each collection under one directory.

    DIR/lock                 held by the process that uses the index
    DIR/layout.json          the dimension of the vectors
    DIR/COLLECTION/current   the name of the shard in use
    DIR/COLLECTION/shard-N/  it
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from streams.errors import ConfigurationError, IndexUnavailableError
from streams.index.shard import Shard
from streams.index.stored import check_fields, check_match, point_id
from streams.ports import Collection, Hit, Match, Page, Point, Query, Write

FREE_BYTES: Final = 256 * 1024 * 1024
"""Writes are refused below this much free disk: Edge maps its files, and a mapped page that finds no room kills us."""
SCAN_PAGE: Final = 250
"""Points read at a time without letting others run (about 5 ms)."""


class Layout(msgspec.Struct, frozen=True):
    """What `layout.json` says."""

    format: int
    dimension: int


class EdgeIndex:
    """The port Index over Qdrant Edge. One process, one event loop."""

    name = "edge"

    def __init__(self, directory: Path, *, free_bytes: int = FREE_BYTES) -> None:
        self._directory = directory
        self._free_bytes = free_bytes
        self._lock: int | None = None
        self._shards: dict[Collection, Shard] = {}
        self._writing = {collection: asyncio.Lock() for collection in Collection}

    async def open(self, dimension: int) -> None:
        """See the port. Raises `ConfigurationError` too when another process uses the directory, or it is not ours."""
        self._take_directory()
        try:
            self._check_layout(dimension)
            for collection in Collection:
                self._shards[collection] = Shard(collection, current_shard(self._directory / collection), dimension)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See the port."""
        while self._shards:
            _, shard = self._shards.popitem()
            shard.flush()
            shard.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
            self._check_room()
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

    def _shard(self, collection: Collection) -> Shard:
        shard = self._shards.get(collection)
        if shard is None:
            raise IndexUnavailableError("the embedded index is not open")
        return shard

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._directory).free
        if free < self._free_bytes:
            raise IndexUnavailableError(
                f"only {free >> 20} MiB are free under {self._directory}: make room, at least {self._free_bytes >> 20} MiB"
            )

    def _take_directory(self) -> None:
        directory = self._directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            strangers = [path.name for path in directory.iterdir()]
            if strangers and "lock" not in strangers:
                raise ConfigurationError(f"{directory} is not empty and holds no index: name an empty directory")
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot use {directory} for the index: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            raise ConfigurationError(
                f"another process uses the index in {directory}: stop it, or ask it over its HTTP port"
            ) from error

    def _check_layout(self, dimension: int) -> None:
        path = self._directory / "layout.json"
        if path.exists():
            layout = msgspec.json.decode(path.read_bytes(), type=Layout)
            if layout.dimension != dimension:
                raise ConfigurationError(
                    f"the index in {self._directory} holds vectors of dimension {layout.dimension}, the encoder makes "
                    f"{dimension}: use another directory, or the encoder that filled this one"
                )
        else:
            path.write_bytes(msgspec.json.encode(Layout(format=1, dimension=dimension)))


def current_shard(home: Path) -> Path:
    """The path of a collection's shard in use; names the first one where there is none yet."""
    home.mkdir(exist_ok=True)
    pointer = home / "current"
    if not pointer.exists():
        point_to(home, home / "shard-1")
    return home / pointer.read_text(encoding="utf-8").strip()


def point_to(home: Path, shard: Path) -> None:
    """Make `shard` the one in use: durable and atomic."""
    pending = home / "current.pending"
    with pending.open("w", encoding="utf-8") as file:
        file.write(shard.name)
        file.flush()
        os.fsync(file.fileno())
    pending.replace(home / "current")
    descriptor = os.open(home, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
