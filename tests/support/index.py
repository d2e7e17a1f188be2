"""Indexes for tests."""

from __future__ import annotations

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
