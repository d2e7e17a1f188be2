"""The files of the embedded index.

- DIR/lock: held by the process that uses the index
- DIR/layout.json: the dimension of the vectors
- DIR/COLLECTION/current: the name of the shard in use, replaced atomically: the moment a rebuild takes effect
- DIR/COLLECTION/shard-N/: the shard; whatever else lies beside it was left by a rebuild that was cut short
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

import msgspec

from streams.errors import ConfigurationError, IndexUnavailableError
from streams.ports import Collection

FORMAT: Final = 2
"""How the files are written; another number is another release's."""


class Layout(msgspec.Struct, frozen=True):
    """What `layout.json` says."""

    format: int
    dimension: int


class Directory:
    """An index's directory; absent or empty at first, then held by one process at a time."""

    def __init__(self, path: Path, *, free_bytes: int) -> None:
        self.path = path
        self._free_bytes = free_bytes
        self._lock: int | None = None

    def take(self, dimension: int) -> None:
        """Hold the directory. Raises `ConfigurationError` where it is in use, no index, or of another dimension."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = [entry.name for entry in self.path.iterdir()]
            if names and "lock" not in names:
                raise ConfigurationError(f"{self.path} is not empty and holds no index: name an empty directory")
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot use {self.path} for the index: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise ConfigurationError(
                f"another process uses the index in {self.path}: stop it, or ask it over its HTTP port"
            ) from error
        self._check_layout(dimension)

    def release(self) -> None:
        """Let others take it. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_room(self, more_bytes: int = 0) -> None:
        """Raise `IndexUnavailableError` unless `more_bytes` and the reserve are free."""
        needed = self._free_bytes + more_bytes
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise IndexUnavailableError(
                f"only {free >> 20} MiB are free under {self.path}, {needed >> 20} MiB are needed: make room"
            )

    def current(self, collection: Collection) -> Path:
        """The path of the shard in use; names the first one where there is none yet."""
        home = self._home(collection)
        pointer = home / "current"
        if not pointer.exists():
            home.mkdir(exist_ok=True)
            self.switch(home / "shard-1", collection)
        return home / pointer.read_text(encoding="utf-8").strip()

    def following(self, collection: Collection) -> Path:
        """The path that the next shard gets."""
        current = self.current(collection)
        return current.with_name(f"shard-{int(current.name.removeprefix('shard-')) + 1}")

    def switch(self, shard: Path, collection: Collection) -> None:
        """Make `shard` the one in use: durable and atomic."""
        home = self._home(collection)
        pending = home / "current.pending"
        pending.write_text(shard.name, encoding="utf-8")
        _sync(pending)
        pending.replace(home / "current")
        _sync(home)

    def sweep(self, collection: Collection) -> None:
        """Delete what a rebuild left beside the shard in use."""
        current = self.current(collection)
        for entry in self._home(collection).iterdir():
            if entry.name not in (current.name, "current"):
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def _home(self, collection: Collection) -> Path:
        return self.path / collection

    def _check_layout(self, dimension: int) -> None:
        path = self.path / "layout.json"
        if path.exists():
            layout = msgspec.json.decode(path.read_bytes(), type=Layout)
            if layout.format != FORMAT:
                raise ConfigurationError(
                    f"the index in {self.path} has format {layout.format}, this release reads {FORMAT}: "
                    "use the release that wrote it, or an empty directory"
                )
            if layout.dimension != dimension:
                raise ConfigurationError(
                    f"the index in {self.path} holds vectors of dimension {layout.dimension}, the encoder makes "
                    f"{dimension}: use another directory, or the encoder that filled this one"
                )
            return
        path.write_bytes(msgspec.json.encode(Layout(format=FORMAT, dimension=dimension)))
        _sync(path)
        _sync(self.path)


def size_bytes(path: Path) -> int:
    """Bytes on the disk of all files below; Edge's files are mostly holes."""
    return sum(entry.stat().st_blocks * 512 for entry in path.rglob("*") if entry.is_file())


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory, holes staying holes."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            copy_tree(entry, target / entry.name)
        else:
            _copy_sparse(entry, target / entry.name)


def sync_tree(path: Path) -> None:
    """Bring a directory and all below it to the disk."""
    for entry in path.rglob("*"):
        _sync(entry)
    _sync(path)


def _copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole from here on
                return
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            reader.seek(start)
            writer.seek(start)
            while start < end:
                block = reader.read(min(1 << 20, end - start))
                writer.write(block)
                start += len(block)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
