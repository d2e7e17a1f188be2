"""The port Index, over every adapter."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from streams.index.edge import EdgeIndex
from streams.index.exact import ExactIndex
from streams.index.qdrant import QdrantIndex
from streams.index.server import connect
from streams.ports import Collection, Index
from tests.contract.index_contract import DIMENSION, IndexContract
from tests.support import qdrant_server
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


class TestEdge(IndexContract):
    """Qdrant Edge in this process."""

    @pytest.fixture
    async def index(self, edge_directory: Path) -> AsyncIterator[Index]:
        index = EdgeIndex(edge_directory)
        await index.open(DIMENSION)
        yield index
        await index.close()


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning")
class TestQdrantLocal(IndexContract):
    """The client's local mode: the same requests, no server, no payload indexes."""

    @pytest.fixture
    async def index(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Index]:
        client = AsyncQdrantClient(":memory:")
        close = client.close
        monkeypatch.setattr(client, "close", partial(asyncio.sleep, 0))  # what is in memory outlives the adapter
        index = QdrantIndex(lambda: client, prefix="test-")
        await index.open(DIMENSION)
        yield index
        await index.close()
        await close()


class TestQdrantWire(IndexContract):
    """The requests as they go over the wire, answered by a front over the oracle."""

    @pytest.fixture
    async def index(self) -> AsyncIterator[Index]:
        server, port = await qdrant_server.start(qdrant_server.Front())
        index = QdrantIndex(partial(connect, qdrant_server.url(port)), prefix="test-")
        await index.open(DIMENSION)
        yield index
        await index.close()
        await server.stop(grace=None)


SERVER = os.environ.get("COLDSTREAM_TEST_QDRANT_URL", "")


@pytest.mark.skipif(not SERVER, reason="COLDSTREAM_TEST_QDRANT_URL names no server")
class TestQdrantServer(IndexContract):
    """A real server; each test has a prefix of its own and deletes what it made."""

    @pytest.fixture(params=["none", "scalar"])
    async def index(self, request: pytest.FixtureRequest) -> AsyncIterator[Index]:
        prefix = f"coldstream-test-{uuid.uuid4().hex}-"
        index = QdrantIndex(partial(connect, SERVER), prefix=prefix, quantization=request.param)
        await index.open(DIMENSION)
        yield index
        await index.close()
        client = connect(SERVER)
        for collection in Collection:
            await client.delete_collection(f"{prefix}{collection}-1")
        await client.close()
