"""What the embedded index promises beyond the port: its directory, kill -9, and the rebuild that purges."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streams.errors import ConfigurationError, IndexUnavailableError
from streams.index import edge
from streams.index.directory import copy_tree, size_bytes
from streams.index.edge import EdgeIndex
from streams.ports import Collection, Match, Query, Write
from tests.contract.index_contract import DIMENSION, keys, new, point, terms, unit
from tests.support.index import edge_directory, files_with

__all__ = ["edge_directory"]

ITEMS, USERS = Collection.ITEMS, Collection.USERS
ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from pathlib import Path
from streams.index.edge import EdgeIndex
from streams.ports import Collection, Point, Write

async def main():
    index = EdgeIndex(Path(sys.argv[1]))
    await index.open(8)
    for number in range(10**9):
        await index.write(Collection.USERS, [Write(Point("u", number + 1, "w", str(number)), number or None)])
        await index.write(Collection.ITEMS, [Write(Point(f"i{number}", 1, "w", "x" * 3000), None)])
        print(number, flush=True)

asyncio.run(main())
"""
PURGER = """
import asyncio, sys
from pathlib import Path
from streams.index.edge import EdgeIndex

async def main():
    index = EdgeIndex(Path(sys.argv[1]))
    await index.open(8)
    print("open", flush=True)
    await index.purge()

asyncio.run(main())
"""


async def opened(directory: Path) -> EdgeIndex:
    index = EdgeIndex(directory)
    await index.open(DIMENSION)
    return index


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


async def test_a_directory_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds no index"):
        await opened(tmp_path)
    assert names(tmp_path) == ["thesis.txt"]


async def test_files_of_another_release_are_not_touched(edge_directory: Path) -> None:
    await (await opened(edge_directory)).close()
    (edge_directory / "layout.json").write_text('{"format": 1, "dimension": 8}')
    with pytest.raises(ConfigurationError, match="format 1"):
        await opened(edge_directory)


async def test_nobody_else_on_the_machine_may_read_it(edge_directory: Path) -> None:
    await (await opened(edge_directory)).close()
    assert mode(edge_directory) & 0o077 == 0


async def test_a_second_user_of_the_directory_is_told_so(edge_directory: Path) -> None:
    index = await opened(edge_directory)
    with pytest.raises(ConfigurationError, match="another process uses the index"):
        await opened(edge_directory)
    await index.write(USERS, new(point("u")))
    await index.close()
    again = await opened(edge_directory)
    assert await again.count(USERS) == 1
    await again.close()


async def test_a_closed_index_is_unavailable(edge_directory: Path) -> None:
    index = await opened(edge_directory)
    await index.close()
    with pytest.raises(IndexUnavailableError):
        await index.read(USERS, ["u"])


async def test_kill_9_loses_nothing_that_was_written(edge_directory: Path) -> None:
    for _ in range(2):
        last = -1
        with start(WRITER, str(edge_directory)) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                last = int(line)
                if last == 300:
                    writer.kill()
        assert last >= 300
        index = await opened(edge_directory)
        (user,) = await index.read(USERS, ["u"])
        items = await index.read(ITEMS, [f"i{number}" for number in range(last + 1)])
        assert user is not None
        assert int(user.body) >= last
        assert all(item is not None and len(item.body) == 3000 for item in items)
        await index.close()
        shutil.rmtree(edge_directory)


async def test_after_a_purge_no_file_has_what_was_overwritten(edge_directory: Path) -> None:
    secret, item = os.urandom(24).hex(), os.urandom(24).hex()
    index = await opened(edge_directory)
    await index.write(USERS, new(*(point(f"u{n}", body=f"someone else {n}", list_ids=("x",)) for n in range(50))))
    await index.write(USERS, new(point("erased", body=f"profile {secret}", vector=unit(1), list_ids=(item,))))
    await index.write(ITEMS, new(point("gone", body=f"title {secret}", vector=unit(2), sparse=terms(t1=1.0))))
    await index.write(USERS, [Write(point("erased", 2, body="marker", marker=True), 1)])
    await index.write(ITEMS, [Write(point("gone", 2, body="marker", live=False), 1)])
    assert files_with(edge_directory, secret.encode())
    assert files_with(edge_directory, item.encode())
    await index.purge()
    assert files_with(edge_directory, b"marker")
    assert files_with(edge_directory, secret.encode()) == []
    assert files_with(edge_directory, item.encode()) == []
    assert await index.count(USERS) == 51
    assert keys(await index.find(USERS, Match(equals={"marker": True}), 5)) == ["erased"]
    await index.close()
    assert files_with(edge_directory, secret.encode()) == []
    assert names(edge_directory / "users") == ["current", "shard-2"]


