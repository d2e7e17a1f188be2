"""The files of the embedded index.

- DIR/lock: held by the process that uses the index
- DIR/layout.json: whose vectors there are, their dimension, and HOME
- DIR/HOME/COLLECTION/current: the name of the shard in use, replaced atomically: the moment a rebuild takes effect
- DIR/HOME/COLLECTION/shard-N/: the shard; whatever else lies beside it was left by a rebuild that was cut short

HOME is nothing at first. Another encoder's index is filled in `encoder-NAME`; the new layout, replaced atomically, makes it
the one in use.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

from streams.errors import ConfigurationError, IndexUnavailableError
from streams.ports import Collection

FORMAT: Final = 2
"""How the files are written; another number is another release's."""
MOVED: Final = 3
"""The same where there is a home: releases that know none must not take the directory for an empty one."""


class Layout(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `layout.json` says."""

    format: int
    dimension: int
    encoder: str = ""
    """Who made the vectors; empty in what releases before 0.2 wrote."""
    home: str = ""


class Directory:
    """An index's directory; absent or empty at first, then held by one process at a time."""

    def __init__(self, path: Path, *, free_bytes: int) -> None:
        self.path = path
        self._free_bytes = free_bytes
        self._lock: int | None = None
        self.layout: Layout | None = None
        """None in a directory that is new."""

    def take(self) -> None:
        """Hold the directory. Raises `ConfigurationError` where it is in use, no index, or another release's."""
        try:
            self.path.mkdir(0o700, parents=True, exist_ok=True)  # people's words are in it
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
        self._read_layout()

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

    def heir(self, encoder: str) -> Directory:
        """The directory for another encoder's index, in this one and held with it."""
        heir = Directory(self.path, free_bytes=self._free_bytes)
        heir.layout = Layout(MOVED, 0, encoder, f"encoder-{re.sub(r'[^A-Za-z0-9._-]', '_', encoder)}")
        heir.root.mkdir(exist_ok=True)
        return heir

    def settle(self, dimension: int, encoder: str, home: str = "") -> None:
        """Say what is in use from now on: durable and atomic."""
        self.layout = Layout(MOVED if home else FORMAT, dimension, encoder, home)
        pending = self.path / "layout.pending"
        pending.write_bytes(msgspec.json.encode(self.layout))
        _sync(pending)
        pending.replace(self.path / "layout.json")
        _sync(self.path)

    def check_dimension(self, dimension: int) -> None:
        """Raise `ConfigurationError` where the vectors are of another."""
        if self.layout is not None and self.layout.dimension != dimension:
            raise ConfigurationError(
                f"the index in {self.path} holds vectors of dimension {self.layout.dimension}, the encoder makes "
                f"{dimension}: use another directory, or the encoder that filled this one"
            )

    def prune(self, spared: Path | None = None) -> None:
        """Delete the homes that are not in use, but for one: of encoders that were left, or never arrived."""
        for entry in self.path.iterdir():
            is_home = entry.name.startswith("encoder-") or (self.root != self.path and entry.name in set(Collection))
            if is_home and entry not in (self.root, spared):
                shutil.rmtree(entry)

    @property
    def root(self) -> Path:
        """Where the collections are."""
        return self.path / (self.layout.home if self.layout else "")

    def _home(self, collection: Collection) -> Path:
        return self.root / collection

    def _read_layout(self) -> None:
        path = self.path / "layout.json"
        if not path.exists():
            return
        layout = msgspec.json.decode(path.read_bytes(), type=Layout)
        if layout.format not in (FORMAT, MOVED):
            raise ConfigurationError(
                f"the index in {self.path} has format {layout.format}, this release reads {FORMAT} and {MOVED}: "
                "use the release that wrote it, or an empty directory"
            )
        self.layout = layout


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
