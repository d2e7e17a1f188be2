"""Indexes for tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # Edge waits for the disk some twenty times when it makes a shard


@pytest.fixture
def edge_directory(tmp_path: Path) -> Iterator[Path]:
    """An absent directory for an embedded index, in memory where there is a file system in memory."""
    home = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    yield home / "index"
    shutil.rmtree(home)


def files_with(directory: Path, needle: bytes) -> list[str]:
    """The files below a directory whose bytes have the needle somewhere; at least one file must be there."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    return [str(path.relative_to(directory)) for path in files if needle in data_of(path)]


def data_of(path: Path) -> bytes:
    """The bytes of a file, a hole of whatever length as one zero: Edge's files are hundreds of megabytes of holes."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        parts: list[bytes] = []
        end = 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole from here on
                break
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            parts.append(os.pread(file.fileno(), end - start, start))
        return b"\0".join(parts)