async def test_writes_and_searches_go_on_during_a_purge(edge_directory: Path) -> None:
    index = await opened(edge_directory)
    await index.write(USERS, new(*(point(f"u{n}", body="old", vector=unit(n)) for n in range(1000))))
    purge = asyncio.create_task(index.purge())
    turn = 0
    while not purge.done():
        turn += 1
        at = turn % 1000
        (stored,) = await index.read(USERS, [f"u{at}"])
        assert stored is not None
        await index.write(USERS, [Write(point(stored.key, stored.version + 1, body=f"t{turn}"), stored.version)])
        await index.write(USERS, new(point(f"new{turn}", body=f"n{turn}", vector=unit(turn))))
        (hits,) = await index.search(USERS, [Query(3, unit(turn))])
        assert hits[0].score == pytest.approx(1.0, abs=1e-5)
        await asyncio.sleep(0.002)
    await purge
    assert turn > 20, "had they waited for the purge, there were three or four"
    await index.close()
    again = await opened(edge_directory)
    assert await again.count(USERS) == 1000 + turn
    last = {f"u{at % 1000}": f"t{at}" for at in range(1, turn + 1)} | {
        f"new{at}": f"n{at}" for at in range(1, turn + 1)
    }
    read = await again.read(USERS, list(last))
    assert [each and each.body for each in read] == list(last.values())
    await again.close()


async def test_closed_in_the_middle_of_a_purge_it_keeps_everything(edge_directory: Path) -> None:
    index = await opened(edge_directory)
    await index.write(USERS, new(*(point(f"u{n}") for n in range(100))))
    purge = asyncio.create_task(index.purge())
    await until_a_child_builds(edge_directory)
    await index.close()
    with pytest.raises(IndexUnavailableError, match="closed"):
        await purge
    again = await opened(edge_directory)
    assert await again.count(USERS) == 100
    await again.close()


async def test_a_purge_can_be_cancelled_and_repeated(edge_directory: Path) -> None:
    index = await opened(edge_directory)
    await index.write(USERS, new(*(point(f"u{n}") for n in range(100))))
    purge = asyncio.create_task(index.purge())
    await until_a_child_builds(edge_directory)
    purge.cancel()
    with pytest.raises(asyncio.CancelledError):
        await purge
    await index.write(USERS, new(point("after")))
    await index.purge()
    assert await index.count(USERS) == 101
    await index.close()


async def test_a_collection_that_grows_gets_its_graph(edge_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "UNINDEXED_POINTS", 500)
    index = await opened(edge_directory)
    await index.write(USERS, new(*(point(f"u{n}", vector=unit(n)) for n in range(499)), point("marker", marker=True)))
    await asyncio.sleep(0)
    assert names(edge_directory / "users") == ["current", "shard-1"]
    await index.write(USERS, [Write(point("u1", 2, vector=unit(1)), 1)])  # again the same: no growth
    assert names(edge_directory / "users") == ["current", "shard-1"]
    await index.close()
    await index.open(DIMENSION)
    await index.write(USERS, new(point("one more", vector=unit(0))))
    async with asyncio.timeout(30):
        while names(edge_directory / "users") != ["current", "shard-2"]:  # noqa: ASYNC110 no event tells of it
            await asyncio.sleep(0.02)
    assert await index.count(USERS) == 501
    assert names(edge_directory / "items") == ["current", "shard-1"]
    (hits,) = await index.search(USERS, [Query(1, unit(7))])
    assert keys(hits) == ["u7"]
    await index.close()


async def test_items_get_no_graph_since_nobody_searches_them(
    edge_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "UNINDEXED_POINTS", 5)
    index = await opened(edge_directory)
    await index.write(ITEMS, new(*(point(f"i{n}", vector=unit(n)) for n in range(20))))
    await asyncio.sleep(0.05)
    assert names(edge_directory / "items") == ["current", "shard-1"]
    await index.close()


