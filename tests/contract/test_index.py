"""The port Index, over every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.index.edge import EdgeIndex
from streams.index.exact import ExactIndex
from streams.ports import Index
from tests.contract.index_contract import DIMENSION, IndexContract
from tests.support.index import edge_directory

__all__ = ["edge_directory"]  # a fixture is found by its name in this module


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
    async def index(self, edge_directory: Path) -> AsyncIterator[Index]:
        index = EdgeIndex(edge_directory)
        await index.open(DIMENSION)
        yield index
        await index.close()

    async def reopen(self, index: Index) -> Index:
        await index.open(DIMENSION)
        return index
