"""A second encoder on an index: filled beside the first, in use from one moment on, left again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from streams.errors import ConfigurationError
from streams.index.directory import Directory
from streams.index.edge import EdgeIndex
from streams.index.qdrant import QdrantIndex
from streams.index.server import connect
from streams.ports import Collection, Index, Match, Point, Query, Write
from tests.contract.index_contract import new, point
from tests.support import qdrant_server
from tests.support.index import edge_directory
from tests.support.qdrant_server import Front

__all__ = ["edge_directory"]

ITEMS, USERS, STATISTICS = Collection
OLD, NEW = ("first@1/α", 8), ("second-2", 5)
Make = Callable[[], Index]


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture(params=["edge", "qdrant"])
async def make(request: pytest.FixtureRequest, edge_directory: Path, front: Front) -> AsyncIterator[Make]:
    if request.param == "edge":
        yield lambda: EdgeIndex(edge_directory)
        return
    server, port = await qdrant_server.start(front)
    yield lambda: QdrantIndex(partial(connect, qdrant_server.url(port)), prefix="p-")
    await server.stop(grace=None)


async def opened(make: Make, encoder: tuple[str, int]) -> Index:
    index = make()
    await index.open(encoder[1], encoder[0])
    return index


def vector(dimension: int) -> np.ndarray:
    return np.eye(dimension, dtype=np.float32)[0]


def item(key: str, encoder: tuple[str, int], **changes: object) -> Point:
    body = json.dumps({"item_id": key, "encoder": encoder[0]})
    made = point(key, vector=vector(encoder[1]), body=body, live=True, updated_ms=1000)
    return replace(made, **changes)  # type: ignore[arg-type]


async def filled(make: Make, encoder: tuple[str, int] = OLD, *, name: str | None = None) -> None:
    """What an installation of one encoder leaves: 300 items, users of whom one was erased, statistics."""
    index = make()
    await index.open(encoder[1], encoder[0] if name is None else name)
    assert not index.behind
    assert await index.foreign() == type(await index.foreign())((), None)
    await index.write(ITEMS, new(*(item(f"i{number}", encoder) for number in range(300))))
    erased = point("gone", body='{"gone": 1}', marker=True)
    await index.write(USERS, new(point("u", 7, vector=vector(encoder[1]), marker=False), replace(erased, named=False)))
    await index.write(STATISTICS, new(point("i1", 3, updated_ms=5)))
    await index.close()


async def foreign_keys(index: Index, match: Match | None = None) -> list[str]:
    found, cursor = [], None
    while True:
        page = await index.foreign(cursor=cursor, limit=64, match=match)
        found += [one.key for one in page.points]
        assert all(one.vector is None for one in page.points)
        cursor = page.cursor
        if cursor is None:
            return sorted(found)


def folders(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.is_dir())


ALL = sorted(f"i{number}" for number in range(300))


async def test_a_new_encoder_is_filled_beside_the_old_and_then_takes_its_place(make: Make) -> None:
    await filled(make)
    index = await opened(make, NEW)
    assert index.behind
    assert await index.count(ITEMS) == 0
    assert await foreign_keys(index) == ALL
    await index.write(ITEMS, new(*(item(key, NEW) for key in ALL)))
    await index.succeed()
    assert not index.behind
    found = (await index.search(ITEMS, [Query(400, vector(5))]))[0]
    assert sorted(hit.key for hit in found) == ALL
    user, erased = await index.read(USERS, ["u", "gone"])
    assert (user and user.version, erased and erased.body) == (7, '{"gone": 1}')
    (statistics,) = await index.read(STATISTICS, ["i1"])
    assert statistics is not None
    assert statistics.version == 3
    assert [hit.key for hit in await index.find(USERS, Match(equals={"marker": True}), 5)] == [""]
    # Tastes are made anew with the next write of their user, and only then found again.
    assert await index.search(USERS, [Query(5, vector(5))]) == [[]]
    await index.write(USERS, [Write(point("u", 8, vector=vector(5), marker=False), 7)])
    assert [hit.key for hit in (await index.search(USERS, [Query(5, vector(5))]))[0]] == ["u"]
    await index.close()
    again = await opened(make, NEW)
    assert not again.behind
    assert await again.count(ITEMS) == 300
    assert [hit.key for hit in (await again.search(USERS, [Query(5, vector(5))]))[0]] == ["u"]
    await again.close()


async def test_until_then_the_old_one_is_as_it_was_and_what_was_filled_is_kept(make: Make) -> None:
    await filled(make)
    for count in (0, 100):
        index = await opened(make, NEW)
        assert index.behind
        assert await index.count(ITEMS) == count
        await index.write(ITEMS, new(*(item(key, NEW) for key in ALL[count : count + 100])))
        await index.close()
    old = await opened(make, OLD)
    assert not old.behind
    assert await old.count(ITEMS) == 300
    assert [hit.key for hit in (await old.search(USERS, [Query(5, vector(8))]))[0]] == ["u"]
    await old.close()


async def test_whose_items_an_earlier_release_left_is_read_from_them(make: Make) -> None:
    await filled(make, name="")
    index = await opened(make, OLD)
    assert not index.behind
    assert await index.count(ITEMS) == 300
    await index.close()
    index = await opened(make, NEW)
    assert index.behind
    await index.close()


async def test_an_encoder_of_the_same_dimension_is_another_one_too(make: Make) -> None:
    await filled(make)
    index = await opened(make, ("third", OLD[1]))
    assert index.behind
    await index.succeed()
    assert await index.search(USERS, [Query(5, vector(8))]) == [[]]
    await index.close()


async def test_the_old_one_can_be_taken_up_again(make: Make) -> None:
    await filled(make)
    index = await opened(make, NEW)
    await index.write(ITEMS, new(*(item(key, NEW) for key in ALL), item("late", NEW)))
    await index.succeed()
    await index.close()
    back = await opened(make, OLD)
    assert back.behind == (not back.shared)  # a server keeps both
    assert await foreign_keys(back) == sorted([*ALL, "late"])
    await back.succeed()
    (user,) = await back.read(USERS, ["u"])
    assert user is not None
    assert user.version == 7
    await back.close()


async def test_only_one_home_is_left_on_the_disk(edge_directory: Path) -> None:
    make = partial(EdgeIndex, edge_directory)
    await filled(make)
    await (await opened(make, NEW)).close()
    assert folders(edge_directory) == sorted(["encoder-second-2", *(one.value for one in Collection)])
    index = await opened(make, NEW)
    await index.succeed()
    await index.close()
    assert folders(edge_directory) == ["encoder-second-2"]
    await (await opened(make, OLD)).close()
    await (await opened(make, NEW)).close()  # the operator thought better of it
    assert folders(edge_directory) == ["encoder-second-2"]


async def test_a_death_in_the_middle_of_the_exchange_leaves_one_or_the_other(
    edge_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = partial(EdgeIndex, edge_directory)
    await filled(make)
    index = await opened(make, NEW)
    await index.write(ITEMS, new(*(item(key, NEW) for key in ALL)))

    def die(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(Directory, "settle", die)
        with pytest.raises(RuntimeError):
            await index.succeed()
    await index.close()
    again = await opened(make, NEW)
    assert again.behind
    assert await again.count(ITEMS) == 300
    with monkeypatch.context() as broken:
        broken.setattr(Directory, "prune", die)
        with pytest.raises(RuntimeError):
            await again.succeed()
    await again.close()
    final = await opened(make, NEW)
    assert not final.behind
    assert [await final.count(collection) for collection in Collection] == [300, 2, 1]
    await final.close()


async def test_both_encoders_live_on_one_server_and_see_what_the_other_writes(front: Front) -> None:
    server, port = await qdrant_server.start(front)
    make = partial(QdrantIndex, partial(connect, qdrant_server.url(port)))
    await filled(make)
    old, new_one, twin = await opened(make, OLD), await opened(make, NEW), await opened(make, NEW)
    await new_one.succeed()
    await twin.succeed()
    assert front.aliases["items"] == front.aliases["items@second-2"] == "items-2"
    assert front.aliases["items@first_1__"] == "items-1"
    assert not any(alias.endswith("filling") for alias in front.aliases)
    await old.write(ITEMS, new(item("of the old", OLD, fields={"updated_ms": 9000})))
    await new_one.write(ITEMS, new(item("of the new", NEW, fields={"updated_ms": 9000})))
    late = Match(at_least={"updated_ms": 8000})
    assert await foreign_keys(old, late) == ["of the new"]
    assert await foreign_keys(new_one, late) == ["of the old"]
    third = await opened(make, ("third", 3))
    assert await foreign_keys(third, late) == ["of the new", "of the old"]
    assert isinstance(third, QdrantIndex)
    assert isinstance(new_one, QdrantIndex)
    assert await new_one.forget_others() == ["items-1", "items-3"]
    assert set(front.held) == {"items-2", "users-1", "statistics-1"}
    assert await foreign_keys(new_one) == []
    later = await opened(make, ("fourth", 3))
    assert front.aliases["items@fourth@filling"] == "items-3"
    for index in (old, new_one, twin, third, later):
        await index.close()
    await server.stop(grace=None)


async def test_a_server_that_knows_no_second_vector_is_refused(front: Front) -> None:
    front.version = "1.17.2"
    server, port = await qdrant_server.start(front)
    make = partial(QdrantIndex, partial(connect, qdrant_server.url(port)))
    await filled(make)
    with pytest.raises(ConfigurationError, match=r"1\.18"):
        await opened(make, NEW)
    await (await opened(make, OLD)).close()
    await server.stop(grace=None)