async def test_growth_without_room_goes_on_without_a_graph(
    edge_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(edge, "UNINDEXED_POINTS", 5)
    monkeypatch.setattr(edge, "size_bytes", lambda path: 1 << 60)
    index = await opened(edge_directory)
    for start_at in range(0, 12, 3):
        await index.write(USERS, new(*(point(f"u{n}", vector=unit(n)) for n in range(start_at, start_at + 3))))
        await asyncio.sleep(0.05)
    assert caplog.text.count("without a graph for now: only") == 2
    assert await index.count(USERS) == 12
    await index.close()


async def test_a_rebuild_that_fails_leaves_the_old_shard(edge_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = await opened(edge_directory)
    await index.write(USERS, new(point("u", body="kept")))
    monkeypatch.setattr(edge, "copy_tree", lambda source, target: copy_tree(source / "segments", target))
    with pytest.raises(IndexUnavailableError, match="rebuilding users brought 0 of 1 points"):
        await index.purge()
    monkeypatch.setattr(edge, "copy_tree", lambda source, target: target.touch())
    with pytest.raises(IndexUnavailableError, match="rebuilding users failed"):
        await index.purge()
    monkeypatch.undo()
    assert names(edge_directory / "users") == ["current", "shard-1"]
    await index.write(USERS, new(point("v")))
    await index.purge()
    assert await index.count(USERS) == 2
    await index.close()


@pytest.mark.parametrize("delay_seconds", [0.1, 0.7, 1.6])
async def test_kill_9_in_the_middle_of_a_purge_keeps_everything(edge_directory: Path, delay_seconds: float) -> None:
    index = await opened(edge_directory)
    await index.write(USERS, new(*(point(f"u{n}", list_ids=("x",)) for n in range(300))))
    await index.close()
    with start(PURGER, str(edge_directory)) as purger:
        assert purger.stdout is not None
        assert purger.stdout.readline() == "open\n"
        await asyncio.sleep(delay_seconds)
        purger.kill()
    await until_no_process_names(str(edge_directory))
    again = await opened(edge_directory)
    assert await again.count(USERS) == 300
    assert len(await again.find(USERS, Match(equals={"list_ids": "x"}), 1000)) == 300
    assert len(names(edge_directory / "users")) == 2
    await again.close()


async def test_a_full_disk_is_unavailable_and_loses_nothing(
    edge_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = await opened(edge_directory)
    await index.write(USERS, new(point("u")))
    usage = shutil.disk_usage(edge_directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
    with pytest.raises(IndexUnavailableError, match="only 100 MiB are free"):
        await index.write(USERS, new(point("v")))
    with pytest.raises(IndexUnavailableError, match="make room"):
        await index.purge()
    assert await index.count(USERS) == 1
    await index.close()
    with pytest.raises(IndexUnavailableError, match="make room"):
        await index.open(DIMENSION)
    monkeypatch.undo()
    await index.open(DIMENSION)
    await index.write(USERS, new(point("v")))
    assert await index.count(USERS) == 2
    await index.close()


async def test_copies_keep_content_and_holes(tmp_path: Path) -> None:
    (tmp_path / "from" / "sub").mkdir(parents=True)
    with (tmp_path / "from" / "sub" / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(20_000_000)
    (tmp_path / "from" / "empty").touch()
    copy_tree(tmp_path / "from", tmp_path / "to")
    for name in ("sub/sparse", "empty"):
        assert (tmp_path / "to" / name).read_bytes() == (tmp_path / "from" / name).read_bytes()
    assert size_bytes(tmp_path / "to") < 1_000_000


async def until_a_child_builds(directory: Path) -> None:
    """Wait until a rebuild has its copy."""
    async with asyncio.timeout(20):
        while "copy" not in names(directory / "users"):  # noqa: ASYNC110 another process tells by its files
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)


async def until_no_process_names(text: str) -> None:
    """Wait until no process has the text among its arguments: the purger's child must die with it."""
    async with asyncio.timeout(5):
        while any(text in command for command in commands()):  # noqa: ASYNC110 no event tells of it
            await asyncio.sleep(0.02)


def commands() -> list[str]:
    """The command lines of all processes but this one's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.parent.name != str(os.getpid()):
                found.append(path.read_bytes().decode(errors="replace"))
    return found
