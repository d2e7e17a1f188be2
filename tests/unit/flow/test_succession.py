"""A new encoder goes live, and is left again: nothing is lost on the way, and every list says whose it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.hashing import HashingEncoder
from streams.errors import EncoderFailedError
from streams.flow.items import item_from_point
from streams.index.edge import EdgeIndex
from streams.index.qdrant import QdrantIndex
from streams.index.server import connect
from streams.ports import Collection, Index
from streams.values import ItemRecord
from tests.support import qdrant_server
from tests.support.index import edge_directory
from tests.support.service import Service, ids

__all__ = ["edge_directory"]

OLD, NEW = HashingEncoder(128), HashingEncoder(48)


class Brittle(HashingEncoder):
    """Breaks at a word, and dies after so many texts."""

    def __init__(self, texts: int = 10**9) -> None:
        super().__init__(48)
        self.left = texts
        self.calls: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.left -= len(texts)
        if self.left < 0:
            raise ValueError("killed")
        if any("unspeakable" in text for text in texts):
            raise ValueError("a text that breaks this encoder")
        self.calls += texts
        return super().encode(texts)


@pytest.fixture
async def make() -> AsyncIterator[Callable[[], Index]]:
    server, port = await qdrant_server.start(qdrant_server.Front())
    yield partial(QdrantIndex, partial(connect, qdrant_server.url(port)))
    await server.stop(grace=None)


async def shop(index: Index, **others: object) -> Service:
    """An old installation: Ann wants a saw, and has bought one."""
    service = await Service(index=index, encoder=OLD, **others).open()  # type: ignore[arg-type]
    await service.feed(
        *(service.log.item(f"saw-{number}", f"hand saw for wood {number}") for number in range(5)),
        *(service.log.item(f"tea-{number}", f"green tea from japan {number}", partition=1) for number in range(5)),
        service.log.item("gone", "an old thing"),
        service.log.item("gone", None),
    )
    await service.feed(
        service.log.user("ann", "a hand saw for wood"), service.log.event("e1", "ann", "purchase", "saw-0")
    )
    await service.settle()
    assert service.lists()[-1]["encoder"] == "hashing-128"
    return service


async def kept(index: Index, *item_ids: str) -> list[ItemRecord | None]:
    return [item_from_point(point) for point in await index.read(Collection.ITEMS, item_ids)]


async def test_a_worker_that_is_started_with_another_encoder_goes_on_where_the_last_one_ended(
    edge_directory: Path,
) -> None:
    old = await shop(EdgeIndex(edge_directory))
    state = await old.state("ann")
    await old.index.close()
    new = await Service(index=EdgeIndex(edge_directory), encoder=NEW, beside=old).open()
    assert (new.worker.upkeep.succession.brought, new.worker.upkeep.succession.encoded) == (11, 10)
    assert await new.state("ann") == state
    await new.feed(new.log.event("e2", "ann", "view", "saw-1"))
    (told,) = new.lists()
    assert told["encoder"] == "hashing-48"
    assert told["version"] == (state.version if state else 0) + 1
    assert "saw-0" not in ids(told)
    assert {"saw-2", "saw-3", "saw-4"} <= set(ids(told))
    # With that the taste was made anew, so that a new item finds its user.
    refreshed = await new.feed(new.log.item("saw-9", "hand saw for wood 9"))
    assert [message.key for message in refreshed if message.topic == "refreshes"] == [b"ann"]
    (gone, there) = await kept(new.index, "gone", "saw-3")
    assert gone is not None
    assert gone.deleted
    assert there is not None
    assert (there.encoder, there.first_seen) == ("hashing-48", old.clock.at - 3.0)
    await new.index.close()
    back = await Service(index=EdgeIndex(edge_directory), encoder=OLD, beside=old).open()
    await back.feed(back.log.event("e3", "ann", "view", "saw-9"))
    assert back.lists()[-1]["encoder"] == "hashing-128"
    assert [entry.item_id for entry in (await back.state("ann")).history] == ["saw-0", "saw-1", "saw-9"]  # type: ignore[union-attr]
    await back.index.close()


@pytest.mark.parametrize("embedded", [True, False])
async def test_who_is_killed_in_the_middle_is_gone_on_with(
    edge_directory: Path, make: Callable[[], Index], *, embedded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.flow.succession.PAGE", 3)
    if embedded:
        make = partial(EdgeIndex, edge_directory)
    old = await shop(make())
    await old.index.close()
    calls: list[int] = []
    for _life in range(5):
        encoder = Brittle(4)
        index = make()
        service = Service(index=index, encoder=encoder, beside=old)
        try:
            await service.open()
        except EncoderFailedError:
            await index.close()
            continue
        finally:
            calls.append(len(encoder.calls))
        break
    assert len(calls) == 4
    assert sum(calls) == 10, "what was written is not encoded again"
    assert len(service.parts.catalogue.columns) == 10
    await service.feed(service.log.event("e2", "ann", "view", "saw-1"))
    assert service.lists()[-1]["encoder"] == "hashing-48"
    await index.close()


async def test_workers_of_both_encoders_share_a_server_until_the_last_old_one_ends(make: Callable[[], Index]) -> None:
    old = await shop(make())
    new = await Service(index=make(), encoder=NEW, beside=old).open()
    for worker in (old, new):
        worker.clock.at += 20.0
        await worker.worker.maintain()

    async def meet() -> None:
        old.clock.at += 2.0
        for worker in (old, new, old):
            await worker.worker.maintain()

    await old.feed(old.log.item("axe", "an axe for wood"))
    await new.feed(new.log.item("rice", "rice from japan", partition=1), new.log.item("tea-0", None, partition=1))
    assert await kept(new.index, "axe") == [None]
    await meet()
    for worker in (old, new):
        axe, rice, tea = await kept(worker.index, "axe", "rice", "tea-0")
        assert axe is not None
        assert rice is not None
        assert tea is not None
        assert tea.deleted
        assert {axe.encoder, rice.encoder} == {worker.encoder.name}
        assert worker.parts.catalogue.columns.item("axe") == axe
        assert worker.parts.catalogue.columns.item("rice") == rice
    # A partition moves: the later record counts on both sides, whoever wrote it; nothing goes back and forth.
    await new.feed(new.log.item("axe", "a greater axe"))
    await meet()
    await old.feed(old.log.item("axe", "the greatest axe"))
    await meet()
    titles = {worker.encoder.name: (await kept(worker.index, "axe"))[0].title for worker in (old, new)}  # type: ignore[union-attr]
    assert titles == {"hashing-128": "the greatest axe", "hashing-48": "the greatest axe"}
    encoded = [worker.worker.upkeep.succession.encoded for worker in (old, new)]
    await meet()
    assert [worker.worker.upkeep.succession.encoded for worker in (old, new)] == encoded
    # A user moves too: their state is one, their lists say who made them.
    await new.feed(new.log.event("e2", "ann", "view", "axe"))
    old.parts.users.forget()
    await old.feed(old.log.event("e3", "ann", "view", "rice"))
    assert [one["encoder"] for one in (new.lists()[-1], old.lists()[-1])] == ["hashing-48", "hashing-128"]
    assert new.lists()[-1]["version"] + 1 == old.lists()[-1]["version"]
    state = await new.state("ann")
    assert state is not None
    assert {entry.event_id for entry in state.recent_ids} >= {"e1", "e2", "e3"}
    for worker in (old, new):
        await worker.index.close()


async def test_a_text_that_breaks_the_new_encoder_stops_nobody(edge_directory: Path) -> None:
    old = await shop(EdgeIndex(edge_directory))
    await old.feed(old.log.item("odd", "unspeakable"))
    await old.index.close()
    new = await Service(index=EdgeIndex(edge_directory), encoder=Brittle(), beside=old).open()
    assert len(new.parts.catalogue.columns) == 10
    assert await kept(new.index, "odd") == [None]
    await new.index.close()
