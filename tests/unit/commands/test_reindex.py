"""`coldstream reindex` on a server: filled, switched, switched back, forgotten."""

import asyncio
import json
import threading
from functools import partial

import pytest

from encoder.hashing import HashingEncoder
from streams import app
from streams.commands import main
from streams.index.qdrant import QdrantIndex
from streams.index.server import connect
from tests.support import qdrant_server
from tests.support.service import Service


@pytest.fixture
def front():
    """The front, in a thread with a loop of its own: (front, URL)."""
    loop, held = asyncio.new_event_loop(), qdrant_server.Front()
    server, port = loop.run_until_complete(qdrant_server.start(held))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield held, qdrant_server.url(port)
    asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def run(monkeypatch, capsys, dimension, *arguments):
    monkeypatch.setattr(app, "open_encoder", lambda _settings: HashingEncoder(dimension))
    assert main.run(["reindex", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


async def fill(address):
    service = await Service(index=QdrantIndex(partial(connect, address))).open()
    await service.feed(*(service.log.item(f"saw-{number}", f"hand saw {number}") for number in range(7)))
    await service.index.close()


def test_the_alias_follows_and_comes_back(front, monkeypatch, capsys):
    held, address = front
    monkeypatch.setenv("COLDSTREAM_INDEX", address)
    asyncio.run(fill(address))
    said = run(monkeypatch, capsys, 32)
    assert {name: said[name] for name in ("encoder", "items", "forgotten")} == {
        "encoder": "hashing-32", "items": 7, "forgotten": [],
    }  # fmt: skip
    assert held.aliases["items"] == "items-2"
    assert run(monkeypatch, capsys, 128)["items"] == 0, "nothing has changed since"
    assert held.aliases["items"] == "items-1"
    assert run(monkeypatch, capsys, 32, "--forget")["forgotten"] == ["items-1"]
    assert set(held.held) == {"items-2", "users-1", "statistics-1"}


def test_an_embedded_index_has_nothing_to_forget(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLDSTREAM_INDEX", f"edge:{tmp_path / 'index'}")
    monkeypatch.setattr(app, "open_encoder", lambda _settings: HashingEncoder(32))
    assert main.run(["reindex", "--forget"]) == 2
    assert "nothing to forget" in capsys.readouterr().err
    assert main.run(["reindex"]) == 0
    assert "0 items encoded by hashing-32" in capsys.readouterr().out
