"""The port Index, over every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.index.edge import EdgeIndex
from streams.index.exact import ExactIndex
from streams.ports import Index
from tests.contract.index_contract import DIMENSION, IndexContract


class TestExact(IndexContract):
    """The oracle."""

    @pytest.fixture
    async def index(self) -> AsyncIterator[Index]:
        index = ExactIndex()
        await index.open(DIMENSION)
        yield index
        await index.close()

    async def reopen(self, index: Index) -> Index:
        await index.open(DIMENSION)
        return index


class TestEdge(IndexContract):
    """Qdrant Edge in this process."""

    @pytest.fixture
    async def index(self, tmp_path: Path) -> AsyncIterator[Index]:
        index = EdgeIndex(tmp_path / "index")
        await index.open(DIMENSION)
        yield index
        await index.close()

    async def reopen(self, index: Index) -> Index:
        await index.open(DIMENSION)
        return index
